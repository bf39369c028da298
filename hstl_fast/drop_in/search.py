"""`accelerate`: a walk through a model that replaces the forward of every layer of HSTL it finds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from hstl_fast._torch_private import is_compiled
from hstl_fast.drop_in import structure
from hstl_fast.drop_in.compare import check_equal, first_line, takes_any_layout
from hstl_fast.drop_in.forward import FastForward, is_accelerated
from hstl_fast.drop_in.layers import kind_of
from hstl_fast.drop_in.measure import Timing, first_calls, timing
from hstl_fast.drop_in.report import ALREADY, LEFT, REPLACED, Layer, Report
from hstl_fast.models import HSTL
from hstl_fast.ops import _dispatch

PACKED = (
    "sequences packed along time leak into one another in this model's convolutions and FTA, which never see seqL, "
    "before acceleration and after it: the model's own semantics are kept (hstl_fast.HSTL keeps sequences apart)"
)
MEMORY_FORMATS = {
    torch.channels_last_3d: "feature maps leave the layers replaced here channels-last; if other code fails on them in "
    ".view(), use .reshape() there, or undo and accelerate with memory_format=torch.contiguous_format",
    torch.contiguous_format: "feature maps leave the layers replaced here contiguous, at the price of copies; "
    "memory_format=torch.channels_last_3d saves these if no other code calls .view() on them",
}


GAINS = (
    "gains are how many times as fast a layer is expected to be for usual maps on a CPU; a call that would gain "
    "nothing is left to the layer's own forward"
)
# Times of equal forwards differ by up to this factor.
SLOWER = 1.1


def accelerate(
    module: nn.Module, memory_format: torch.memory_format | None = None, *, example: Sequence[Any] | None = None
) -> Report:
    """Replace the forward of every HSTL layer in `module`, in place, by this package's operators.

    Layers are recognised by their structure, whatever their classes are called: ARME by `split_param` and a list
    `conv3d`, ASTP by `hpp`, FTA by `mma`, strip pools by `bin_num` and `p`, plain stages as an `nn.Sequential` of
    modules that hold one `conv3d`, each followed by `nn.LeakyReLU`, GaitGL's layers by `halving`, `fm_sign`,
    `global_conv3d` and `local_conv3d`. A copy of each is then compared once with its own
    forward, on its own device, in training and in evaluation mode: outputs and gradients on a few random numbers in its
    own type, outputs for small and large numbers (up to some hundreds) in float64, and outputs under autocast. A layer
    that has anything else (a bias, another stride, a norm, hooks or parametrizations inside), or computes anything
    else, is left alone, with the reason in the report. These comparisons run global module hooks.

    On a CPU, a model of arithmetic and of copies between memory layouts decides at every call, by the sizes of the map,
    whether the operator or the layer's own forward computes it. The report shows the gain that it expects of every
    layer for a usual map; what is compiled or exported takes the operators for every size.

    Parameters stay the same objects under the same names, so optimisers, checkpoints, DistributedDataParallel and
    `.to()` go on as before, and so do hooks on the replaced layers, autocast, deepcopy and pickle (`torch.load` of a
    whole accelerated model needs hstl_fast). Calls that HSTL's layers do not define (other shapes, lengths that do not
    fill the frames, another type than the parameters') are computed by the layer's own forward, and so are layers whose
    hooks, modules or settings inside are no longer those compared; call `accelerate` again after such a change.
    torch.compile looks for changes while it compiles, not later. The native backends have first derivatives only.

    torch.compile and torch.export take an accelerated model; torch.jit does not, nor does nn.DataParallel over several
    devices, whose replicas would keep the first device's parameters. A shallow `copy.copy` of a replaced layer goes on
    computing with the original's parameters until `accelerate` gives it a forward of its own.

    Args:
        module: A model or a part of one, with layers like those of the released HSTL or of OpenGait models. It may be
            wrapped in DistributedDataParallel, but not scripted or compiled.
        memory_format: How feature maps `[N, C, T, H, W]` leave the replaced layers: `torch.channels_last_3d`, without
            copies, or `torch.contiguous_format`, for code that calls `.view` on them. None is channels-last, but
            contiguous if a layer that is left alone was not found to compute the same for channels-last maps, or if the
            model fails on `example` with them.
        example: Arguments of one call of `module`, as `(silhouettes,)`. With them the model is called, and every
            replaced layer timed in its own way and in ours on the input it got there: forward passes in evaluation
            mode, steps in training mode. Layers that are slower in ours keep their own forward. None measures nothing.

    Returns:
        The report; `report.undo()` restores everything. A second call changes nothing more and says so.

    Raises:
        TypeError: `module` is no `nn.Module`, or a scripted or compiled one. Nothing is changed.
        ValueError: `memory_format` is another one. Nothing is changed.
    """
    _check_module(module)
    _check_memory_format(memory_format)
    model = type(module).__name__
    if isinstance(module, HSTL):
        return Report(model, (), ("an hstl_fast.HSTL is made of these layers already",))
    search = _Search()
    search.visit(module, "")
    layers = search.layers
    chosen = memory_format or _memory_format_for(layers)
    _install(layers, chosen)
    if example is not None:
        if memory_format is None and chosen == torch.channels_last_3d and not _runs(module, example):
            memory_format = torch.contiguous_format
            _install(layers, memory_format)
        layers = _timed(module, example, layers)
        chosen = memory_format or _memory_format_for(layers)
        _install(layers, chosen)
    notes = [*search.notes, *_notes(layers, chosen)]
    return Report(model, tuple(layers), tuple(notes))


def _check_module(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"module must be a Python model, got a scripted one ({type(module).__name__}); accelerate the model that "
            "was scripted"
        )
    if is_compiled(module):
        raise TypeError("module must not be compiled yet, got a compiled one; accelerate first, then torch.compile")


def _check_memory_format(memory_format: torch.memory_format | None) -> None:
    if memory_format is not None and not any(memory_format is known for known in MEMORY_FORMATS):
        raise ValueError(
            f"memory_format must be torch.channels_last_3d, torch.contiguous_format or None, got {memory_format}"
        )


class _Search:
    """A walk through a model that visits every module once, and none inside a layer that is replaced."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.notes: list[str] = []
        self._visited: set[int] = set()

    def visit(self, module: nn.Module, name: str) -> None:
        """Examine the module, then those inside."""
        if id(module) in self._visited:
            return
        self._visited.add(id(module))
        opaque = _why_opaque(module)
        if opaque:
            self.notes.append(f"{name} is {opaque}")
            return
        try:
            kind = kind_of(module)
        except Exception as fault:
            self.notes.append(f"{name or 'the model'} cannot be looked at ({first_line(fault)})")
            kind = None
        if kind is not None:
            layer = _examined(kind, module, name)
            self.layers.append(layer)
            if layer.outcome != LEFT:
                return
        for child_name, child in module.named_children():
            self.visit(child, f"{name}.{child_name}" if name else child_name)


