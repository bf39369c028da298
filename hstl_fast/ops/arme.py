"""ARME, the region-wise 3D convolution with LeakyReLU: forward, both gradients, and the public function."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.ops import _algorithm, _alone, _checks, _dispatch, _native
from hstl_fast.ops._apply import NativeFunction, apply
from hstl_fast.ops._memory import map_memory, memory
from hstl_fast.ops._packed import packed_weights
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
from hstl_fast.ops._support import Support, grown, masked, of_input

_LAYER = "Tensor? x_support, Tensor? y_support, int[] split, SymInt[] seq_lens, float negative_slope, int algorithm"
"""What every private operator takes: supports bool [n, t, h, w] of input and output; `_algorithm` names algorithms."""

define(f"arme_forward(Tensor x, Tensor weights, {_LAYER}, bool keep, str backend) -> Tensor")
define(f"arme_backward_data(Tensor grad, Tensor? y, Tensor weights, {_LAYER}, str backend) -> Tensor")
define(f"arme_backward_weight(Tensor grad, Tensor? y, Tensor x, Tensor weights, {_LAYER}, str backend) -> Tensor")
define("leaky_backward_(Tensor(a!) grad, Tensor y, Tensor? support, float negative_slope, str backend) -> ()")


class _Layer(NamedTuple):
    """The end of every private operator's arguments, but for the backend."""

    x_support: Tensor | None
    y_support: Tensor | None
    split: list[int]
    seq_lens: list[int]
    negative_slope: float
    algorithm: int


@torch.library.register_fake("hstl_fast::arme_forward", lib=LIBRARY)
def _forward_fake(x: Tensor, weights: Tensor, *layer: Any) -> Tensor:
    n, _, t, h, w = x.shape
    return empty_map(weights if x.dtype == torch.uint8 else x, n, weights.shape[1], t, h, w)


@torch.library.register_fake("hstl_fast::arme_backward_data", lib=LIBRARY)
def _backward_data_fake(grad: Tensor, y: Tensor | None, weights: Tensor, *layer: Any) -> Tensor:
    n, _, t, h, w = grad.shape
    return empty_map(grad, n, weights.shape[2], t, h, w)


@torch.library.register_fake("hstl_fast::arme_backward_weight", lib=LIBRARY)
def _backward_weight_fake(grad: Tensor, y: Tensor | None, x: Tensor, weights: Tensor, *layer: Any) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


@implements("arme_forward", "cpu")
def _forward_cpu(x: Tensor, weights: Tensor, *arguments: Any) -> Tensor:
    layer, keep = _Layer(*arguments[:-1]), arguments[-1]
    x_ = dense(x, computing_dtype(x.dtype))
    call = _Call(x_, weights, layer, _algorithm.TILES if keep else _algorithm.TRAINING_TILES)
    n, _, t, h, w = x.shape
    y = map_memory(x_, n, weights.shape[1], t, h, w)
    packed = packed_weights(weights, x_.dtype, layer.split, call.algorithm, keep=keep)
    call.native("arme_forward", y, x_, packed)
    return y.to(x.dtype)


@implements("arme_backward_data", "cpu")
def _backward_data_cpu(grad: Tensor, y: Tensor | None, weights: Tensor, *arguments: Any) -> Tensor:
    layer, dtype = _Layer(*arguments), computing_dtype(grad.dtype)
    g, y_ = dense(grad, dtype), _signs(y, dtype, layer)
    call = _Call(g, weights, layer)
    n, _, t, h, w = grad.shape
    gx = map_memory(g, n, weights.shape[2], t, h, w)
    packed = packed_weights(weights, dtype, layer.split, call.algorithm, transposed=True, keep=False)
    call.native("arme_backward_data", gx, g, y_, packed)
    return gx.to(grad.dtype)


@implements("arme_backward_weight", "cpu")
def _backward_weight_cpu(grad: Tensor, y: Tensor | None, x: Tensor, weights: Tensor, *arguments: Any) -> Tensor:
    layer, dtype = _Layer(*arguments), computing_dtype(grad.dtype)
    g, y_, x_ = dense(grad, dtype), _signs(y, dtype, layer), dense(x, dtype)
    gw = torch.empty(weights.shape, dtype=dtype)
    _Call(x_, weights, layer).native("arme_backward_weight", gw, x_, g, y_)
    return gw.to(weights.dtype)


