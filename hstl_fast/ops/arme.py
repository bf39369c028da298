"""ARME, the region-wise 3D convolution with LeakyReLU: schema, autograd and the public function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from hstl_fast import backends, reference
from hstl_fast._torch_private import is_batched, is_tracing, nodes_behind
from hstl_fast.backends.cpu.algorithm import AUTO
from hstl_fast.layout import channels_last, empty_map, reference_dtype
from hstl_fast.ops import _checks, _dispatch
from hstl_fast.ops._autograd import NativeFunction, apply, first_derivative_only, pad_with_none
from hstl_fast.ops._library import LIBRARY, define, under_autocast, without_autocast
from hstl_fast.ops._ownership import OwningFunction, may_overwrite, notices_inspection
from hstl_fast.ops._versions import VersionProbe
from hstl_fast.ops.support import Support, grown, masked, of_input

# Supports are bool [n, t, h, w]; the numbers of `algorithm` are those of backends/cpu/algorithm.py. `training` says
# that the rounding of the result decides where gradients go. `y` is the output, whose signs tell LeakyReLU's slope.
define(
    "arme_forward(Tensor x, Tensor weights, Tensor? x_support, Tensor? y_support, int[] split, SymInt[] seq_lens,"
    " float negative_slope, int algorithm, bool cache_weights, bool training, str backend) -> Tensor"
)
define(
    "arme_dgrad(Tensor grad, Tensor? y, Tensor weights, Tensor? x_support, Tensor? y_support, int[] split,"
    " SymInt[] seq_lens, float negative_slope, int algorithm, str backend) -> Tensor"
)
define(
    "arme_wgrad(Tensor grad, Tensor? y, Tensor x, Tensor weights, Tensor? x_support, Tensor? y_support, int[] split,"
    " SymInt[] seq_lens, float negative_slope, int algorithm, str backend) -> Tensor"
)
# dgrad of the convolution's sums; what is found is multiplied by LeakyReLU's derivative where the activation whose
# output `x` is has a slope other than 1. Before that the gradient of x's frame maximum is added.
define(
    "arme_dgrad_fused(Tensor grad, Tensor weights, Tensor x, Tensor? x_support, Tensor? maximum_grad,"
    " Tensor? maximum_index, int[] split, SymInt[] seq_lens, float x_slope, str backend) -> Tensor"
)
define("leaky_backward_(Tensor(a!) grad, Tensor y, Tensor? support, float negative_slope, str backend) -> ()")


@torch.library.register_fake("hstl_fast::arme_forward", lib=LIBRARY)
def _forward_fake(x: Tensor, weights: Tensor, *layer: Any) -> Tensor:
    n, _, t, h, w = x.shape
    return empty_map(weights if x.dtype == torch.uint8 else x, n, weights.shape[1], t, h, w)


@torch.library.register_fake("hstl_fast::arme_dgrad", lib=LIBRARY)
def _dgrad_fake(grad: Tensor, y: Tensor | None, weights: Tensor, *layer: Any) -> Tensor:
    n, _, t, h, w = grad.shape
    return empty_map(grad, n, weights.shape[2], t, h, w)


@torch.library.register_fake("hstl_fast::arme_dgrad_fused", lib=LIBRARY)
def _dgrad_fused_fake(grad: Tensor, weights: Tensor, x: Tensor, *layer: Any) -> Tensor:
    return empty_map(grad, *x.shape)


@torch.library.register_fake("hstl_fast::arme_wgrad", lib=LIBRARY)
def _wgrad_fake(grad: Tensor, y: Tensor | None, x: Tensor, weights: Tensor, *layer: Any) -> Tensor:
    return torch.empty_like(weights, memory_format=torch.contiguous_format)


@torch.library.register_fake("hstl_fast::leaky_backward_", lib=LIBRARY)
def _leaky_backward_fake(grad: Tensor, y: Tensor, support: Tensor | None, negative_slope: float, backend: str) -> None:
    pass


@notices_inspection
class _Arme(NativeFunction):
    """LeakyReLU keeps the sign, so its derivative is read off the output: x, weights, y and both supports are saved.

    `activation_is_applied` says that the gradient was multiplied by that derivative where it was found. The caller may
    change the output in place. Then it is computed again in the backward pass, so it is saved under a
    version counter of its own; a compiler, which has no counters, saves a copy. A network that keeps its maps to itself
    saves the output as it is.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        x_support: Tensor | None,
        y_support: Tensor | None,
        split: list[int],
        seq_lens: list[int],
        negative_slope: float,
        algorithm: int,
        cache_weights: bool,
        training: bool,
        keeps_output: bool,
        owns_gradient: bool,
        backend: str,
    ) -> Tensor:
        layer = (split, seq_lens, negative_slope, algorithm)
        y: Tensor = torch.ops.hstl_fast.arme_forward(
            x, weights, x_support, y_support, *layer, cache_weights, training, backend
        )
        ctx.owns_gradient = owns_gradient and _Arme.NOTICES_INSPECTION
        ctx.arguments = (*layer, cache_weights, training, keeps_output, owns_gradient, backend)
        ctx.probe = None
        ctx.activation_is_applied = False
        saved: Tensor | None = y
        if torch.compiler.is_compiling():
            saved = None if negative_slope == 1.0 else y if keeps_output else y.clone()
        # Under a transform, `ctx` is a _Context whose inputs need no gradient: the result itself is saved then.
        elif any(ctx.needs_input_grad):
            if negative_slope == 1.0:
                saved = None
            elif keeps_output or y.is_inference():
                saved = y.detach()  # and so no caller gets hold of this node by what it saved
            else:
                ctx.probe, saved = VersionProbe(y), y.data
        ctx.save_for_backward(saved, x, weights, x_support, y_support)
        return y

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, x, weights, *supports = ctx.saved_tensors
        split, seq_lens, slope, algorithm, cache_weights, training, *_, backend = ctx.arguments
        if ctx.activation_is_applied:
            ctx.activation_is_applied, slope, y = False, 1.0, None
        if slope != 1.0 and ctx.probe is not None and ctx.probe.is_changed():
            layer = (split, seq_lens, slope, algorithm, cache_weights, training)
            y = torch.ops.hstl_fast.arme_forward(x, weights, *supports, *layer, backend)
        needs_x, needs_weights = ctx.needs_input_grad[:2]
        # With the slope applied first, the output can go and make room for the gradient of x, and it is read once where
        # the two gradients would read it often. The gradient of the weights alone needs no room and reads it once.
        owned = may_overwrite(ctx, grad)
        # A batch of gradients goes on as it is: torch calls the private operators for one after another.
        is_apart = not backends.fuses_leaky_backward(backend) and not _is_batch(grad)
        if slope != 1.0 and ((needs_x and owned) or is_apart):
            grad = grad if owned else grad.clone(memory_format=torch.channels_last_3d)
            torch.ops.hstl_fast.leaky_backward_(grad, y, supports[1], slope, backend)
            slope, y = 1.0, None
            free_saved(ctx)
        layer = (*supports, split, seq_lens, slope, algorithm, backend)
        gx = gw = None
        if needs_weights:  # first: its workspace is gone when the map of the other gradient comes
            gw = torch.ops.hstl_fast.arme_wgrad(grad, y, x, weights, *layer)
        if needs_x and owned and backends.fuses_into_dgrad(backend):
            gx = _dgrad_fused(ctx, grad, weights, x, supports[0], None)
        elif needs_x:
            _leave_derivative(ctx)
            gx = torch.ops.hstl_fast.arme_dgrad(grad, y, weights, *layer)
        return pad_with_none(ctx, gx, gw)


