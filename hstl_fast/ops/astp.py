"""ASTP and strip pooling: frame maximum, 1x1 projection and the generalised mean of every region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast import backends, reference
from hstl_fast.layout import computing_dtype, empty_map, frames_of, reference_dtype
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.ops._autograd import NativeFunction, apply, first_derivative_only, is_followed, pad_with_none
from hstl_fast.ops._library import LIBRARY, define, under_autocast, without_autocast
from hstl_fast.ops._ownership import OwningFunction, may_overwrite, notices_inspection
from hstl_fast.ops.support import Support, masked, of_input

# `astp_inference` is for calls that nothing follows: the frames of the maxima are not looked for. `pooled` and its
# gradient are [n, m, c_out]; `index` is the frame of each maximum in its sequence, int16; `by_power`
# is the derivative of `pooled` by p where the backend finds it in the forward pass, else empty.
define(
    "astp_forward(Tensor x, Tensor? proj, Tensor p, Tensor? support, int[] split, SymInt[] seq_lens, str backend)"
    " -> (Tensor pooled, Tensor maximum, Tensor index, Tensor by_power)"
)
define(
    "astp_inference(Tensor x, Tensor? proj, Tensor p, Tensor? support, int[] split, SymInt[] seq_lens, str backend)"
    " -> Tensor pooled"
)
define(
    "astp_backward(Tensor grad, Tensor pooled, Tensor maximum, Tensor index, Tensor by_power, Tensor? proj, Tensor p,"
    " SymInt[] x_shape, ScalarType dtype, int[] split, SymInt[] seq_lens, str backend)"
    " -> (Tensor gx, Tensor gproj, Tensor gp)"
)
define("frame_maximum(Tensor x, Tensor? support, SymInt[] seq_lens, str backend) -> (Tensor maximum, Tensor index)")
define(
    "frame_maximum_backward(Tensor grad, Tensor index, SymInt[] x_shape, ScalarType dtype, SymInt[] seq_lens,"
    " str backend) -> Tensor"
)
define("frame_maximum_backward_add(Tensor(a!) gx, Tensor grad, Tensor index, SymInt[] seq_lens, str backend) -> ()")


@torch.library.register_fake("hstl_fast::frame_maximum", lib=LIBRARY)
def _maximum_fake(x: Tensor, support: Tensor | None, seq_lens: list[int], backend: str) -> tuple[Tensor, Tensor]:
    n, c, _, h, w = x.shape
    maximum = empty_map(x, len(seq_lens) or n, c, 1, h, w)
    return maximum, x.new_empty((len(seq_lens) or n, h, w, c), dtype=torch.int16)


@torch.library.register_fake("hstl_fast::frame_maximum_backward", lib=LIBRARY)
def _maximum_backward_fake(
    grad: Tensor, index: Tensor, x_shape: list[int], dtype: torch.dtype, seq_lens: list[int], backend: str
) -> Tensor:
    return _map_of(grad, x_shape, dtype)


@torch.library.register_fake("hstl_fast::frame_maximum_backward_add", lib=LIBRARY)
def _maximum_backward_add_fake(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int], backend: str) -> None:
    pass


@torch.library.register_fake("hstl_fast::astp_forward", lib=LIBRARY)
def _forward_fake(
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    support: Tensor | None,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = len(seq_lens) or x.shape[0]
    _, c_in, _, h, w = x.shape
    c_out = c_in if proj is None else proj.shape[0]
    dtype = computing_dtype(x.dtype)
    pooled = x.new_empty((n, len(split), c_out), dtype=dtype)
    maximum = x.new_empty((n, h, w, c_in), dtype=dtype if backends.widens_maps(backend) else x.dtype)
    by_power = torch.empty_like(pooled) if backends.finds_power_gradient(backend) else pooled.new_empty(0)
    return pooled, maximum, torch.empty_like(maximum, dtype=torch.int16), by_power


@torch.library.register_fake("hstl_fast::astp_inference", lib=LIBRARY)
def _inference_fake(x: Tensor, *others: Any) -> Tensor:
    pooled: Tensor = _forward_fake(x, *others)[0]
    return pooled


@torch.library.register_fake("hstl_fast::astp_backward", lib=LIBRARY)
def _backward_fake(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    proj: Tensor | None,
    p: Tensor,
    x_shape: list[int],
    dtype: torch.dtype,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    gproj = p.new_empty(0) if proj is None else torch.empty_like(proj, memory_format=torch.contiguous_format)
    return _map_of(grad, x_shape, dtype), gproj, torch.empty_like(p, memory_format=torch.contiguous_format)


def _map_of(like: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last_3d)


def _shape_unless_compiled(x: Tensor) -> list[int]:
    """Return the map's shape for backward; empty under a compiler, which cannot pass sizes to it."""
    return [] if torch.compiler.is_compiling() else list(x.shape)