@torch.library.register_fake("hstl_fast::leaky_backward_", lib=LIBRARY)
def _leaky_backward_fake(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float, backend: str) -> None:
    pass


@implements("leaky_backward_", "cpu")
def _leaky_backward_cpu(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float) -> None:
    if not is_native_map(grad):
        raise ValueError(
            f"grad must be a dense float32 or float64 map, channels last, got {grad.dtype} {grad.stride()}"
        )
    y_ = dense(y, grad.dtype)
    within = None if support is None else support.contiguous()
    n, c, t, h, w = grad.shape
    addresses = (grad.data_ptr(), y_.data_ptr(), 0 if within is None else within.data_ptr())
    sizes = ([t] * n, [h], w, c)
    _native.require_cpu().leaky_backward(
        *addresses, *sizes, negative_slope, grad.dtype.itemsize, torch.get_num_threads()
    )


@implements("arme_forward", "triton")
def _forward_triton(x: Tensor, weights: Tensor, *arguments: Any) -> Tensor:
    from hstl_fast.triton_kernels import arme as kernels

    layer = _Layer(*arguments[:-1])
    w = weights if x.dtype == torch.uint8 else weights.to(x.dtype)
    return kernels.forward(channels_last(x), w, layer.y_support, layer.split, layer.seq_lens, layer.negative_slope)


@implements("arme_backward_data", "triton")
def _backward_data_triton(grad: Tensor, y: Tensor | None, weights: Tensor, *arguments: Any) -> Tensor:
    from hstl_fast.triton_kernels import arme as kernels

    layer = _Layer(*arguments)
    g = channels_last(_before_leaky(grad, y, layer))
    return kernels.backward_data(g, weights.to(g.dtype), layer.x_support, layer.split, layer.seq_lens)


@implements("arme_backward_weight", "triton")
def _backward_weight_triton(grad: Tensor, y: Tensor | None, x: Tensor, weights: Tensor, *arguments: Any) -> Tensor:
    from hstl_fast.triton_kernels import arme as kernels

    layer = _Layer(*arguments)
    g = channels_last(_before_leaky(grad, y, layer))
    return kernels.backward_weight(g, channels_last(x), layer.y_support, layer.split, layer.seq_lens).to(weights.dtype)


@implements("leaky_backward_", "triton")
def _leaky_backward_triton(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float) -> None:
    from hstl_fast.triton_kernels import arme as kernels

    kernels.leaky_backward_(grad, channels_last(y), negative_slope)


def _before_leaky(grad: Tensor, y: Tensor | None, layer: _Layer) -> Tensor:
    """The gradient of the convolution, from that of its activation."""
    if y is None or layer.negative_slope == 1.0:
        return grad
    g = grad.clone(memory_format=torch.channels_last_3d)
    _leaky_backward_triton(g, y, None, layer.negative_slope)
    return g


def _signs(y: Tensor | None, dtype: torch.dtype, layer: _Layer) -> Tensor | None:
    """The output, whose signs tell LeakyReLU's slope; None without one."""
    return None if y is None or layer.negative_slope == 1.0 else dense(y, dtype)


class _Call:
    """What the three native functions take beside their maps and weights."""

    def __init__(self, like: Tensor, weights: Tensor, layer: _Layer, tiles: tuple[int, ...] = _algorithm.TILES) -> None:
        _, c_out, c_in = weights.shape[:3]
        self.layer = layer
        self.lens = frames_of(like, layer.seq_lens)
        self.algorithm = _algorithm.native_code(layer.algorithm, like.dtype, c_in, c_out, self.lens, tiles)
        self.sizes = (self.lens, layer.split, like.shape[4], c_in, c_out)
        self.last = (self.algorithm, like.dtype.itemsize, torch.get_num_threads())

    def native(self, name: str, *tensors: Tensor | None) -> None:
        """Call the native function `name` with the addresses of these tensors, then the workspace and the supports."""
        binary = _native.require_cpu()
        needed = binary.arme_weight_workspace if name == "arme_backward_weight" else binary.arme_workspace
        workspace = memory(needed(*self.sizes, *self.last))
        supports = [None if s is None else s.contiguous() for s in (self.layer.x_support, self.layer.y_support)]
        given = (*tensors, workspace, *supports)
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in given]
        getattr(binary, name)(*addresses, *self.sizes, self.layer.negative_slope, *self.last)


