"""The arithmetic of a computation: element type, autocast, TF32 and the choices of cuDNN."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch


class Numerics(NamedTuple):
    """One arithmetic.

    dtype: element type of the feature maps. autocast: parameters stay float32 and torch.autocast narrows.

    tf32, benchmark, deterministic: the switches of torch.backends; TF32 for cuDNN and matrix products alike.
    """

    dtype: torch.dtype
    autocast: bool = False
    tf32: bool = False
    benchmark: bool = False
    deterministic: bool = False

    @property
    def parameters(self) -> torch.dtype:
        """The element type of the parameters."""
        return torch.float32 if self.autocast else self.dtype

    @property
    def precision(self) -> str:
        """The narrowest type in its products: "float32", "tf32", "float16", "bfloat16" or "float64"."""
        return "tf32" if self.tf32 and self.dtype == torch.float32 else str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return f"{self.precision} autocast" if self.autocast else self.precision

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Run the block in this arithmetic, and leave torch's switches as they were."""
        before = _switches()
        _switch(self.tf32, self.tf32, self.benchmark, self.deterministic)
        try:
            with torch.autocast(device.type, self.dtype if self.autocast else torch.bfloat16, enabled=self.autocast):
                yield
        finally:
            _switch(*before)


def _switches() -> tuple[bool, bool, bool, bool]:
    cudnn = torch.backends.cudnn
    return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


def _switch(matmul_tf32: bool, cudnn_tf32: bool, benchmark: bool, deterministic: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = matmul_tf32
    torch.backends.cudnn.allow_tf32 = cudnn_tf32
    torch.backends.cudnn.benchmark = benchmark
    torch.backends.cudnn.deterministic = deterministic


def checked(device: torch.device) -> list[Numerics]:
    """The arithmetics that the tests go through: every type that operators take, autocast, and TF32 on a GPU."""
    narrow = (torch.float16, torch.bfloat16)
    modes = [Numerics(torch.float32), *(Numerics(dtype) for dtype in narrow)]
    modes += [Numerics(dtype, autocast=True) for dtype in narrow]
    return [*modes, Numerics(torch.float32, tf32=True)] if device.type == "cuda" else modes


def double() -> Numerics:
    """The arithmetic of the float64 reference."""
    return Numerics(torch.float64)
