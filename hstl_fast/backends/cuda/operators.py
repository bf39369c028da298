"""The private operators on the cuda backend."""

from __future__ import annotations

from torch import Tensor

from hstl_fast.backends import gpu_operators, implements
from hstl_fast.backends.cuda import arme, astp, elementwise, support
from hstl_fast.layout import channels_last

gpu_operators.register(gpu_operators.Kernels("cuda", arme, astp, elementwise, support))


@implements("arme_dgrad_fused", "cuda")
def _arme_dgrad_fused(
    grad: Tensor,
    weights: Tensor,
    x: Tensor,
    x_support: Tensor | None,
    maximum_grad: Tensor | None,
    maximum_index: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    x_slope: float,
) -> Tensor:
    g = channels_last(grad)
    maximum = None
    if maximum_grad is not None and maximum_index is not None:
        maximum = (channels_last(maximum_grad.float()), maximum_index)
    fused = arme.Fused(None if x_slope == 1.0 else channels_last(x), x_slope, maximum)
    return arme.dgrad(g, weights.to(g.dtype), x_support, split, seq_lens, fused)