def _map_to_save(x: Tensor, shape: list[int]) -> tuple[Tensor, ...]:
    """Return the map, to be saved for its shape, if the shape itself is not passed to backward."""
    return () if shape else (x,)


@notices_inspection
class _FrameMaximum(NativeFunction):
    """Saves the two-byte frame index; the caller may change the map afterwards."""

    saves_result = False
    saves_map = False

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        support: Tensor | None,
        x_shape: list[int],
        dtype: torch.dtype,
        seq_lens: list[int],
        backend: str,
    ) -> Tensor:
        maximum: Tensor
        maximum, index = torch.ops.hstl_fast.frame_maximum(x, support, seq_lens, backend)
        ctx.save_for_backward(index, support, *_map_to_save(x, x_shape))
        ctx.arguments = (x_shape, dtype, seq_lens, backend)
        return maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, _, *x = ctx.saved_tensors
        shape, *arguments = ctx.arguments
        gx: Tensor = torch.ops.hstl_fast.frame_maximum_backward(grad, index, shape or list(x[0].shape), *arguments)
        return pad_with_none(ctx, gx)


def frame_maximum(x: Tensor, support: Support, lens: list[int], backend: str) -> Tensor:
    """Take the maximum over the frames of each sequence.

    A map that is pooled twice is read once, and has one gradient: pools of its maximum are pools of the map.

    Args:
        x: Feature map `[n, c, t, h, w]`.
        support: The supports; that of the input counts.
        lens: Lengths of packed sequences, else empty.
        backend: A backend that is not the reference.

    Returns:
        Maxima `[n, c, 1, h, w]`.
    """
    return apply(_FrameMaximum, x, support.x, _shape_unless_compiled(x), x.dtype, lens, backend)


@notices_inspection
class _WithFrameMaximum(OwningFunction):
    """Adds the maximum's gradient to the one that the map gets from elsewhere.

    Autograd would write a second map, zero but for one frame of each sequence, and add the two.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, support: Tensor | None, seq_lens: list[int], owns_gradient: bool, backend: str
    ) -> tuple[Tensor, Tensor]:
        maximum, index = torch.ops.hstl_fast.frame_maximum(x, support, seq_lens, backend)
        ctx.save_for_backward(index)
        ctx.arguments, ctx.map = (seq_lens, backend), (list(x.shape), x.dtype)
        ctx.owns_gradient = owns_gradient and _WithFrameMaximum.NOTICES_INSPECTION
        ctx.set_materialize_grads(False)
        return x, maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gx: Tensor | None, gmaximum: Tensor | None) -> tuple[Tensor | None, ...]:
        nothing = (None, None, None, None)
        if gmaximum is None:
            return gx, *nothing
        (index,) = ctx.saved_tensors
        if gx is not None and may_overwrite(ctx, gx):
            torch.ops.hstl_fast.frame_maximum_backward_add(gx, gmaximum, index, *ctx.arguments)
            return gx, *nothing
        of_maximum: Tensor = torch.ops.hstl_fast.frame_maximum_backward(gmaximum, index, *ctx.map, *ctx.arguments)
        return of_maximum if gx is None else gx + of_maximum, *nothing


def with_frame_maximum(x: Tensor, support: Support, lens: list[int], backend: str) -> tuple[Tensor, Tensor]:
    """Take the maximum over the frames of a map that another layer reads as well.

    It is not for torch.func, torch.compile or tracing.

    Args:
        x: Feature map `[n, c, t, h, w]`.
        support: The supports; that of the input counts.
        lens: Lengths of packed sequences, else empty.
        backend: A backend that is not the reference.

    Returns:
        `x` for the other layer, whose gradient the maximum's is added to, and the maxima `[n, c, 1, h, w]`.
    """
    dense_x = x.contiguous(memory_format=torch.channels_last_3d)
    through, maximum = _WithFrameMaximum.apply(dense_x, support.x, lens, support.owns_gradient, backend)
    return through, maximum


@notices_inspection
class _Astp(NativeFunction):
    """Saves the frame maximum and its two-byte frame index; the projection is computed again in backward.

    The result is a copy of what is saved, so that the caller may change it in place, and the map as well.
    """

    saves_result = False
    saves_map = False

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        proj: Tensor | None,
        p: Tensor,
        support: Tensor | None,
        x_shape: list[int],
        dtype: torch.dtype,
        split: list[int],
        seq_lens: list[int],
        backend: str,
    ) -> Tensor:
        made = torch.ops.hstl_fast.astp_forward(x, proj, p, support, split, seq_lens, backend)
        ctx.save_for_backward(*made, proj, p, support, *_map_to_save(x, x_shape))
        ctx.arguments = (x_shape, dtype, split, seq_lens, backend)
        pooled: Tensor = made[0]
        return pooled.transpose(1, 2).clone(memory_format=torch.contiguous_format)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        pooled, maximum, index, by_power, proj, p, _, *x = ctx.saved_tensors
        shape, *arguments = ctx.arguments
        inputs = (pooled, maximum, index, by_power, proj, p, shape or list(x[0].shape))
        gx, gproj, gp = torch.ops.hstl_fast.astp_backward(grad.transpose(1, 2), *inputs, *arguments)
        return pad_with_none(ctx, gx, None if gproj.numel() == 0 else gproj, gp)


def astp(
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: Sequence[int],
    *,
    seq_lens: _checks.Lengths | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
) -> Tensor:
    """Adaptive spatio-temporal pooling: frame maximum, 1x1 projection, generalised mean of every region.

    Equivalent to::

        u = x.amax(dim=2)                                       # the first maximum takes the gradient
        u = torch.einsum("oc,nchw->nohw", proj, u)              # left out if proj is None
        regions = [r.flatten(2).clamp(min=1e-6) for r in u.split(split, dim=2)]
        pooled = torch.stack([(r**q).mean(2) ** (1 / q) for r, q in zip(regions, p)], dim=2)

    computed relative to each region's maximum, so that nothing underflows.

    Args:
        x: feature map `[n, c_in, t, h, w]`, float16, bfloat16, float32 or float64, any strides.
        proj: `[c_out, c_in]` or None for no projection (c_out = c_in); x's type, or float32 beside a narrower x.
        p: `[m]`, exponent of each region, finite and not 0; x's type, or float32 beside a narrower x.
        split: rows of each of the m regions; they sum to h.
        seq_lens: lengths of the sequences packed along t (then n = 1); each is pooled by itself.
        backend: as for :func:`arme`.
        support: None, or bool `[n, t, h, w]`, True where x may be non-zero; outside, x counts as 0, whatever stands
            there (a copy of x is made).

    Returns:
        `[n, c_out, m]` (n = len(seq_lens) if packed), float32, or float64 for float64.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it, what was expected and what was given.
        RuntimeError: the backend asked for cannot run, and why.

    Source: HSTL (ICCV 2023), ASTP; generalised mean after Radenovic et al. 2018.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.rows(split, x.shape[3])
    if proj is not None:
        _checks.parameter(proj, "proj", ("c_out", x.shape[1]), x)
    _checks.powers(p, (len(rows),), x)
    _checks.support(of_input(support), x)
    return _pooled("astp", x, proj, p, rows, lens, backend, support)


