"""TensorRT on the exported network: types as in the export, or 8-bit integers by quantisation of the export."""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.runtimes.runtime import imported, version_of, why_no_module


class TensorRT:
    """An engine for one size of input, from ONNX. int8 convolutions come from nvidia-modelopt, calibrated on the input.

    The pools stay float32 in both, as the definition has them.
    """

    groups = frozenset({"embedding"})

    def __init__(self, precision: str) -> None:
        self.precision = precision
        self.name = f"TensorRT, {precision}"
        self.numerics = Numerics(torch.float16)

    def why_not(self, device: torch.device) -> str | None:
        """The reason why it cannot run here; None if it can."""
        quantiser = ["modelopt.onnx.quantization"] if self.precision == "int8" else []
        return why_no_module(device, "tensorrt", "onnx", "onnxscript", *quantiser)

    def version(self) -> str:
        """Its version."""
        return version_of("tensorrt", "tensorrt-cu13", "tensorrt-cu12")

    def prepare(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """The network's engine, built for the first input."""
        return Engine(module, self.precision)


class Engine(nn.Module):
    """A network that runs in TensorRT; it is exported and built at its first call."""

    def __init__(self, module: nn.Module, precision: str) -> None:
        super().__init__()
        self.module, self.precision = module, precision
        self.context: Any = None

    def forward(self, silhouettes: Tensor) -> tuple[Tensor, None]:
        """Embeddings, always in the same memory."""
        if self.context is None:
            self._build(silhouettes)
        self.context.set_tensor_address("silhouettes", silhouettes.data_ptr())
        if not self.context.execute_async_v3(torch.cuda.current_stream().cuda_stream):
            raise RuntimeError("TensorRT could not run its engine")
        return self.output, None

    def _build(self, silhouettes: Tensor) -> None:
        trt = imported("tensorrt")
        logger = trt.Logger(trt.Logger.ERROR)
        builder = trt.Builder(logger)
        # Newer versions know no other networks, and may lack the flag.
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, logger)
        with tempfile.TemporaryDirectory() as folder:
            path = exported(self.module, silhouettes, Path(folder))
            if self.precision == "int8":
                path = quantised(path, silhouettes)
            if not parser.parse_from_file(str(path)):
                raise RuntimeError(f"TensorRT cannot read the export: {parser.get_error(0)}")
        plan = builder.build_serialized_network(network, builder.create_builder_config())
        if plan is None:
            raise RuntimeError("TensorRT cannot build an engine")
        self.runtime = trt.Runtime(logger)
        self.engine = self.runtime.deserialize_cuda_engine(plan)
        self.context = self.engine.create_execution_context()
        self.output = torch.empty(
            tuple(self.engine.get_tensor_shape("embeddings")),
            dtype=torch.float32 if "FLOAT" in str(self.engine.get_tensor_dtype("embeddings")) else torch.float16,
            device=silhouettes.device,
        )
        self.context.set_tensor_address("embeddings", self.output.data_ptr())


class _Embeddings(nn.Module):
    """The embeddings alone, which is what an export can return."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, silhouettes: Tensor) -> Tensor:
        embeddings: Tensor = self.network(silhouettes)[0]
        return embeddings


def exported(module: nn.Module, silhouettes: Tensor, folder: Path) -> Path:
    """The network as an ONNX file for this size of input."""
    path = folder / "network.onnx"
    torch.onnx.export(
        _Embeddings(module).eval(),
        (silhouettes,),
        str(path),
        input_names=["silhouettes"],
        output_names=["embeddings"],
        dynamo=True,
        external_data=False,
    )
    return path


def quantised(path: Path, silhouettes: Tensor) -> Path:
    """The file with its convolutions in 8-bit integers."""
    quantisation = imported("modelopt.onnx.quantization")
    output = path.with_name("quantised.onnx")
    quantisation.quantize(
        str(path),
        quantize_mode="int8",
        calibration_data={"silhouettes": silhouettes.cpu().numpy()},
        op_types_to_quantize=["Conv"],
        output_path=str(output),
    )
    return output
