"""Libraries of others: those that are missing say so, and what is asked of them is the layer's function."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.core.plain import frozen, plain
from benchmarks.gpu import clips, compare, implementations, suite
from benchmarks.gpu.runtimes import RUNTIMES, cudnn_frontend, spconv, tensorrt
from benchmarks.gpu.runtimes.runtime import why_no_module
from hstl_fast import reference
from hstl_fast.nn import ARME
from tests.benchmarks.gpu.helpers import CPU, Recorder, statuses

SPLIT = (3, 1, 4)


def layer() -> ARME:
    torch.manual_seed(0)
    return ARME(4, 6, SPLIT).requires_grad_(True)


def sparse_input() -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(2, 4, 3, 8, 5) * (torch.rand(2, 1, 3, 8, 5) < 0.15)
    return x.contiguous(memory_format=torch.channels_last_3d)


def test_what_is_missing_is_named() -> None:
    assert why_no_module(CPU, "no_such_library.part") == "no_such_library is not installed"
    assert why_no_module(CPU, "json") == "it needs a GPU"
    assert why_no_module(torch.device("cuda"), "json") is None


def test_unavailable_libraries_cost_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "find", None)
    jobs = [job for job in compare.jobs(CPU, tiny=True) if any(r.name in key for r in RUNTIMES for key in job.keys)]
    reporter = Recorder()
    for job in jobs:
        compare.execute(job, reporter, CPU, tiny=True)
    assert len(reporter.rows) == len(jobs) > len(RUNTIMES)
    assert set(statuses(reporter.rows).values()) == {"unavailable"}
    assert {key.rpartition(" | ")[2] for key in reporter.rows} == {runtime.name for runtime in RUNTIMES}


class SubMConv3d:
    """What spconv computes, by a dense convolution."""

    def __init__(self, c_in: int, c_out: int, size: int, bias: bool, indice_key: str) -> None:
        assert (size, bias, indice_key) == (3, False, "region")
        self.weight = torch.zeros(c_out, 3, 3, 3, c_in)

    def __call__(self, given: Any) -> Any:
        n, at = given.batch_size, tuple(given.indices.long().unbind(1))
        dense = given.features.new_zeros(n, *given.spatial_shape, given.features.shape[1])
        dense = dense.index_put(at, given.features).permute(0, 4, 1, 2, 3)
        sums = F.conv3d(dense, self.weight.permute(0, 4, 1, 2, 3), padding=1).permute(0, 2, 3, 4, 1)
        return SimpleNamespace(features=sums[at])


def sparse_tensor(features: Tensor, indices: Tensor, spatial_shape: tuple[int, ...], batch_size: int) -> Any:
    assert indices.dtype == torch.int32
    return SimpleNamespace(features=features, indices=indices, spatial_shape=spatial_shape, batch_size=batch_size)


def test_sparse_convolutions_on_our_support_are_the_layer() -> None:
    library = SimpleNamespace(SubMConv3d=SubMConv3d, SparseConvTensor=sparse_tensor)
    given, module = sparse_input(), layer()
    sparse = spconv.SparseLayer(module, library)
    x, other = (given.clone().requires_grad_() for _ in range(2))
    expected = reference.arme(x, module.weight, module.split, negative_slope=module.negative_slope)
    got = sparse(other)
    torch.testing.assert_close(got, expected)
    direction = torch.randn_like(expected) * (expected != 0)
    right = torch.autograd.grad(expected, module.weight, direction)
    torch.testing.assert_close(torch.autograd.grad(got, module.weight, direction), right)
    assert sum(len(region.sites) for region in sparse.regions) < given[:, 0].numel()


class Graph:
    """A graph of cuDNN's frontend, which keeps what it is asked for and computes it by torch."""

    def __init__(self, **types: Any) -> None:
        self.slope: float | None = None

    def tensor_like(self, x: Tensor) -> object:
        return object()

    def conv_fprop(self, image: object, weight: object, padding: list[int], **options: Any) -> object:
        assert (padding, options) == ([1, 1, 1], {"stride": [1, 1, 1], "dilation": [1, 1, 1]})
        self.operands = image, weight
        return object()

    def leaky_relu(self, input: object, negative_slope: float) -> Any:
        self.slope, self.output = negative_slope, Output()
        return self.output

    def build(self, modes: list[str]) -> None:
        assert modes == ["A", "FALLBACK"]

    def get_workspace_size(self) -> int:
        return 16

    def execute(self, tensors: dict[object, Tensor], workspace: Tensor) -> None:
        assert workspace.numel() == 16
        image, weight = (tensors[operand] for operand in self.operands)
        tensors[self.output].copy_(F.leaky_relu(F.conv3d(image, weight, padding=1), self.slope))


class Output:
    """A tensor of a graph, described step by step."""

    def set_output(self, value: bool) -> "Output":
        assert value
        return self

    def set_dim(self, sizes: list[int]) -> "Output":
        self.sizes = sizes
        return self

    def set_stride(self, strides: list[int]) -> "Output":
        assert strides[1] == 1, "channels last"
        return self


def test_fused_graphs_are_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    library = SimpleNamespace(
        pygraph=Graph,
        data_type=SimpleNamespace(FLOAT="f", BFLOAT16="b"),
        heur_mode=SimpleNamespace(A="A", FALLBACK="FALLBACK"),
        create_handle=object,
        set_stream=lambda handle, stream: None,
    )
    monkeypatch.setattr(cudnn_frontend, "imported", lambda name: library)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    module, x = layer().requires_grad_(False), sparse_input()
    fused = cudnn_frontend.FusedLayer(module)
    expected = reference.arme(x, module.weight, module.split, negative_slope=module.negative_slope)
    torch.testing.assert_close(fused(x), expected)
    assert fused(x) is fused(x), "it is built once for an input"
    other = sparse_input() + 1
    expected = reference.arme(other, module.weight, module.split, negative_slope=module.negative_slope)
    torch.testing.assert_close(fused(other), expected)


def test_embeddings_are_exported_in_half_with_wide_pools(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    network = plain(frozen(clips.model("casia-b", tiny=True), False).to(torch.float16))
    exported = tensorrt.exported(network, clips.clips(1, 3), tmp_path)
    graph = onnx.load(str(exported)).graph
    assert [given.name for given in graph.input] == ["silhouettes"]
    assert [made.name for made in graph.output] == ["embeddings"]
    assert sum(node.op_type == "Conv" for node in graph.node) > 4


def test_their_settings_are_recorded() -> None:
    names = {implementation.name for implementation in implementations.OTHERS}
    assert names == {runtime.name for runtime in RUNTIMES}
    for implementation in implementations.OTHERS:
        found = implementation.settings(CPU)
        assert found["precision"] == implementation.precision
        assert found["runtime"] == "unknown" or " " in found["runtime"]
        assert found["backends"] is None
