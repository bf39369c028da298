"""The comparison of a layer's own forward with the operator, on small inputs, before the layer is replaced."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast._torch_private import bare_copy, children_of, parameters_of
from hstl_fast.drop_in.forward import FastForward
from hstl_fast.drop_in.structure import Mismatch
from hstl_fast.ops._dispatch import use_algorithm
from hstl_fast.ops._library import has_autocast, without_autocast

# The largest distance of two outputs of one layer, relative to the largest value.
OUTPUT_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 5e-2}
# The same for gradients, relative to their norm. In narrower types only their existence is compared.
GRADIENT_TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}
# Tolerances are this much larger on an accelerator, which may round factors to ten bits.
ACCELERATOR_FACTOR = 20

# Inputs of other sizes than the usual ones; gates turn rounding of large numbers into other outputs.
SCALES: dict[str, Callable[[Any, torch.Generator], Tensor]] = {
    "large numbers": lambda shape, generator: 100 * torch.randn(shape, generator=generator),
    "small numbers": lambda shape, generator: torch.randn(shape, generator=generator) / 100,
    "numbers up to 255": lambda shape, generator: torch.randint(256, shape, generator=generator),
}


class _OtherGradients(Mismatch):
    """The gradients of one trial differ."""


class Result(NamedTuple):
    """A layer's output, and gradients of its input and parameters; None for a gradient that does not exist."""

    output: Tensor
    gradients: list[Tensor | None]


# Runs a forward of a module on an input and other arguments.
Run = Callable[[Callable[..., Any], nn.Module, Tensor, Sequence[Any]], Result]


def check_equal(forward: FastForward) -> None:
    """Raise `Mismatch` unless the operator computes what the module's own forward does.

    Outputs and gradients are compared in the module's own type in training and in evaluation mode, outputs also in
    float64 at other scales and under autocast. Copies of the module are run, so nothing is left behind in it; the types
    of outputs under autocast are noted in `forward`.
    """
    parameter = next(forward.module.parameters())
    with _isolated(parameter):
        generator = torch.Generator().manual_seed(0)
        for training in (True, False):
            _check_mode(_on_copy(forward, parameter.dtype, training), generator)
        _check_scales(_on_copy(forward, torch.float64, False), generator)
        if has_autocast(parameter.device.type):
            copied = _on_copy(forward, torch.float32, False)
            _check_autocast(copied, generator)
            forward.autocast_dtypes = copied.autocast_dtypes


def takes_any_layout(forward: FastForward) -> bool:
    """Return whether the module's own forward computes the same for channels-last maps as for contiguous ones.

    A forward that calls `.view` may fail on such maps. Outputs are compared on a copy, in the module's own type.
    """
    parameter = next(forward.module.parameters())
    try:
        with _isolated(parameter), torch.no_grad():
            return all(
                _is_same_for_any_layout(_on_copy(forward, parameter.dtype, False), *trial) for trial in forward.trials()
            )
    except Exception:  # whatever it is, it comes of the layout or would come with it
        return False


def _is_same_for_any_layout(forward: FastForward, shape: tuple[int, ...], *others: Any) -> bool:
    parameter = next(forward.module.parameters())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    last = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
    own = _own(forward)
    _check_outputs(_tensor(own(last, *others)), _tensor(own(x, *others)), OUTPUT_TOLERANCES[parameter.dtype], "")
    return True


def _check_mode(forward: FastForward, generator: torch.Generator) -> None:
    parameter = next(forward.module.parameters())
    mode = f"in {'training' if forward.module.training else 'evaluation'} mode"
    for shape, *others in forward.trials():

        def check(shape: tuple[int, ...] = shape, others: Sequence[Any] = others) -> None:
            x = torch.randn(shape, generator=generator).to(parameter)
            _check_trial(forward, x, others, _run_both_ways, parameter.dtype, mode)

        try:
            check()
        except _OtherGradients:
            # A value next to 0 may have been rounded to the other side of the activation's kink: not twice.
            check()


def _check_scales(forward: FastForward, generator: torch.Generator) -> None:
    parameter = next(forward.module.parameters())
    for scale, draw in SCALES.items():
        for shape, *others in forward.trials():
            x = draw(shape, generator).to(parameter)
            _check_trial(forward, x, others, _run_forward, torch.float64, f"on {scale} in evaluation mode")


def _check_autocast(forward: FastForward, generator: torch.Generator) -> None:
    """Compare outputs under autocast, and note in `forward` which types the own forward returns."""
    parameter = next(forward.module.parameters())
    device = parameter.device.type
    narrow = torch.get_autocast_dtype(device)
    for shape, *others in forward.trials():
        for dtype in (torch.float32, narrow):
            x = torch.randn(shape, generator=generator).to(parameter).to(dtype)
            with torch.autocast(device, narrow):
                try:
                    found = _tensor(_own(forward)(x.clone(), *others)).dtype
                except Exception:  # and so it fails for its callers
                    continue
                forward.autocast_dtypes[dtype == narrow] = None if found == narrow else found
                _check_trial(forward, x, others, _run_forward, narrow, "under autocast")