def _why_opaque(module: nn.Module) -> str | None:
    """Return why the search does not enter `module`, or None."""
    if isinstance(module, HSTL):
        return "an hstl_fast.HSTL, made of these layers already"
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted: not looked into"
    if is_compiled(module):
        return "compiled: not looked into; accelerate first, then torch.compile"
    return None


def _examined(kind: type[FastForward], module: nn.Module, name: str) -> Layer:
    """Return the row of the report for a layer that looks like one of this kind."""
    if is_accelerated(module) and vars(module)["forward"].is_unchanged():
        return Layer(name, kind.kind, ALREADY, module=module, forward=vars(module)["forward"])
    try:
        forward = _new_forward(kind, module)
    except structure.Mismatch as mismatch:
        reason = str(mismatch)
    except Exception as fault:  # raised by properties and settings of the layer
        reason = f"looking at it fails ({first_line(fault)})"
    else:
        return Layer(name, kind.kind, REPLACED, module=module, forward=forward)
    return Layer(name, kind.kind, LEFT, reason, module=module, takes_any_layout=_takes_any_layout(kind, module))


def _takes_any_layout(kind: type[FastForward], module: nn.Module) -> bool:
    """Return whether a layer that is left alone computes the same for channels-last maps, as far as can be found."""
    try:
        return takes_any_layout(kind(module, structure.argument_names(kind, module)))
    except Exception:  # its structure may be anything
        return False


