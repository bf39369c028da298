"""cuDNN's graphs: convolution and LeakyReLU of each region in one kernel, the least that a layer takes in cuDNN."""

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.runtimes.runtime import imported, version_of, why_no_module


class CudnnFrontend:
    """Fused graphs by the package nvidia-cudnn-frontend, the plan that its heuristics put first."""

    name = "cuDNN frontend, convolution and LeakyReLU fused, bfloat16"
    numerics = Numerics(torch.bfloat16)
    precision = "bfloat16"
    groups = frozenset({"arme forward"})

    def why_not(self, device: torch.device) -> str | None:
        """The reason why it cannot run here; None if it can."""
        return why_no_module(device, "cudnn")

    def version(self) -> str:
        """Its version."""
        return version_of("nvidia-cudnn-frontend")

    def prepare(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """A graph for each region, built for the first input."""
        return FusedLayer(module.layer)


class FusedLayer(nn.Module):
    """An ARME layer as one graph for each region, which reads and writes its rows in place."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.plans: list[tuple[Any, dict[Any, Tensor]]] = []
        self.output: Tensor | None = None
        self.input: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output, always in the same memory."""
        if self.input is not x:
            self._build(x)
        for plan, tensors in self.plans:
            plan.execute(tensors, self.workspace)
        assert self.output is not None
        return self.output

    def _build(self, x: Tensor) -> None:
        cudnn = imported("cudnn")
        self.input, layer = x, self.layer
        self.output = torch.empty(
            (x.shape[0], layer.weight.shape[1], *x.shape[2:]),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last_3d,
        )
        handle = cudnn.create_handle()
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream().cuda_stream)
        self.plans, start = [], 0
        for weight, rows in zip(layer.weight, layer.split, strict=True):
            inside = slice(start, start + rows)
            weight = weight.to(x.dtype).contiguous(memory_format=torch.channels_last_3d)
            maps = x[:, :, :, inside], self.output[:, :, :, inside]
            self.plans.append(self._plan(cudnn, handle, *maps, weight, layer.negative_slope))
            start += rows
        most = max(plan.get_workspace_size() for plan, _ in self.plans)
        self.workspace = torch.empty(max(most, 1), dtype=torch.uint8, device=x.device)

    @staticmethod
    def _plan(
        cudnn: Any, handle: Any, x: Tensor, y: Tensor, weight: Tensor, slope: float
    ) -> tuple[Any, dict[Any, Tensor]]:
        wide = cudnn.data_type.FLOAT
        graph = cudnn.pygraph(
            io_data_type=cudnn.data_type.BFLOAT16, intermediate_data_type=wide, compute_data_type=wide, handle=handle
        )
        image, filters = graph.tensor_like(x), graph.tensor_like(weight)
        ones = [1, 1, 1]
        sums = graph.conv_fprop(image=image, weight=filters, padding=ones, stride=ones, dilation=ones)
        output = graph.leaky_relu(input=sums, negative_slope=slope)
        output.set_output(True).set_dim(list(y.shape)).set_stride(list(y.stride()))
        graph.build([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        return graph, {image: x, filters: weight, output: y}