def _check_trial(
    forward: FastForward, x: Tensor, others: Sequence[Any], run: Run, dtype: torch.dtype, where: str
) -> None:
    """Raise `Mismatch` if the operator differs from the module's own forward on `x` beyond rounding in `dtype`."""
    try:
        expected = run(_own(forward), forward.module, x, others)
    except Exception as fault:
        raise Mismatch(f"its own forward fails on a small input ({first_line(fault)}) {where}") from None
    try:
        got = run(_ours(forward), forward.module, x, others)
    except Exception as fault:
        raise Mismatch(f"hstl_fast cannot compute it ({first_line(fault)}) {where}") from None
    factor = 1 if x.device.type == "cpu" else ACCELERATOR_FACTOR
    _check_outputs(got.output, expected.output, factor * OUTPUT_TOLERANCES[dtype], where)
    tolerance = GRADIENT_TOLERANCES.get(dtype)
    for gradient, own in zip(got.gradients, expected.gradients, strict=True):
        _check_gradients(gradient, own, None if tolerance is None else factor * tolerance, where)


def _check_outputs(y: Tensor, own: Tensor, tolerance: float, where: str) -> None:
    if y.shape != own.shape:
        raise Mismatch(f"its own forward returns {list(own.shape)}, ours {list(y.shape)}, {where}")
    if y.dtype != own.dtype:
        raise Mismatch(f"its own forward returns {own.dtype}, ours {y.dtype}, {where}")
    if not own.isfinite().all() or not own.any():
        raise Mismatch(f"its own forward returns zeros or infinities only, which shows nothing, {where}")
    distance = float((y.double() - own.double()).abs().max() / own.double().abs().max())
    if not distance <= tolerance:
        raise Mismatch(f"its own forward returns other values (by {distance:.1g} of the largest) {where}")


def _check_gradients(gradient: Tensor | None, own: Tensor | None, tolerance: float | None, where: str) -> None:
    if (gradient is None) != (own is None):
        raise Mismatch(f"its own forward stops a gradient, or passes one on that ours stops, {where}")
    if gradient is None or own is None or tolerance is None:
        return
    distance = float((gradient.double() - own.double()).norm())
    if not distance <= tolerance * float(own.double().norm()):
        raise _OtherGradients(f"its own forward has other gradients {where}")


@contextmanager
def _isolated(parameter: Tensor) -> Iterator[None]:
    """Keep the caller's contexts out of the comparison, and leave the caller's random states as they were."""
    with ExitStack() as stack:
        devices = [parameter.device] if parameter.device.type == "cuda" else []
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.enter_context(torch.inference_mode(False))  # which lets gradients be recorded, too
        stack.enter_context(without_autocast(parameter))
        stack.enter_context(use_algorithm("auto"))
        stack.enter_context(torch.device("cpu"))  # where inputs are drawn, under torch.device("meta"), too
        yield


def _on_copy(forward: FastForward, dtype: torch.dtype, training: bool) -> FastForward:
    """Return the same forward for a copy of its module, of this type and in this mode."""
    module = _copy_module(forward.module, dtype, {})
    for inner in module.modules():
        inner.training = training
    return type(forward)(module, forward.names)


def _copy_module(module: nn.Module, dtype: torch.dtype, copies: dict[int, Any]) -> nn.Module:
    """Return a copy of the module and those inside, without hooks, whose parameters are copies of this type.

    `copy.deepcopy` would follow a hook or an attribute to the whole model and beyond.
    """
    if id(module) in copies:
        made: nn.Module = copies[id(module)]
        return made
    copied = bare_copy(module)
    copies[id(module)] = copied
    for name, parameter in parameters_of(copied).items():
        if parameter is not None:
            values = parameter.detach().to(dtype, copy=True)
            parameters_of(copied)[name] = copies.setdefault(
                id(parameter), nn.Parameter(values, requires_grad=parameter.requires_grad)
            )
    for name, child in children_of(copied).items():
        children_of(copied)[name] = None if child is None else _copy_module(child, dtype, copies)
    return copied


def _own(forward: FastForward) -> Callable[..., Any]:
    return lambda *args: type(forward.module).forward(forward.module, *args)


def _ours(forward: FastForward) -> Callable[..., Tensor]:
    """Return the operator alone: a call of `forward` might leave a trial to the own forward."""
    return lambda x, *others: forward.cast(forward.compute(*(forward.bind((x, *others), {}) or [])), x)


def _run_forward(forward: Callable[..., Any], module: nn.Module, x: Tensor, others: Sequence[Any]) -> Result:
    """Return the output for `x` without gradients."""
    return Result(_tensor(forward(x.clone(), *others)).detach().cpu(), [])


def _run_both_ways(forward: Callable[..., Any], module: nn.Module, x: Tensor, others: Sequence[Any]) -> Result:
    """Return the output for `x`, and the gradients of a fixed direction of it with respect to `x` and parameters."""
    x = x.clone().requires_grad_()
    y = _tensor(forward(x * 1, *others))  # the product may be changed in place, a leaf may not
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    if not y.requires_grad:
        return Result(y.cpu(), [None] * len(leaves))
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    gradients = torch.autograd.grad(y, leaves, direction, allow_unused=True)
    return Result(y.detach().cpu(), [None if gradient is None else gradient.cpu() for gradient in gradients])


def _tensor(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(f"it returned a {type(y).__name__}")
    return y


def first_line(fault: Exception) -> str:
    """Return the first line of an exception's message, or its class's name if it has none."""
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__