def _is_batch(grad: Tensor) -> bool:
    return not torch.compiler.is_compiling() and is_batched(grad)


def _leave_derivative(ctx: Any) -> None:
    """Tell the node behind that its derivative is not applied here.

    In an earlier pass through a retained graph it may have been, though that pass did not come to the node behind: it
    raised, or wanted no gradient from there on.
    """
    if not torch.compiler.is_compiling() and isinstance(ctx, FunctionCtx):
        behind = nodes_behind(ctx)[0]  # x comes first
        if hasattr(behind, "activation_is_applied"):
            behind.activation_is_applied = False


def _dgrad_fused(
    ctx: Any,
    grad: Tensor,
    weights: Tensor,
    x: Tensor,
    x_support: Tensor | None,
    maximum: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The gradient of `x`, with the derivative of the activation before it if that is a node of our own.

    Args:
        ctx: The node of the convolution that read `x`; it owns the gradients of its maps.
        grad: The gradient of the convolution's sums.
        weights: The convolution's weights.
        x: The convolution's input.
        x_support: Its support.
        maximum: The gradient of x's frame maximum, and the maximum's frame index.
    """
    split, seq_lens, *_, backend = ctx.arguments
    behind, slope = nodes_behind(ctx)[0], 1.0  # x comes first
    # The node behind is asked to leave its derivative out. It owns its gradient, so no other code sees that.
    if hasattr(behind, "activation_is_applied") and behind.owns_gradient and behind.probe is None:
        slope = behind.arguments[2]
        behind.activation_is_applied = True
    fused: Tensor = torch.ops.hstl_fast.arme_dgrad_fused(
        grad, weights, x, x_support, *(maximum or (None, None)), split, seq_lens, slope, backend
    )
    return fused


@notices_inspection
class _ArmeWithMaximum(OwningFunction):
    """A convolution and the frame maximum of its input, whose two gradients one kernel adds.

    Autograd hands both gradients to one node, so that the map's gradient is written once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weights: Tensor,
        x_support: Tensor,
        y_support: Tensor,
        split: list[int],
        seq_lens: list[int],
        negative_slope: float,
        backend: str,
    ) -> tuple[Tensor, Tensor]:
        layer = (split, seq_lens, negative_slope, AUTO, False, True)
        y = torch.ops.hstl_fast.arme_forward(x, weights, x_support, y_support, *layer, backend)
        maximum, index = torch.ops.hstl_fast.frame_maximum(x, x_support, seq_lens, backend)
        ctx.owns_gradient = _ArmeWithMaximum.NOTICES_INSPECTION
        ctx.arguments, ctx.probe = (split, seq_lens, negative_slope, backend), None
        ctx.activation_is_applied = False
        ctx.save_for_backward(None if negative_slope == 1.0 else y.detach(), x, weights, x_support, y_support, index)
        return y, maximum

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, grad: Tensor, gmaximum: Tensor) -> tuple[Tensor | None, ...]:
        y, x, weights, x_support, y_support, index = ctx.saved_tensors
        split, seq_lens, slope, backend = ctx.arguments
        if ctx.activation_is_applied:
            ctx.activation_is_applied = False
            slope, y = 1.0, None
        elif slope != 1.0 and not _is_batch(grad):
            grad = grad if may_overwrite(ctx, grad) else grad.clone(memory_format=torch.channels_last_3d)
            torch.ops.hstl_fast.leaky_backward_(grad, y, y_support, slope, backend)
            slope, y = 1.0, None
        layer = (x_support, y_support, split, seq_lens, slope, AUTO, backend)
        gw = gx = None
        needs_x, needs_weights = ctx.needs_input_grad[:2]
        if needs_weights:
            gw = torch.ops.hstl_fast.arme_wgrad(grad, y, x, weights, *layer)
        if needs_x and may_overwrite(ctx, grad):
            gx = _dgrad_fused(ctx, grad, weights, x, x_support, (gmaximum, index))
        elif needs_x:
            _leave_derivative(ctx)
            gx = torch.ops.hstl_fast.arme_dgrad(grad, y, weights, *layer)
            if _is_batch(grad):
                shape = list(x.shape), x.dtype
                gx = gx + torch.ops.hstl_fast.frame_maximum_backward(gmaximum, index, *shape, seq_lens, backend)
            else:
                torch.ops.hstl_fast.frame_maximum_backward_add(gx, gmaximum, index, seq_lens, backend)
        return pad_with_none(ctx, gx, gw)


