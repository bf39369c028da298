"""The gradient of LeakyReLU on the cuda backend, position by position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hstl_fast.backends.cuda.calls import NativeCall, place_of, type_of


@dataclass(slots=True, eq=False)
class LeakyBackwardCall(NativeCall):
    """grad is multiplied in place by the derivative of LeakyReLU, found from the sign of its output y."""

    name: ClassVar[str] = "leaky_backward"
    grad: Tensor
    y: Tensor
    size: int
    negative_slope: float
    type: int
    device: int
    stream: int


def leaky_backward_(grad: Tensor, y: Tensor, slope: float) -> None:
    """Multiply a gradient in place by LeakyReLU's derivative, found from its output's sign; both maps channels last."""
    LeakyBackwardCall(grad, y, grad.numel(), slope, type_of(grad), *place_of(grad))()
