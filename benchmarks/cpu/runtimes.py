"""ONNX Runtime, OpenVINO and zentorch: the plain network, exported or compiled for every shape it is given."""

import functools
import importlib.util
import io
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.core.plain import frozen, plain
from benchmarks.cpu import quantised


class Unavailable(Exception):
    """This implementation cannot run here, or cannot compute this; the message says why."""


class Engine(Protocol):
    """An ONNX model loaded by a runtime, which computes embeddings from silhouettes."""

    def __call__(self, silhouettes: np.ndarray) -> np.ndarray: ...

    def release(self) -> None:
        """Release what is kept from call to call, except for the weights."""


class Runtime(nn.Module):
    """A network that a runtime computes, built when a shape of silhouettes is first seen."""

    def __init__(self, network: nn.Module, build: Callable[[bytes], Engine]) -> None:
        super().__init__()
        self.network = network
        self.build = build
        self.engines: dict[tuple[int, ...], Engine] = {}

    def forward(self, silhouettes: Tensor) -> tuple[Tensor, None]:
        """Embeddings `[n, parts, c]` of silhouettes `[n, t, 64, 44]` uint8, and no logits."""
        shape = tuple(silhouettes.shape)
        if shape not in self.engines:
            self.engines[shape] = self.build(exported(self.network, shape))
        return torch.from_numpy(self.engines[shape](silhouettes.numpy())), None

    def release(self) -> None:
        """Release what is kept from call to call, except for the weights."""
        for engine in self.engines.values():
            engine.release()


class Embeddings(nn.Module):
    """The first output of a plain network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, silhouettes: Tensor) -> Tensor:
        """`[n, parts, c]`."""
        embeddings: Tensor = self.network(silhouettes)[0]
        return embeddings


@functools.lru_cache(maxsize=8)
def exported(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """The ONNX model of `network`, an `HSTL` in evaluation, for uint8 silhouettes of this shape."""
    module = Embeddings(plain(frozen(network, False))).eval()
    program = torch.onnx.export(module, (torch.zeros(shape, dtype=torch.uint8),), dynamo=True, verbose=False)
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


class Session:
    """A model in ONNX Runtime."""

    def __init__(self, model: bytes) -> None:
        self.model = model
        self.release()

    def __call__(self, silhouettes: np.ndarray) -> np.ndarray:
        embeddings: np.ndarray = self.session.run(None, {self.session.get_inputs()[0].name: silhouettes})[0]
        return embeddings

    def release(self) -> None:
        """Start anew: the arena of a session only grows."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")  # or it spins while the next one is timed
        self.session = ort.InferenceSession(self.model, options, providers=["CPUExecutionProvider"])


class Request:
    """A model in OpenVINO; precision: "f32", "bf16", or "int8" for quantised products, and beside them what the
    processor does fastest."""

    def __init__(self, model: bytes, precision: str) -> None:
        import openvino as ov

        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        core = ov.Core()
        read = core.read_model(io.BytesIO(model))
        if precision == "int8":
            read = quantised.by_nncf(read)
        else:
            settings["INFERENCE_PRECISION_HINT"] = precision
        self.model = core.compile_model(read, "CPU", settings)
        self.request: Any = None

    def __call__(self, silhouettes: np.ndarray) -> np.ndarray:
        if self.request is None:
            self.request = self.model.create_infer_request()
        embeddings: np.ndarray = self.request.infer([silhouettes], share_inputs=True)[0].copy()
        return embeddings

    def release(self) -> None:
        """Drop the request, which owns the maps."""
        self.request = None
        self.model.release_memory()


def onnxruntime(network: nn.Module, training: bool) -> nn.Module:
    """ONNX Runtime in float32."""
    _require(training, "onnxruntime")
    return Runtime(network, Session)


def openvino(network: nn.Module, training: bool) -> nn.Module:
    """OpenVINO in float32."""
    _require(training, "openvino")
    return Runtime(network, functools.partial(Request, precision="f32"))


def openvino_bfloat16(network: nn.Module, training: bool) -> nn.Module:
    """OpenVINO, allowed to compute in bfloat16."""
    _require(training, "openvino")
    require_bfloat16()
    return Runtime(network, functools.partial(Request, precision="bf16"))


def openvino_int8(network: nn.Module, training: bool) -> nn.Module:
    """OpenVINO with its products in int8, quantised by NNCF."""
    _require(training, "openvino", "nncf")
    return Runtime(network, functools.partial(Request, precision="int8"))


def onnxruntime_int8(network: nn.Module, training: bool) -> nn.Module:
    """ONNX Runtime with its products in int8, quantised by its own tools."""
    _require(training, "onnxruntime")
    return Runtime(network, lambda model: Session(quantised.by_onnxruntime(model)))


def zentorch(module: nn.Module, training: bool) -> nn.Module:
    """The module compiled by AMD's plug-in for torch.compile, for these very shapes."""
    if training:
        raise Unavailable("evaluation only")
    if importlib.util.find_spec("zentorch") is None:
        raise Unavailable("zentorch is not installed")
    try:
        from zentorch._compile_backend import zentorch_compile
    except Exception as error:  # it is built for one version of torch, and raises what the loader does
        raise Unavailable(f"zentorch cannot be loaded: {error}") from error

    def compile_graph(graph: Any, inputs: list[Tensor]) -> Any:
        with torch._inductor.config.patch(joint_custom_post_pass=None):  # or what inductor compiles later has it too
            return zentorch_compile(graph, inputs)

    module.compile(backend=compile_graph, dynamic=False)
    return module


def require_bfloat16() -> None:
    """Raise Unavailable where the processor has no instructions for bfloat16."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Unavailable("this processor has no bfloat16 arithmetic")


def _require(training: bool, *runtime: str) -> None:
    if training:
        raise Unavailable("evaluation only")
    for package in ("onnx", "onnxscript", *runtime):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"{package} is not installed (extra [peers])")
