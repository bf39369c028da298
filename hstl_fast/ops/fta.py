"""FTA, the gated sum of two temporal maximum poolings: schema, autograd and the public function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.layout import channels_last, computing_dtype, empty_map, reference_dtype
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.ops._autograd import NativeFunction, apply, first_derivative_only, pad_with_none
from hstl_fast.ops._library import LIBRARY, define, under_autocast, without_autocast
from hstl_fast.ops._ownership import notices_inspection
from hstl_fast.ops.support import Support, masked, of_input
from hstl_fast.reference import fta_lengths

__all__ = ["fta", "fta_lengths"]

# The support, bool [n, t', h, w], is the output's; `means` are the regions' means of both pooled maps, [windows, m, c].
define(
    "fta_forward(Tensor x, Tensor weights, Tensor biases, Tensor? y_support, int[] split, SymInt[] seq_lens,"
    " str backend) -> (Tensor y, Tensor means)"
)
define(
    "fta_backward(Tensor grad, Tensor x, Tensor means, Tensor weights, Tensor biases, Tensor? y_support, int[] split,"
    " SymInt[] seq_lens, str backend) -> (Tensor gx, Tensor gweights, Tensor gbiases)"
)


@torch.library.register_fake("hstl_fast::fta_forward", lib=LIBRARY)
def _forward_fake(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor]:
    n, c, t, h, w = x.shape
    frames = sum(fta_lengths(seq_lens)) if seq_lens else t // 3
    means = x.new_empty((n * frames, len(split), c), dtype=computing_dtype(x.dtype))
    return empty_map(x, n, c, frames, h, w), means


@torch.library.register_fake("hstl_fast::fta_backward", lib=LIBRARY)
def _backward_fake(
    grad: Tensor,
    x: Tensor,
    means: Tensor,
    weights: Tensor,
    biases: Tensor,
    y_support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, t, h, w = x.shape
    gweights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    gbiases = torch.empty_like(biases, memory_format=torch.contiguous_format)
    return empty_map(x, n, c, t, h, w), gweights, gbiases


@notices_inspection
class _Fta(NativeFunction):
    """Saves the input and the region means; both pooled maps are found again in backward."""

    saves_result = False

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        biases: Tensor,
        y_support: Tensor | None,
        split: list[int],
        seq_lens: list[int],
        backend: str,
    ) -> Tensor:
        y: Tensor
        y, means = torch.ops.hstl_fast.fta_forward(x, weights, biases, y_support, split, seq_lens, backend)
        ctx.save_for_backward(means, x, weights, biases, y_support)
        ctx.arguments = (split, seq_lens, backend)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        means, x, *layer = ctx.saved_tensors
        gx, gweights, gbiases = torch.ops.hstl_fast.fta_backward(grad, x, means, *layer, *ctx.arguments)
        return pad_with_none(ctx, gx, gweights, gbiases)


def fta(
    x: Tensor,
    weights: Tensor,
    biases: Tensor,
    split: Sequence[int],
    *,
    seq_lens: _checks.Lengths | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
) -> Tensor:
    """Frame-level temporal aggregation: per region, a gated sum of temporal maxima over 3 and over 5 frames.

    Equivalent, for each region with its own weights (W_a, W_b) and biases (b_a, b_b), to::

        a = F.max_pool3d(region, (3, 1, 1), stride=(3, 1, 1))
        b = F.max_pool3d(region, (5, 1, 1), stride=(3, 1, 1), padding=(1, 0, 0))
        z = (a + b).mean(dim=(3, 4))                                          # [n, c, t']
        gate = torch.softmax(torch.stack([W_a @ z + b_a, W_b @ z + b_b]), 0)[..., None, None]
        y = gate[0] * a + gate[1] * b

    Args:
        x: feature map `[n, c, t, h, w]`, t >= 3, float16, bfloat16, float32 or float64, any strides.
        weights: `[m, 2, c, c]`: W_a and W_b of every region; x's type, or float32 beside a narrower x.
        biases: `[m, 2, c]`.
        split: rows of each of the m regions; they sum to h.
        seq_lens: lengths of the sequences packed along t (then n = 1), each at least 3; windows stop at their ends, and
            the result is packed with the lengths `fta_lengths(seq_lens)`.
        backend: as for :func:`arme`.
        support: None, or bool `[n, t, h, w]`, True where x may be non-zero; outside, x counts as 0, whatever stands
            there (a copy of x is made).

    Returns:
        `[n, c, t', h, w]` with t' = t // 3 (or their sum), x's type (autocast's under autocast), channels last.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it, what was expected and what was given.
        RuntimeError: the backend asked for cannot run, and why.

    Source: HSTL (ICCV 2023), FTA.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x, at_least=3)
    rows = _checks.rows(split, x.shape[3])
    m, c = len(rows), x.shape[1]
    _checks.parameter(weights, "weights", (m, 2, c, c), x)
    _checks.parameter(biases, "biases", (m, 2, c), x)
    within = of_input(support)
    _checks.support(within, x)
    chosen = _dispatch.choose("fta", x.device, x.dtype, backend, widths=_dispatch.widths_of(c))
    if chosen == "reference":
        with without_autocast(x):
            y = reference.fta(x.to(reference_dtype(x)), weights, biases, rows, seq_lens=lens or None, support=within)
            return channels_last(y.to(x.dtype))
    if isinstance(support, Tensor):
        x, support = masked(x, support), None
    return apply(_Fta, x, weights, biases, None if support is None else support.y, rows, lens, chosen)
