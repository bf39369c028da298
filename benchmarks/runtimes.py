"""ONNX Runtime and OpenVINO: the plain network, exported to ONNX for every shape it is given."""

import functools
import importlib.util
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.plain import frozen, plain

Run = Callable[[np.ndarray], np.ndarray]
Build = Callable[[bytes], Run]
"""From an ONNX model to what computes its embeddings."""


class Unavailable(Exception):
    """This rival cannot run here or not do this; the message says why."""


class Runtime(nn.Module):
    """A network that a runtime computes, built when a shape of silhouettes is first seen."""

    def __init__(self, network: nn.Module, build: Build) -> None:
        super().__init__()
        self.network = network
        self.build = build
        self.runs: dict[tuple[int, ...], Run] = {}

    def forward(self, silhouettes: Tensor) -> tuple[Tensor, None]:
        """Embeddings `[n, parts, c]` of silhouettes `[n, t, 64, 44]` uint8, and no logits."""
        shape = tuple(silhouettes.shape)
        if shape not in self.runs:
            self.runs[shape] = self.build(exported(self.network, shape))
        return torch.from_numpy(self.runs[shape](silhouettes.numpy())), None


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


def onnxruntime(network: nn.Module, training: bool) -> nn.Module:
    """ONNX Runtime in float32."""
    _require(training, "onnxruntime")
    return Runtime(network, _session)


def openvino(network: nn.Module, training: bool) -> nn.Module:
    """OpenVINO in float32."""
    _require(training, "openvino")
    return Runtime(network, functools.partial(_request, precision="f32"))


def openvino_bfloat16(network: nn.Module, training: bool) -> nn.Module:
    """OpenVINO, allowed to compute in bfloat16."""
    _require(training, "openvino")
    require_bfloat16()
    return Runtime(network, functools.partial(_request, precision="bf16"))


def require_bfloat16() -> None:
    """Raise Unavailable where the processor has no instructions for bfloat16."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise Unavailable("this processor has no bfloat16 arithmetic")


def _require(training: bool, runtime: str) -> None:
    if training:
        raise Unavailable("evaluation only")
    for package in ("onnx", "onnxscript", runtime):
        if importlib.util.find_spec(package) is None:
            raise Unavailable(f"{package} is not installed (extra [peers])")


def _session(model: bytes) -> Run:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # it would spin into the next rival's turn
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda silhouettes: session.run(None, {name: silhouettes})[0]


def _request(model: bytes, precision: str) -> Run:
    import openvino as ov

    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = ov.Core()
    request = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings).create_infer_request()
    return lambda silhouettes: request.infer([silhouettes], share_inputs=True)[0].copy()