class _Arme(NativeFunction):
    """LeakyReLU keeps the sign, so its derivative is read off the output: x, weights and y are all that is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, *others: Any) -> Tensor:
        y: Tensor = torch.ops.hstl_fast.arme_forward(x, weights, *others)
        x_support, y_support, *arguments = others
        ctx.save_for_backward(y, x, weights, x_support, y_support)
        ctx.arguments = tuple(arguments)
        if not torch.compiler.is_compiling() and any(ctx.needs_input_grad):
            _alone.references_of_engine()
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, x, weights, *supports = ctx.saved_tensors
        *layer_arguments, _, backend = ctx.arguments
        layer = _Layer(*supports, *layer_arguments)
        gx = gw = None
        may_write = _alone.is_ordinary(grad) and _alone.are_of_engine(_alone.references(grad))
        if (_pays_in_place(ctx, layer) and may_write) or _needs_product(layer, backend):
            grad = grad if may_write else grad.clone(memory_format=torch.channels_last_3d)
            torch.ops.hstl_fast.leaky_backward_(grad, y, layer.y_support, layer.negative_slope, backend)
            layer, y = layer._replace(negative_slope=1.0), None
            _free_saved(ctx)
        if ctx.needs_input_grad[1]:  # first: its scratch is gone when the map of the other gradient comes
            gw = torch.ops.hstl_fast.arme_backward_weight(grad, y, x, weights, *layer, backend)
        if ctx.needs_input_grad[0]:
            gx = torch.ops.hstl_fast.arme_backward_data(grad, y, weights, *layer, backend)
        return gx, gw, *(None for _ in range(8))


def _pays_in_place(ctx: Any, layer: _Layer) -> bool:
    """Whether the gradient should go back through LeakyReLU before all else: the output, which tells the slope, can
    then go and make room for the input's gradient, and is read once where the two gradients would read it often.

    The weights' gradient alone needs no room and reads both maps once.
    """
    needs_x: bool = ctx.needs_input_grad[0]
    return needs_x and layer.negative_slope != 1.0


def _needs_product(layer: _Layer, backend: str) -> bool:
    """Whether the gradient has to go back through LeakyReLU by itself: the kernels multiply what they read as it is."""
    return backend == "triton" and layer.negative_slope != 1.0


def _free_saved(ctx: Any) -> None:
    """Let go of what was saved unless the graph is retained; older versions of torch do so after backward only."""
    free = getattr(ctx, "maybe_clear_saved_tensors", None)
    if free is not None:
        free()


def arme(
    x: Tensor,
    weights: Tensor | Sequence[Tensor],
    split: Sequence[int],
    *,
    negative_slope: float | None = 0.01,
    seq_lens: Sequence[int] | Tensor | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
    algorithm: str | None = None,
) -> Tensor:
    """Adaptive region-based motion extractor: every region of rows has its own 3x3x3 convolution.

    Equivalent to::

        parts = [F.conv3d(region, w, padding=1) for region, w in zip(x.split(split, dim=3), weights)]
        y = F.leaky_relu(torch.cat(parts, dim=3), negative_slope)

    :param x: feature map [n, c_in, t, h, w], float16, bfloat16, float32 or float64, any strides
    :param weights: [m, c_out, c_in, 3, 3, 3] or a list of m tensors [c_out, c_in, 3, 3, 3]; x's type, or float32
        beside a narrower x
    :param split: rows of each of the m regions; they sum to h
    :param negative_slope: slope of LeakyReLU, at least 0; None for no activation
    :param seq_lens: lengths of the sequences packed along t (then n = 1); neighbours in time stop at their ends.
        A list or a 1-D integer tensor on the CPU
    :param backend: "auto", "reference", "cpu", "triton" or "cuda"; None asks `use_backend` and HSTL_FAST_BACKEND
    :param support: None, or bool [n, t, h, w], True where x may be non-zero; outside, x counts as 0, whatever stands
        there, NaN and infinity included. The result is exactly 0 outside the support grown by one position in t, h
        and w, and so are gradients of x outside the support
    :param algorithm: "auto", "winograd" or "direct", of the native backend; None asks `use_algorithm` and
        HSTL_FAST_ALGORITHM. "winograd" multiplies 5 to 9 times less and rounds more (2e-6 of the largest output,
        typically); a NaN or infinity spreads over a tile of 4 x 4 positions and up to 5 frames, and one position
        more on every side. "direct" errs like torch. "auto" takes the faster one for the layer
    :returns: [n, c_out, t, h, w], x's type (autocast's under autocast), channels last. Computed in float32 at least
        on the CPU
    :raises ValueError, TypeError: an argument does not fit, by name
    :raises RuntimeError: the backend or algorithm asked for cannot run, and why

    Source: HSTL (ICCV 2023), ARME. Winograd: Lavin and Gray 2016, over time as well.
    """
    _checks.feature_map(x)
    x = under_autocast(x)
    lens = _checks.lengths(seq_lens, x)
    rows = _checks.rows(split, x.shape[3])
    w = _stacked(weights, rows, x)
    slope = _checks.slope(negative_slope)
    within = of_input(support)
    _checks.support(within, x)
    if isinstance(support, Support):
        _checks.support(support.y, x)
    chosen = _dispatch.choose("arme", x.device.type, x.dtype, backend)
    code = _algorithm.choose(algorithm, chosen, x.dtype)
    if chosen == "reference":
        dtype = reference_dtype(x)
        with without_autocast(x):
            y = reference.arme(
                x.to(dtype), w.to(dtype), rows, negative_slope=slope, seq_lens=lens or None, support=within
            )
            return channels_last(y.to(x.dtype))
    if isinstance(support, Tensor):
        support = grown(support, rows, lens, chosen)
        if chosen == "triton":  # whose products read what stands outside, too
            x = masked(x, support.x)
    supports = (None, None) if support is None else support
    return apply(_Arme, x, w, *supports, rows, lens, slope, code, w is weights and _in_evaluation(w), chosen)


def arme_of_silhouettes(
    x: Tensor, weights: Tensor, split: list[int], negative_slope: float | None, lens: list[int], support: Support
) -> Tensor:
    """`arme` of silhouettes, uint8 [n, 1, t, h, w], 0..255 for 0..1, by the triton backend.

    Computed in the weights' type, or autocast's; the silhouettes get no gradient.
    """
    slope = _checks.slope(negative_slope)
    return apply(_Arme, x, under_autocast(weights), *support, split, lens, slope, _algorithm.AUTO, False, "triton")


def _in_evaluation(weights: Tensor) -> bool:
    """Whether the weights will probably be the same at the next call. What is traced is traced for evaluation."""
    return not (torch.is_grad_enabled() and weights.requires_grad) or torch._C._get_tracing_state() is not None


def _stacked(weights: Tensor | Sequence[Tensor], rows: list[int], x: Tensor) -> Tensor:
    m, c_in = len(rows), x.shape[1]
    if isinstance(weights, Tensor):
        _checks.parameter(weights, "weights", (m, "c_out", c_in, 3, 3, 3), x)
        return weights
    if not isinstance(weights, Sequence) or len(weights) != m:
        got = len(weights) if isinstance(weights, Sequence) else type(weights).__name__
        raise ValueError(f"weights must hold one tensor for each of the {m} regions of split, got {got}")
    for r, weight in enumerate(weights):
        _checks.parameter(weight, f"weights[{r}]", (weights[0].shape[0] if r else "c_out", c_in, 3, 3, 3), x)
    return torch.stack(list(weights))
