"""ASTP and strip pooling: frame maximum, 1x1 projection and the generalised mean of every region."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.ops import _alone, _checks, _dispatch, _native
from hstl_fast.ops._apply import NativeFunction, apply
from hstl_fast.ops._memory import map_memory, memory
from hstl_fast.ops._shared import (
    LIBRARY,
    channels_last,
    computing_dtype,
    define,
    dense,
    empty_map,
    first_derivative_only,
    frames_of,
    implements,
    is_native_map,
    reference_dtype,
    under_autocast,
    without_autocast,
)
from hstl_fast.ops._support import Support, masked, of_input

define(
    "astp_forward(Tensor x, Tensor? proj, Tensor p, Tensor? support, int[] split, SymInt[] seq_lens, str backend)"
    " -> (Tensor pooled, Tensor maximum, Tensor index, Tensor by_power)"
)
define(
    "astp_backward(Tensor grad, Tensor pooled, Tensor maximum, Tensor index, Tensor by_power, Tensor x, Tensor? proj,"
    " Tensor p, int[] split, SymInt[] seq_lens, str backend) -> (Tensor gx, Tensor gproj, Tensor gp)"
)
define("frame_maximum(Tensor x, Tensor? support, SymInt[] seq_lens, str backend) -> (Tensor maximum, Tensor index)")
define("frame_maximum_backward(Tensor grad, Tensor index, Tensor x, SymInt[] seq_lens, str backend) -> Tensor")
define("frame_maximum_backward_add(Tensor(a!) gx, Tensor grad, Tensor index, SymInt[] seq_lens, str backend) -> ()")


@torch.library.register_fake("hstl_fast::frame_maximum", lib=LIBRARY)
def _maximum_fake(x: Tensor, support: Tensor | None, seq_lens: list[int], backend: str) -> tuple[Tensor, Tensor]:
    n, c, _, h, w = x.shape
    maximum = empty_map(x, len(seq_lens) or n, c, 1, h, w)
    return maximum, x.new_empty((len(seq_lens) or n, h, w, c), dtype=torch.int16)


@torch.library.register_fake("hstl_fast::frame_maximum_backward", lib=LIBRARY)
def _maximum_backward_fake(grad: Tensor, index: Tensor, x: Tensor, seq_lens: list[int], backend: str) -> Tensor:
    return empty_map(x, *x.shape)


@torch.library.register_fake("hstl_fast::frame_maximum_backward_add", lib=LIBRARY)
def _maximum_backward_add_fake(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int], backend: str) -> None:
    pass


@implements("frame_maximum", "cpu")
def _maximum_cpu(x: Tensor, support: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    x_ = dense(x, computing_dtype(x.dtype))
    lens = _indexable(frames_of(x, seq_lens), "cpu")
    _, c, _, h, w = x.shape
    maximum = empty_map(x_, len(lens), c, 1, h, w)
    index = torch.empty((len(lens), h, w, c), dtype=torch.int16)
    _find_maximum(maximum, index, x_, support, lens)
    return maximum.to(x.dtype), index


def _find_maximum(maximum: Tensor, index: Tensor, x: Tensor, support: Tensor | None, lens: list[int]) -> None:
    """Fill `maximum` with the maxima over the frames of each sequence, and `index` with the frames they are in."""
    addresses = (maximum.data_ptr(), index.data_ptr(), x.data_ptr())
    sizes = (*x.shape[3:], x.shape[1], x.dtype.itemsize, torch.get_num_threads())
    _native.require_cpu().frame_maximum(*addresses, lens, *sizes, 0 if support is None else support.data_ptr())


@implements("frame_maximum_backward", "cpu")
def _maximum_backward_cpu(grad: Tensor, index: Tensor, x: Tensor, seq_lens: list[int]) -> Tensor:
    g = dense(grad, computing_dtype(x.dtype))
    _, c, _, h, w = x.shape
    gx = map_memory(g, *x.shape)
    sizes = (frames_of(x, seq_lens), h, w, c, g.dtype.itemsize, torch.get_num_threads())
    _native.require_cpu().frame_maximum_backward(gx.data_ptr(), g.data_ptr(), index.data_ptr(), *sizes)
    return gx.to(x.dtype)


@implements("frame_maximum_backward_add", "cpu")
def _maximum_backward_add_cpu(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    if not is_native_map(gx):
        raise ValueError(f"gx must be a dense float32 or float64 map, channels last, got {gx.dtype} {gx.stride()}")
    g = dense(grad, gx.dtype)
    _, c, _, h, w = gx.shape
    sizes = (frames_of(gx, seq_lens), h, w, c, g.dtype.itemsize, torch.get_num_threads())
    _native.require_cpu().frame_maximum_backward_add(gx.data_ptr(), g.data_ptr(), index.data_ptr(), *sizes)


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
    maximum = x.new_empty((n, h, w, c_in), dtype=dtype if backend == "cpu" else x.dtype)
    by_power = pooled.new_empty(0) if backend == "cpu" else torch.empty_like(pooled)
    return pooled.transpose(1, 2), maximum, torch.empty_like(maximum, dtype=torch.int16), by_power


@torch.library.register_fake("hstl_fast::astp_backward", lib=LIBRARY)
def _backward_fake(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: list[int],
    seq_lens: list[int],
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c_in, t, h, w = x.shape
    gproj = p.new_empty(0) if proj is None else torch.empty_like(proj, memory_format=torch.contiguous_format)
    return empty_map(x, n, c_in, t, h, w), gproj, torch.empty_like(p, memory_format=torch.contiguous_format)


@implements("astp_forward", "cpu")
def _forward_cpu(
    x: Tensor, proj: Tensor | None, p: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    native, threads = _native.require_cpu(), torch.get_num_threads()
    dtype = computing_dtype(x.dtype)
    x_, p_, proj_ = dense(x, dtype), p.to(dtype).contiguous(), None if proj is None else proj.to(dtype).contiguous()
    lens = _indexable(frames_of(x, seq_lens), "cpu")
    _, c_in, _, h, w = x.shape
    c_out = c_in if proj_ is None else proj_.shape[0]
    maximum = torch.empty((len(lens), h, w, c_in), dtype=dtype)
    index = torch.empty(maximum.shape, dtype=torch.int16)
    _find_maximum(maximum, index, x_, support, lens)
    pooled = torch.empty((len(lens), len(split), c_out), dtype=dtype)
    sizes = (len(lens), split, w, c_in, c_out, dtype.itemsize, threads)
    workspace = memory(native.astp_workspace(*sizes))
    native.astp_forward(
        pooled.data_ptr(),
        maximum.data_ptr(),
        0 if proj_ is None else proj_.data_ptr(),
        p_.data_ptr(),
        workspace.data_ptr(),
        *sizes,
    )
    return pooled.transpose(1, 2), maximum, index, pooled.new_empty(0)


@implements("astp_backward", "cpu")
def _backward_cpu(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    native, threads = _native.require_cpu(), torch.get_num_threads()
    dtype = pooled.dtype
    g = grad.to(dtype).transpose(1, 2).contiguous()
    pooled_, p_ = pooled.transpose(1, 2).contiguous(), p.to(dtype).contiguous()
    proj_ = None if proj is None else proj.to(dtype).contiguous()
    lens = frames_of(x, seq_lens)
    n, c_in, t, h, w = x.shape
    gmaximum = torch.empty_like(maximum)
    gproj = torch.empty(0, dtype=dtype) if proj_ is None else torch.empty_like(proj_)
    gp = torch.empty_like(p_)
    sizes = (len(lens), split, w, c_in, g.shape[2], dtype.itemsize, threads)
    workspace = memory(native.astp_workspace(*sizes))
    native.astp_backward(
        gmaximum.data_ptr(),
        0 if proj_ is None else gproj.data_ptr(),
        gp.data_ptr(),
        g.data_ptr(),
        pooled_.data_ptr(),
        maximum.data_ptr(),
        0 if proj_ is None else proj_.data_ptr(),
        p_.data_ptr(),
        workspace.data_ptr(),
        *sizes,
    )
    gx = map_memory(gmaximum, n, c_in, t, h, w)
    native.frame_maximum_backward(
        gx.data_ptr(), gmaximum.data_ptr(), index.data_ptr(), lens, h, w, c_in, dtype.itemsize, threads
    )
    return gx.to(x.dtype), gproj.to(p.dtype if proj is None else proj.dtype), gp.to(p.dtype)


@implements("frame_maximum", "triton")
def _maximum_triton(x: Tensor, support: Tensor | None, seq_lens: list[int]) -> tuple[Tensor, Tensor]:
    from hstl_fast.triton_kernels import astp as kernels

    return kernels.frame_maximum(channels_last(x), support, _indexable(frames_of(x, seq_lens), "triton"))


@implements("frame_maximum_backward", "triton")
def _maximum_backward_triton(grad: Tensor, index: Tensor, x: Tensor, seq_lens: list[int]) -> Tensor:
    from hstl_fast.triton_kernels import astp as kernels

    return kernels.frame_maximum_backward(channels_last(grad), index, x, frames_of(x, seq_lens))


@implements("frame_maximum_backward_add", "triton")
def _maximum_backward_add_triton(gx: Tensor, grad: Tensor, index: Tensor, seq_lens: list[int]) -> None:
    from hstl_fast.triton_kernels import astp as kernels

    kernels.frame_maximum_backward_add(gx, channels_last(grad), index, frames_of(gx, seq_lens))


@implements("astp_forward", "triton")
def _forward_triton(
    x: Tensor, proj: Tensor | None, p: Tensor, support: Tensor | None, split: list[int], seq_lens: list[int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from hstl_fast.triton_kernels import astp as kernels

    maximum, index = _maximum_triton(x, support, seq_lens)
    maximum = maximum[:, :, 0].permute(0, 2, 3, 1)  # n h w c, as it is in memory
    matrix = None if proj is None else _float32(proj)
    pooled, by_power = kernels.forward(maximum, matrix, _float32(p), split)
    return pooled.transpose(1, 2), maximum, index, by_power


@implements("astp_backward", "triton")
def _backward_triton(
    grad: Tensor,
    pooled: Tensor,
    maximum: Tensor,
    index: Tensor,
    by_power: Tensor,
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: list[int],
    seq_lens: list[int],
) -> tuple[Tensor, Tensor, Tensor]:
    from hstl_fast.triton_kernels import astp as kernels

    g, matrix = grad.transpose(1, 2).contiguous(), None if proj is None else _float32(proj)
    gu = kernels.backward(g, pooled.transpose(1, 2).contiguous(), maximum, matrix, _float32(p), split)
    gp = (g * by_power).sum((0, 2)).to(p.dtype)
    if proj is None or matrix is None:
        gmaximum, gproj = gu, p.new_empty(0)
    else:
        with without_autocast(x):
            gmaximum = gu @ matrix
            gproj = (gu.flatten(0, 2).T @ maximum.flatten(0, 2).float()).to(proj.dtype)
    gx = kernels.frame_maximum_backward(gmaximum, index, x, frames_of(x, seq_lens))
    return gx, gproj, gp


def _float32(parameter: Tensor) -> Tensor:
    return parameter.float().contiguous()


def _indexable(lens: list[int], backend: str) -> list[int]:
    """`lens`, looked at once more: a compiled caller may bring other lengths than the backend was chosen for."""
    reason = _dispatch.why_too_long(backend, max(lens))
    if reason is not None:
        raise ValueError(reason)
    return lens


class _FrameMaximum(NativeFunction):
    """Saves the two-byte frame index, and the input, for its sizes."""

    saves_result = False

    @staticmethod
    def forward(ctx: Any, x: Tensor, support: Tensor | None, seq_lens: list[int], backend: str) -> Tensor:
        maximum: Tensor
        maximum, index = torch.ops.hstl_fast.frame_maximum(x, support, seq_lens, backend)
        ctx.save_for_backward(index, x, support)
        ctx.arguments = (seq_lens, backend)
        return maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, x, _ = ctx.saved_tensors
        return torch.ops.hstl_fast.frame_maximum_backward(grad, index, x, *ctx.arguments), None, None, None


def frame_maximum(x: Tensor, support: Support, lens: list[int], backend: str) -> Tensor:
    """Maximum over the frames of each sequence, `[n, c, 1, h, w]`, by a backend that is not the reference.

    A map that is pooled twice is read once, and has one gradient: pools of its maximum are pools of the map.
    """
    return apply(_FrameMaximum, x, support.x, lens, backend)


class _WithFrameMaximum(torch.autograd.Function):
    """Adds the maximum's gradient to the one that the map gets from elsewhere, where autograd would write a second map,
    zero but for one frame, and add the two."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, support: Tensor | None, seq_lens: list[int], backend: str
    ) -> tuple[Tensor, Tensor]:
        maximum, index = torch.ops.hstl_fast.frame_maximum(x, support, seq_lens, backend)
        ctx.save_for_backward(index, x)
        ctx.arguments = (seq_lens, backend)
        ctx.set_materialize_grads(False)
        _alone.references_of_engine()
        return x, maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gx: Tensor | None, gmaximum: Tensor | None) -> tuple[Tensor | None, ...]:
        if gmaximum is None:
            return gx, None, None, None
        index, x = ctx.saved_tensors
        if gx is not None and _alone.is_ordinary(gx) and _alone.are_of_engine(_alone.references(gx)):
            torch.ops.hstl_fast.frame_maximum_backward_add(gx, gmaximum, index, *ctx.arguments)
            return gx, None, None, None
        of_maximum: Tensor = torch.ops.hstl_fast.frame_maximum_backward(gmaximum, index, x, *ctx.arguments)
        return of_maximum if gx is None else gx + of_maximum, None, None, None