def strip_pool(
    x: Tensor,
    p: Tensor,
    bins: int,
    *,
    seq_lens: _checks.Lengths | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
) -> Tensor:
    """Frame maximum, then the generalised mean of `bins` equal strips of rows, with one exponent for all.

    Equivalent to ``astp(x, None, p.expand(bins), [h // bins] * bins)``.

    Args:
        x: feature map `[n, c, t, h, w]`, float16, bfloat16, float32 or float64, any strides.
        p: `[1]`, the exponent, finite and not 0; x's type, or float32 beside a narrower x.
        bins: number of strips; it divides h.
        seq_lens: as for :func:`astp`.
        backend: as for :func:`arme`.
        support: as for :func:`astp`.

    Returns:
        `[n, c, bins]` (n = len(seq_lens) if packed), float32, or float64 for float64.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it, what was expected and what was given.
        RuntimeError: the backend asked for cannot run, and why.

    Source: HSTL (ICCV 2023), the last level; horizontal pooling with a generalised mean.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.bins(bins, x.shape[3])
    _checks.powers(p, (1,), x)
    _checks.support(of_input(support), x)
    return _pooled("strip_pool", x, None, p.expand(len(rows)), rows, lens, backend, support)


def _pooled(
    called: str,
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    rows: list[int],
    lens: list[int],
    backend: str | None,
    support: Tensor | Support | None,
) -> Tensor:
    longest = 0 if torch.compiler.is_compiling() else max(frames_of(x, lens))
    widths = _dispatch.widths_of(x.shape[1], *(() if proj is None else proj.shape[:1]))
    chosen = _dispatch.choose("astp", x.device, x.dtype, backend, longest, called, widths)
    if chosen == "reference":
        with without_autocast(x):
            y = x.to(reference_dtype(x))
            return reference.astp(y, proj, p, rows, seq_lens=lens or None, support=of_input(support))
    if isinstance(support, Tensor):
        x, support = masked(x, support), Support(support.contiguous())
    if not is_followed() and backends.pools_for_inference(chosen):
        pooled: Tensor = torch.ops.hstl_fast.astp_inference(x, proj, p, of_input(support), rows, lens, chosen)
        return pooled.transpose(1, 2).contiguous()
    return apply(_Astp, x, proj, p, of_input(support), _shape_unless_compiled(x), x.dtype, rows, lens, chosen)