def _new_forward(kind: type[FastForward], module: nn.Module) -> FastForward:
    """Return a forward of ours for `module`; raise `Mismatch` if the layer is to keep its own."""
    names = structure.argument_names(kind, module)
    structure.check_layer(module)
    kind.check(module)
    structure.check_inside(kind, module)
    if kind.left:
        raise structure.Mismatch(kind.left)
    return _first_equal([form(module, names) for form in kind.forms()])


def _first_equal(forms: Sequence[FastForward]) -> FastForward:
    """Return the form that computes what the module does; raise the first one's `Mismatch` if there is none."""
    mismatches = []
    for forward in forms:
        try:
            check_equal(forward)
        except structure.Mismatch as mismatch:
            mismatches.append(mismatch)
        else:
            forward.own_takes_any_layout = takes_any_layout(forward)
            return forward
    raise mismatches[0]


def _memory_format_for(layers: Sequence[Layer]) -> torch.memory_format:
    """Return how maps leave the replaced layers, so that those left alone can read them."""
    left = any(layer.outcome == LEFT and not layer.takes_any_layout for layer in layers)
    return torch.contiguous_format if left else torch.channels_last_3d


def _install(layers: Sequence[Layer], memory_format: torch.memory_format) -> None:
    """Put new forwards in place, and take away those that are no longer right for their layers."""
    for layer in layers:
        members = vars(layer.module)
        if layer.outcome == REPLACED and layer.forward is not None:
            layer.forward.channels_last = memory_format == torch.channels_last_3d
            members["forward"] = layer.forward
        elif layer.outcome == LEFT and isinstance(members.get("forward"), FastForward):
            del members["forward"]  # made for the original of a shallow copy, or before a change


def _runs(module: nn.Module, example: Sequence[Any]) -> bool:
    """Return whether the model takes the example; code that calls `.view` may fail on channels-last maps."""
    try:
        first_calls(module, example, [])
    except Exception:  # raised again where the layout is not the reason
        return False
    return True


def _timed(module: nn.Module, example: Sequence[Any], layers: Sequence[Layer]) -> list[Layer]:
    """Return the rows with what was measured, after giving slower layers their own forward back."""
    found = {layer.module: layer.forward for layer in layers if layer.forward is not None}
    try:
        calls = first_calls(module, example, list(found))
        timings = {each: timing(found[each], call) for each, call in calls.items()}
    except Exception:
        for layer in layers:
            if layer.outcome == REPLACED:
                del vars(layer.module)["forward"]
        raise
    return [_judged(layer, timings.get(layer.module)) for layer in layers]


def _judged(layer: Layer, timing: Timing | None) -> Layer:
    """Return a row with what was measured; a layer that our operator made slower is left alone."""
    if timing is None or not timing.by_operator or timing.ours <= SLOWER * timing.own:
        return replace(layer, timing=timing)
    del vars(layer.module)["forward"]
    mode = "a step" if timing.training else "the forward pass"
    reason = f"{mode} took {1e3 * timing.ours:.3g} ms in ours, {1e3 * timing.own:.3g} ms in its own way"
    takes_any_layout = layer.forward is not None and layer.forward.own_takes_any_layout
    return replace(layer, outcome=LEFT, reason=reason, forward=None, takes_any_layout=takes_any_layout)


def _notes(layers: Sequence[Layer], memory_format: torch.memory_format) -> list[str]:
    accelerated = [layer.module for layer in layers if layer.outcome != LEFT]
    notes = _backend_notes(accelerated)
    notes += [PACKED] if accelerated else []
    notes += [GAINS] if any(layer.expected() is not None for layer in layers) else []
    notes += [MEMORY_FORMATS[memory_format]] if any(layer.outcome == REPLACED for layer in layers) else []
    return notes


def _backend_notes(modules: Sequence[nn.Module]) -> list[str]:
    """Return a note for every device and type where the accelerated layers run in plain torch."""
    parameters = [next(module.parameters()) for module in modules]
    places = {(parameter.device, parameter.dtype): None for parameter in parameters}
    return [
        f"on {device} in {dtype} the replaced layers run on the reference backend, in plain torch, and gain nothing"
        for device, dtype in places
        if _dispatch.choose("arme", device, dtype, None) == "reference"
    ]