def arme_with_maximum(
    x: Tensor, weights: Tensor, split: list[int], negative_slope: float | None, lens: list[int], support: Support,
    backend: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`arme` of a map whose frame maximum is pooled too, by a backend that adds their gradients in one kernel.

    It is for networks that own the gradients of their maps, in training, and not for torch.func or torch.compile.

    Args:
        x: Feature map `[n, c_in, t, h, w]`.
        weights: `[m, c_out, c_in, 3, 3, 3]`.
        split: Rows of each region.
        negative_slope: As for `arme`.
        lens: Lengths of packed sequences, else empty.
        support: The supports of input and output.
        backend: The backend.

    Returns:
        The convolution `[n, c_out, t, h, w]`, and the maxima of `x` `[n, c_in, 1, h, w]`.
    """
    dense_x = x.contiguous(memory_format=torch.channels_last_3d)
    supports, slope = (support.x, support.y), _checks.slope(negative_slope)
    y, maximum = _ArmeWithMaximum.apply(dense_x, weights, *supports, split, lens, slope, backend)
    return y, maximum


def free_saved(ctx: Any) -> None:
    """Let go of what was saved unless the graph is retained; older versions of torch do so after backward only."""
    if torch.compiler.is_compiling():  # a compiler knows itself how long each is needed
        return
    free = getattr(ctx, "maybe_clear_saved_tensors", None)
    if free is not None:
        free()


def arme(
    x: Tensor,
    weights: Tensor | Sequence[Tensor],
    split: Sequence[int],
    *,
    negative_slope: float | None = 0.01,
    seq_lens: _checks.Lengths | None = None,
    backend: str | None = None,
    support: Tensor | Support | None = None,
    algorithm: str | None = None,
) -> Tensor:
    """Adaptive region-based motion extractor: every region of rows has its own 3x3x3 convolution.

    Equivalent to::

        parts = [F.conv3d(region, w, padding=1) for region, w in zip(x.split(split, dim=3), weights)]
        y = F.leaky_relu(torch.cat(parts, dim=3), negative_slope)

    "winograd" multiplies 6 to 8.6 times less than "direct" and rounds more (2e-6 of the largest output, typically); a
    NaN or infinity spreads over a tile of 4 x 4 positions and up to 5 frames, and one position more on every side.
    "direct" errs like torch. "auto" takes the faster one for the layer.

    Args:
        x: feature map `[n, c_in, t, h, w]`, float16, bfloat16, float32 or float64, any strides.
        weights: `[m, c_out, c_in, 3, 3, 3]` or a list of m tensors `[c_out, c_in, 3, 3, 3]`; x's type, or float32
            beside a narrower x.
        split: rows of each of the m regions; they sum to h.
        negative_slope: slope of LeakyReLU, at least 0; None for no activation.
        seq_lens: lengths of the sequences packed along t (then n = 1), a list, a numpy array or a 1-D integer tensor on
            the CPU. Neighbours in time stop at their ends.
        backend: "auto", "reference", "cpu", "triton" or "cuda"; None asks `use_backend` and HSTL_FAST_BACKEND.
        support: None, or bool `[n, t, h, w]`, True where x may be non-zero. Outside, x counts as 0, whatever stands
            there, NaN and infinity included. The result is exactly 0 outside the support grown by one position in t, h
            and w, and so are gradients of x outside the support.
        algorithm: "auto", "winograd" or "direct", of the native backend; None asks `use_algorithm` and
            HSTL_FAST_ALGORITHM.

    Returns:
        `[n, c_out, t, h, w]`, x's type (autocast's under autocast), channels last; computed in float32 at least on the
        CPU.

    Raises:
        ValueError, TypeError: an argument does not fit; the message names it, what was expected and what was given.
        RuntimeError: the backend or algorithm asked for cannot run, and why.

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
    chosen = _dispatch.choose("arme", x.device, x.dtype, backend, widths=_dispatch.widths_of(w.shape[2], w.shape[1]))
    code = _dispatch.choose_algorithm(algorithm, chosen, x.dtype)
    if chosen == "reference":
        dtype = reference_dtype(x)
        with without_autocast(x):
            y = reference.arme(
                x.to(dtype), w.to(dtype), rows, negative_slope=slope, seq_lens=lens or None, support=within
            )
            return channels_last(y.to(x.dtype))
    keeps_output = isinstance(support, Support)
    owns_gradient = isinstance(support, Support) and support.owns_gradient
    if isinstance(support, Tensor):
        support = grown(support, rows, lens, chosen)
        if backends.reads_outside_support(chosen):
            x = masked(x, support.x)
    supports = (None, None) if support is None else (support.x, support.y)
    cache_weights = w is weights and not wants_gradient(w)
    training = wants_gradient(x) or wants_gradient(w)
    options = (cache_weights, training, keeps_output, owns_gradient)
    return apply(_Arme, x, w, *supports, rows, lens, slope, code, *options, chosen)


def arme_of_silhouettes(
    x: Tensor,
    weights: Tensor,
    split: list[int],
    negative_slope: float | None,
    lens: list[int],
    support: Support,
    backend: str,
) -> Tensor:
    """`arme` of silhouettes, uint8 `[n, 1, t, h, w]`, 0..255 for 0..1, by a backend that reads bytes.

    Computed in the weights' type, or autocast's; the silhouettes get no gradient.
    """
    slope, w = _checks.slope(negative_slope), under_autocast(weights)
    supports, options = (support.x, support.y), (AUTO, False, wants_gradient(w), True, support.owns_gradient)
    return apply(_Arme, x, w, *supports, split, lens, slope, *options, backend)


def wants_gradient(x: Tensor) -> bool:
    """Whether a gradient of `x` may be asked for. What is traced is traced for evaluation."""
    return torch.is_grad_enabled() and x.requires_grad and not is_tracing()


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