def with_frame_maximum(x: Tensor, support: Support, lens: list[int], backend: str) -> tuple[Tensor, Tensor]:
    """`x` for its next reader, and :func:`frame_maximum` of it; not for torch.func, torch.compile or tracing."""
    dense_x = x.contiguous(memory_format=torch.channels_last_3d)
    through, maximum = _WithFrameMaximum.apply(dense_x, support.x, lens, backend)
    return through, maximum


class _Astp(NativeFunction):
    """Saves the frame maximum and its two-byte frame index; the projection is computed again in backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        proj: Tensor | None,
        p: Tensor,
        support: Tensor | None,
        *arguments: Any,
    ) -> Tensor:
        pooled: Tensor
        pooled, *made = torch.ops.hstl_fast.astp_forward(x, proj, p, support, *arguments)
        ctx.save_for_backward(pooled, *made, x, proj, p, support)
        ctx.arguments = arguments
        return pooled

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, _ = ctx.saved_tensors
        gx, gproj, gp = torch.ops.hstl_fast.astp_backward(grad, *inputs, *ctx.arguments)
        return gx, None if gproj.numel() == 0 else gproj, gp, None, None, None, None


def astp(
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    split: Sequence[int],
    *,
    seq_lens: Sequence[int] | Tensor | None = None,
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

    :param x: feature map [n, c_in, t, h, w], float16, bfloat16, float32 or float64, any strides
    :param proj: [c_out, c_in] or None for no projection (c_out = c_in); x's type, or float32 beside a narrower x
    :param p: [m], exponent of each region, positive; x's type, or float32 beside a narrower x
    :param split: rows of each of the m regions; they sum to h
    :param seq_lens: lengths of the sequences packed along t (then n = 1); each is pooled by itself
    :param backend: as for :func:`arme`
    :param support: None, or bool [n, t, h, w], True where x may be non-zero; outside, x counts as 0, whatever stands
        there (a copy of x is made)
    :returns: [n, c_out, m] (n = len(seq_lens) if packed), float32, or float64 for float64
    :raises ValueError, TypeError: an argument does not fit, by name
    :raises RuntimeError: the backend asked for cannot run, and why

    Source: HSTL (ICCV 2023), ASTP; generalised mean after Radenovic et al. 2018.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.rows(split, x.shape[3])
    if proj is not None:
        _checks.parameter(proj, "proj", ("c_out", x.shape[1]), x)
    _checks.parameter(p, "p", (len(rows),), x)
    _checks.support(of_input(support), x)
    return _astp(x, proj, p, rows, lens, backend, support)


def strip_pool(
    x: Tensor,
    p: Tensor,
    bins: int,
    *,
    seq_lens: Sequence[int] | Tensor | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
) -> Tensor:
    """Frame maximum, then the generalised mean of `bins` equal strips of rows, with one exponent for all.

    Equivalent to ``astp(x, None, p.expand(bins), [h // bins] * bins)``.

    :param x: feature map [n, c, t, h, w], float16, bfloat16, float32 or float64, any strides
    :param p: [1], the exponent; x's type, or float32 beside a narrower x
    :param bins: number of strips; it divides h
    :param seq_lens, backend, support: as for :func:`astp`
    :returns: [n, c, bins] (n = len(seq_lens) if packed), float32, or float64 for float64
    :raises ValueError, TypeError: an argument does not fit, by name
    :raises RuntimeError: the backend asked for cannot run, and why

    Source: HSTL (ICCV 2023), the last level; horizontal pooling with a generalised mean.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.bins(bins, x.shape[3])
    _checks.parameter(p, "p", (1,), x)
    _checks.support(of_input(support), x)
    return _astp(x, None, p.expand(len(rows)), rows, lens, backend, support)


def _astp(
    x: Tensor,
    proj: Tensor | None,
    p: Tensor,
    rows: list[int],
    lens: list[int],
    backend: str | None,
    support: Tensor | Support | None,
) -> Tensor:
    longest = 0 if torch.compiler.is_compiling() else max(frames_of(x, lens))
    chosen = _dispatch.choose("astp", x.device.type, x.dtype, backend, longest)
    if chosen == "reference":
        with without_autocast(x):
            y = x.to(reference_dtype(x))
            return reference.astp(y, proj, p, rows, seq_lens=lens or None, support=of_input(support))
    if isinstance(support, Tensor):
        x, support = masked(x, support), Support(support.contiguous())
    return apply(_Astp, x, proj, p, of_input(support), rows, lens, chosen)
