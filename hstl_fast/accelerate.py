"""`accelerate`: the HSTL layers of somebody's model, found by their structure, compute with `hstl_fast.functional`.

A replaced layer stays the object it was: only its instance gets a `forward`, which reads the layer's own parameters at
every call. The layer's class, its other instances, parameters, buffers, hooks and modes are not touched.
"""

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from hstl_fast import functional
from hstl_fast._torch_private import constant_when_compiled
from hstl_fast.layout import FLOATING
from hstl_fast.models import HSTL
from hstl_fast.ops import _dispatch
from hstl_fast.ops._dispatch import use_algorithm
from hstl_fast.ops._library import has_autocast, without_autocast
from hstl_fast.reference import SMALLEST

REPLACED, ALREADY, LEFT = "replaced", "already accelerated", "left alone"

PACKED = (
    "sequences packed along time leak into one another in this model's convolutions and FTA, which never see seqL, "
    "before acceleration and after it: the model's own semantics are kept (hstl_fast.HSTL keeps sequences apart)"
)
LAYOUTS = {
    torch.channels_last_3d: "feature maps leave the layers replaced here channels-last; if other code fails on them in "
    ".view(), use .reshape() there, or undo and accelerate with memory_format=torch.contiguous_format",
    torch.contiguous_format: "feature maps leave the layers replaced here contiguous, at the price of copies; "
    "memory_format=torch.channels_last_3d saves these if no other code calls .view() on them",
}

SLOPE = 0.01
"""Of ARME's LeakyReLU, which is inside its forward and cannot be read off."""

Trial = tuple[Any, ...]
Answer = tuple[Tensor, list[Tensor | None]]


@dataclass(frozen=True)
class Layer:
    """A line of the report."""

    name: str
    """As `named_modules()` has it; a module with several names is listed under the first."""
    kind: str
    """"plain stage", "ARME", "ASTP", "FTA" or "strip pool"."""
    outcome: str
    """"replaced", "already accelerated" or "left alone"."""
    reason: str = ""
    """Why it was left alone."""
    module: nn.Module = field(repr=False, kw_only=True)
    forward: "FastForward | None" = field(default=None, repr=False, kw_only=True)
    """Ours, where it is in place."""


@dataclass(frozen=True)
class Report:
    """What `accelerate` found and did; `print(report)` shows a table."""

    model: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def replaced(self) -> list[Layer]:
        """The layers that this call gave our forward."""
        return self._of(REPLACED)

    @property
    def already_accelerated(self) -> list[Layer]:
        """The layers that had our forward before this call."""
        return self._of(ALREADY)

    @property
    def left_alone(self) -> list[Layer]:
        """The layers that look like HSTL's but keep their own forward; each has a `reason`."""
        return self._of(LEFT)

    def undo(self) -> None:
        """Give every layer listed as replaced or already accelerated its own forward back; twice is once.

        A copied or loaded model is undone by a report of its own: `accelerate(copied).undo()`; forwards that a later
        call of `accelerate` put in place stay, too. Raises RuntimeError, with nothing undone, if somebody has since put
        another forward over ours.
        """
        at_work = [layer for layer in self.layers if layer.forward is not None and "forward" in vars(layer.module)]
        covered = [layer.name for layer in at_work if not isinstance(vars(layer.module)["forward"], FastForward)]
        if covered:
            raise RuntimeError(
                f"undo needs hstl_fast's forward in place, got another one over it in {', '.join(covered)}; take that "
                "away first"
            )
        for layer in at_work:
            if vars(layer.module)["forward"] is layer.forward:
                del vars(layer.module)["forward"]

    def _of(self, outcome: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.outcome == outcome]

    def __str__(self) -> str:
        counts = [f"{len(self._of(outcome))} {outcome}" for outcome in (REPLACED, ALREADY, LEFT) if self._of(outcome)]
        if not counts:
            counts = ["no HSTL layer found, nothing changed"]
        lines = [f"{self.model}: {', '.join(counts)}"]
        if self.layers:
            rows = [(layer.name or "(itself)", layer.kind, layer.outcome, layer.reason) for layer in self.layers]
            rows.insert(0, ("layer", "kind", "outcome", "reason"))
            widths = [max(len(row[i]) for row in rows) for i in range(3)]
            lines += ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths)), row[3]]).rstrip() for row in rows]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def accelerate(module: nn.Module, memory_format: torch.memory_format | None = None) -> Report:
    """Give the HSTL layers in `module` our forward, in place.

    Layers are known by their structure, whatever their classes are called: ARME by `split_param` and a list `conv3d`,
    ASTP by `hpp`, FTA by `mma`, strip pools by `bin_num` and `p`, plain stages as an `nn.Sequential` of modules that
    hold one `conv3d`, each followed by `nn.LeakyReLU`. A copy of each is then compared once with its own forward, on
    its own device, in training and in evaluation mode: answers and gradients on a few random numbers in its own type,
    answers to small and large numbers (up to some hundreds) in float64, and answers under autocast. A layer that has
    anything else (a bias, another stride, a norm, hooks or parametrizations inside), or answers differently, is left
    alone, with the reason in the report. Hooks that torch holds for all modules are called by these comparisons.

    Parameters stay the same objects under the same names, so optimisers, checkpoints, DistributedDataParallel and
    `.to()` go on as before, and so do hooks on the replaced layers, autocast, deepcopy and pickle (`torch.load` of a
    whole accelerated model needs hstl_fast). Calls that HSTL's layers do not define (other shapes, lengths that do not
    fill the frames, another type than the parameters') are computed by the layer's own forward, and so are layers whose
    hooks, modules or settings inside are no longer those compared; call `accelerate` again after such a change.
    torch.compile looks for changes while it compiles, not later. First derivatives only, on the native backends; an
    output may not be changed in place before backward. torch.compile and torch.export take an accelerated model;
    torch.jit does not, nor does nn.DataParallel over several devices, whose replicas would keep the first device's
    parameters. A shallow `copy.copy` of a replaced layer goes on computing with the original's parameters until
    `accelerate` gives it a forward of its own.

    :param module: a model or a part of one; wrapped in DistributedDataParallel or not; not scripted, not compiled
    :param memory_format: how feature maps leave the replaced layers: torch.channels_last_3d, without copies, or
        torch.contiguous_format, for code that calls `.view` on them. None: channels-last, but contiguous if a layer
        is left alone
    :returns: the report; `report.undo()` restores everything. A second call changes nothing more and says so
    :raises TypeError: `module` is no nn.Module, or a scripted or compiled one; nothing is changed
    :raises ValueError: another `memory_format`; nothing is changed

    Source: the layers of the released HSTL and of OpenGait models built like it.
    """
    _refuse(module)
    if memory_format is not None and not any(memory_format is known for known in LAYOUTS):
        raise ValueError(
            f"memory_format must be torch.channels_last_3d, torch.contiguous_format or None, got {memory_format}"
        )
    model = type(module).__name__
    if isinstance(module, HSTL):
        return Report(model, (), ("an hstl_fast.HSTL is made of these layers already",))
    search = _Search()
    search.visit(module, "")
    layers = tuple(search.found)
    if memory_format is None:
        left = any(layer.outcome == LEFT for layer in layers)
        memory_format = torch.contiguous_format if left else torch.channels_last_3d
    at_work = [layer.module for layer in layers if layer.outcome != LEFT]
    replaced = [layer.forward for layer in layers if layer.outcome == REPLACED and layer.forward is not None]
    notes = [*search.notes, *_backend_notes(at_work)]
    notes += [PACKED] if at_work else []
    notes += [LAYOUTS[memory_format]] if replaced else []
    for layer in layers:
        if layer.outcome == LEFT and isinstance(vars(layer.module).get("forward"), FastForward):
            del vars(layer.module)["forward"]  # of a copy or of before a change, and no longer right
    for forward in replaced:
        forward.channels_last = memory_format == torch.channels_last_3d
        vars(forward.module)["forward"] = forward
    return Report(model, layers, tuple(notes))


def _refuse(module: object) -> None:
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {type(module).__name__}")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(
            f"module must be a Python model, got a scripted one ({type(module).__name__}); accelerate the model that "
            "was scripted"
        )
    if _is_compiled(module):
        raise TypeError("module must not be compiled yet, got a compiled one; accelerate first, then torch.compile")


def _is_compiled(module: nn.Module) -> bool:
    compiler = sys.modules.get("torch._dynamo.eval_frame")  # importing it would take seconds
    wrapped = compiler is not None and isinstance(module, compiler.OptimizedModule)
    return wrapped or getattr(module, "_compiled_call_impl", None) is not None


def _is_accelerated(module: nn.Module) -> bool:
    forward = vars(module).get("forward")
    return isinstance(forward, FastForward) and forward.module is module


class _Search:
    """Walks a model; every module once, and not into layers that are replaced."""

    def __init__(self) -> None:
        self.found: list[Layer] = []
        self.notes: list[str] = []
        self._seen: set[int] = set()

    def visit(self, module: nn.Module, name: str) -> None:
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        opaque = _opaque(module)
        if opaque:
            self.notes.append(f"{name} is {opaque}")
            return
        try:
            kind = next((kind for kind in KINDS if kind.looks_like(module)), None)
        except Exception as fault:
            self.notes.append(f"{name or 'the model'} cannot be looked at ({_first_line(fault)})")
            kind = None
        if kind is not None and self._judge(kind, module, name) != LEFT:
            return
        for child_name, child in module.named_children():
            self.visit(child, f"{name}.{child_name}" if name else child_name)

    def _judge(self, kind: "type[FastForward]", module: nn.Module, name: str) -> str:
        forward = vars(module).get("forward")
        if isinstance(forward, FastForward) and forward.module is module and forward.is_unchanged():
            self.found.append(Layer(name, kind.kind, ALREADY, module=module, forward=forward))
            return ALREADY
        forward, reason = _judged(kind, module)
        outcome = LEFT if reason else REPLACED
        self.found.append(Layer(name, kind.kind, outcome, reason or "", module=module, forward=forward))
        return outcome


def _judged(kind: "type[FastForward]", module: nn.Module) -> "tuple[FastForward | None, str | None]":
    """Our forward for `module`, or the reason for leaving it alone."""
    try:
        names, reason = _argument_names(kind, module)
        reason = reason or _outer_fault(module) or kind.fault(module) or _inner_fault(kind, module)
        if reason:
            return None, reason
        forward = kind(module, names)
        reason = _difference(forward)
    except Exception as fault:  # out of somebody else's properties and settings
        return None, f"looking at it fails ({_first_line(fault)})"
    return (None, reason) if reason else (forward, None)


def _opaque(module: nn.Module) -> str | None:
    """What keeps the search out of `module`."""
    if isinstance(module, HSTL):
        return "an hstl_fast.HSTL, made of these layers already"
    if isinstance(module, torch.jit.ScriptModule):
        return "scripted: not looked into"
    if _is_compiled(module):
        return "compiled: not looked into; accelerate first, then torch.compile"
    return None


HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
SETTINGS = (
    *("split_param", "m", "flag", "bin_num", "eps", "kernel_size", "stride", "padding", "dilation", "groups"),
    *("padding_mode", "ceil_mode", "return_indices"),
)
"""Of the layers, their pools and torch's layers inside; a slope is read at every call."""


class Seen(NamedTuple):
    """What a module inside a layer was like when the layer was compared."""

    module: nn.Module
    names: tuple[str, ...]
    values: tuple[Any, ...]
    """Of these names in `vars(module)`."""
    missing: list[bool]
    """Of its parameters; a bias is None in a convolution without one."""

    @classmethod
    def of(cls, module: nn.Module, names: Sequence[str]) -> "Seen":
        """`module` as it is now; lists and dicts are copied, since they may change in place."""
        values = (vars(module).get(name) for name in names)
        kept = (value.copy() if isinstance(value, (list, dict)) else value for value in values)
        return cls(module, tuple(names), tuple(kept), [p is None for p in module._parameters.values()])

    def is_unchanged(self) -> bool:
        """Whether the module is still like that."""
        state = vars(self.module)
        if tuple(map(state.get, self.names)) != self.values:
            return False
        return [p is None for p in state["_parameters"].values()] == self.missing


class FastForward:
    """The `forward` of an accelerated layer: an object that knows its module, so that copies and pickles carry it."""

    kind: ClassVar[str]
    operator: ClassVar[str]
    arguments: ClassVar[int] = 1

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.module = module
        self.names = tuple(names)
        self.channels_last = True  # a torch.memory_format cannot be saved by torch.save
        self.seen = [Seen.of(inner, _watched(inner, module)) for inner in module.modules()]
        self.under_autocast: dict[bool, torch.dtype | None] = {}
        """The type of the own forward's answers (None: autocast's) to float32, and (True) to autocast's type."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The operator's answer, or the module's own where the operator does not define one."""
        values = self.bound(args, kwargs)
        if values is None or not self.defined(*values) or not self._is_as_judged(values[0]):
            return type(self.module).forward(self.module, *map(_as_torch_lays_it, args), **kwargs)
        return self.typed(self.compute(*values), values[0])

    def typed(self, y: Tensor, x: Tensor) -> Tensor:
        """`y` in the type that the module's own forward gives it; only autocast changes that."""
        if x.dtype == torch.float64 or not _is_autocast(x):
            return y
        narrow = torch.get_autocast_dtype(x.device.type)
        return y.to(self.under_autocast[x.dtype == narrow] or narrow)

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Whether `module` has the attributes of this kind's layers, right or wrong."""
        raise NotImplementedError

    @staticmethod
    def fault(module: Any) -> str | None:
        """What in the structure of `module` is not as this kind's layers have it."""
        raise NotImplementedError

    @staticmethod
    def used(module: Any) -> set[str]:
        """Names of the parameters that `compute` uses, of a module without fault."""
        raise NotImplementedError

    def trials(self) -> list[Trial]:
        """Shapes of small inputs, and what is passed beside each."""
        raise NotImplementedError

    def defined(self, x: Any, *others: Any) -> bool:
        """Whether the operator defines an answer for this call."""
        raise NotImplementedError

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """The operator on the module's own parameters."""
        raise NotImplementedError

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        if len(args) > len(self.names) or any(key not in self.names[len(args) :] for key in kwargs):
            return None
        values = [*args, *(kwargs.get(name) for name in self.names[len(args) :])]
        return values if isinstance(values[0], Tensor) else None

    def _laid_out(self, y: Tensor) -> Tensor:
        return y if self.channels_last else y.contiguous()

    def _is_as_judged(self, x: Tensor) -> bool:
        """Whether the layer is the one that was compared, and `x` of a type that was."""
        if x.dtype == torch.float64 or not _is_autocast(x):
            return self._is_still(x.dtype, x.dtype)
        is_narrow = x.dtype == torch.get_autocast_dtype(x.device.type)
        return is_narrow in self.under_autocast and self._is_still(x.dtype, torch.float32)

    @constant_when_compiled
    def _is_still(self, *dtypes: torch.dtype) -> bool:
        """Whether nothing inside has changed, and all parameters are of one of these types."""
        for seen in self.seen:
            for parameter in seen.module._parameters.values():
                if parameter is not None and parameter.dtype not in dtypes:
                    return False
        return self.is_unchanged()

    def is_unchanged(self) -> bool:
        """Whether hooks, modules and settings inside the layer are those that were there when it was compared."""
        try:
            return all(seen.is_unchanged() for seen in self.seen)
        except Exception:  # settings that cannot be compared, such as a tensor
            return False


def _watched(inner: nn.Module, layer: nn.Module) -> list[str]:
    """The names in `vars(inner)` that our forward relies on; hooks on the layer itself are called."""
    names = ["_modules", *(name for name in SETTINGS if hasattr(inner, name))]
    if inner is layer:
        return names
    return [*names, *HOOKS] if _is_accelerated(inner) else [*names, *HOOKS, "forward"]


def _is_autocast(x: Tensor) -> bool:
    return has_autocast(x.device.type) and torch.is_autocast_enabled(x.device.type)


class PlainStage(FastForward):
    """3x3x3 convolutions of the whole map, each with its LeakyReLU."""

    kind = "plain stage"
    operator = "arme"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        return isinstance(module, nn.Sequential) and any(_holds_conv3d(child) for child in module)

    @staticmethod
    def fault(module: Any) -> str | None:
        if type(module).forward is not nn.Sequential.forward:
            return f"{type(module).__name__} has a forward of its own"
        children = list(module)
        for i, child in enumerate(children):
            reason = _convolution_fault(child, str(i)) if i % 2 == 0 else _activation_fault(child, str(i))
            if reason:
                return reason
        return None if len(children) % 2 == 0 else f"no nn.LeakyReLU follows {len(children) - 1}"

    @staticmethod
    def used(module: Any) -> set[str]:
        return {f"{name}.conv3d.weight" for name in list(module._modules)[::2]}

    def trials(self) -> list[Trial]:
        module: Any = self.module
        return [((2, module[0].conv3d.in_channels, 4, 5, 6),)]

    def defined(self, x: Any, *others: Any) -> bool:
        return _is_map(x, 5)

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        module: Any = self.module
        for i in range(0, len(module), 2):
            slope = module[i + 1].negative_slope
            x = functional.arme(x, [module[i].conv3d.weight], [x.shape[3]], negative_slope=slope)
        return self._laid_out(x)


class Arme(FastForward):
    """A convolution for every region of rows, then LeakyReLU."""

    kind = "ARME"
    operator = "arme"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        return _has_regions(module, "conv3d")

    @staticmethod
    def fault(module: Any) -> str | None:
        reason = _regions_fault(module, "conv3d", _convolution_fault)
        if reason:
            return reason
        sizes = {(holder.conv3d.in_channels, holder.conv3d.out_channels) for holder in module.conv3d}
        return None if len(sizes) == 1 else f"the regions have different channels: {sorted(sizes)}"

    @staticmethod
    def used(module: Any) -> set[str]:
        return {f"conv3d.{i}.conv3d.weight" for i in range(len(module.conv3d))}

    def trials(self) -> list[Trial]:
        module: Any = self.module
        return [((2, module.conv3d[0].conv3d.in_channels, 4, sum(module.split_param), 3),)]

    def defined(self, x: Any, *others: Any) -> bool:
        return _is_map(x, 5) and x.shape[3] == sum(_split(self.module))

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        module: Any = self.module
        weights = [holder.conv3d.weight for holder in module.conv3d]
        y = functional.arme(x, weights, list(module.split_param), negative_slope=SLOPE)
        return self._laid_out(y)


class Astp(FastForward):
    """Frame maximum of every sequence, projection, generalised mean of every region."""

    kind = "ASTP"
    operator = "astp"
    arguments = 2

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        return _has_regions(module, "hpp")

    @staticmethod
    def fault(module: Any) -> str | None:
        reason = _regions_fault(module, "hpp", _region_pool_fault)
        if reason:
            return reason
        if not isinstance(getattr(module, "SP1", None), nn.Module):
            return "has no frame maximum SP1"
        flag = getattr(module, "flag", None)
        if not isinstance(flag, bool):
            return f"flag must be True or False, got {flag!r}"
        if not flag:
            return None
        conv = getattr(getattr(module, "proj", None), "conv", None)
        expected = {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1, "bias": None}
        return _layer_fault(conv, "proj.conv", nn.Conv2d, expected)

    @staticmethod
    def used(module: Any) -> set[str]:
        powers = {f"hpp.{i}.p" for i in range(len(module.hpp))}
        return powers | {"proj.conv.weight"} if module.flag else powers

    def trials(self) -> list[Trial]:
        module: Any = self.module
        c = module.proj.conv.in_channels if module.flag else 4
        rows = sum(module.split_param)
        lengths = torch.tensor([2, 3], device=module.hpp[0].p.device)
        return [((2, c, 3, rows, 3), None), ((1, c, 5, rows, 3), [lengths])]

    def defined(self, x: Any, *others: Any) -> bool:
        if not _is_map(x, 5) or x.shape[3] != sum(_split(self.module)):
            return False
        (seq_lens,) = others
        if seq_lens is None:
            return True
        return x.shape[0] == 1 and min(seq_lens, default=0) > 0 and sum(seq_lens) == x.shape[2]

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        module: Any = self.module
        proj = module.proj.conv.weight[:, :, 0, 0] if module.flag else None
        powers = torch.cat([pool.p for pool in module.hpp])
        pooled = functional.astp(x, proj, powers, list(module.split_param), seq_lens=others[0])
        return _as_torch_types_it(pooled, x, powers)

    def bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        values = super().bound(args, kwargs)
        if values is None or values[1] is None:
            return values
        return [values[0], _lengths(values[1])]


class Fta(FastForward):
    """Frame maxima over windows of 3 and of 5, mixed by a gate for every region."""

    kind = "FTA"
    operator = "fta"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        return _has_regions(module, "mma")

    @staticmethod
    def fault(module: Any) -> str | None:
        reason = _regions_fault(module, "mma", _unit_fault)
        if reason:
            return reason
        sizes = {size for unit in module.mma for fc in unit.fcs for size in (fc.in_channels, fc.out_channels)}
        return None if len(sizes) == 1 else f"the gates have different channels: {sorted(sizes)}"

    @staticmethod
    def used(module: Any) -> set[str]:
        return {
            f"mma.{i}.fcs.{k}.{kind}" for i in range(len(module.mma)) for k in (0, 1) for kind in ("weight", "bias")
        }

    def trials(self) -> list[Trial]:
        module: Any = self.module
        return [((2, module.mma[0].fcs[0].in_channels, 7, sum(module.split_param), 3),)]

    def defined(self, x: Any, *others: Any) -> bool:
        return _is_map(x, 5) and x.shape[3] == sum(_split(self.module)) and x.shape[2] >= 3

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        module: Any = self.module
        weights = torch.stack([torch.stack([fc.weight[:, :, 0] for fc in unit.fcs]) for unit in module.mma])
        biases = torch.stack([torch.stack([fc.bias for fc in unit.fcs]) for unit in module.mma])
        y = functional.fta(x, weights, biases, list(module.split_param))
        return self._laid_out(y)


class StripPool(FastForward):
    """Generalised mean of equal strips of rows; the frames are reduced already."""

    kind = "strip pool"
    operator = "astp"

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        return hasattr(module, "bin_num") and isinstance(getattr(module, "p", None), Tensor)

    @staticmethod
    def fault(module: Any) -> str | None:
        return _pool_fault(module, "")

    @staticmethod
    def used(module: Any) -> set[str]:
        return {"p"}

    def trials(self) -> list[Trial]:
        module: Any = self.module
        return [((2, 3, 2 * module.bin_num[0], 3),)]

    def defined(self, x: Any, *others: Any) -> bool:
        module: Any = self.module
        return _is_map(x, 4) and x.shape[2] % module.bin_num[0] == 0

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        module: Any = self.module
        pooled = functional.strip_pool(x.unsqueeze(2), module.p, module.bin_num[0])
        return _as_torch_types_it(pooled, x, module.p)


KINDS: tuple[type[FastForward], ...] = (Arme, Astp, Fta, StripPool, PlainStage)


def _is_map(x: Tensor, dimensions: int) -> bool:
    return x.dim() == dimensions and x.dtype in FLOATING and 0 not in x.shape


def _split(module: Any) -> Sequence[int]:
    split: Sequence[int] = module.split_param
    return split


def _lengths(lengths: Any) -> list[int]:
    """The lengths in `seqL`, whose first entry holds them, wherever they are; [] for anything else."""
    try:
        first = lengths[0]
    except (TypeError, IndexError, KeyError):
        return []
    listed = first.tolist() if hasattr(first, "tolist") else first
    is_list = isinstance(listed, (list, tuple)) and all(type(length) is int for length in listed)
    return list(listed) if is_list else []


def _as_torch_lays_it(value: Any) -> Any:
    """A map contiguous, as a layer's own forward may expect it: accelerated layers before it may have changed that."""
    return value.contiguous() if isinstance(value, Tensor) else value


def _as_torch_types_it(pooled: Tensor, x: Tensor, powers: Tensor) -> Tensor:
    """`pooled` in the type that `x.pow(powers)` has in torch, contiguous as torch would leave it."""
    return pooled.to(torch.promote_types(x.dtype, powers.dtype)).contiguous()


def _holds_conv3d(module: nn.Module) -> bool:
    conv = getattr(module, "conv3d", None)
    return isinstance(conv, nn.Module) and not isinstance(conv, nn.ModuleList)


def _has_regions(module: nn.Module, units: str) -> bool:
    return hasattr(module, "split_param") and isinstance(getattr(module, units, None), nn.ModuleList)


def _regions_fault(module: Any, units: str, unit_fault: Callable[[Any, str], str | None]) -> str | None:
    """What is wrong with the split, or else with the first faulty of the regions' `units`."""
    reason = _split_fault(module, units)
    for i, unit in enumerate(getattr(module, units)):
        reason = reason or unit_fault(unit, f"{units}.{i}")
    return reason


def _split_fault(module: Any, units: str) -> str | None:
    split, count = module.split_param, len(getattr(module, units))
    if not isinstance(split, (list, tuple)) or not split or not all(type(r) is int and r > 0 for r in split):
        return f"split_param must be a list of row counts, got {split!r}"
    if len(split) != count:
        return f"split_param has {len(split)} regions, {units} holds {count} modules"
    m = getattr(module, "m", count)
    return None if m == count else f"m must be the number of regions, {count}, got {m!r}"


CONV3D = {
    "kernel_size": (3, 3, 3),
    "stride": (1, 1, 1),
    "padding": (1, 1, 1),
    "dilation": (1, 1, 1),
    "groups": 1,
    "padding_mode": "zeros",
    "bias": None,
}
CONV1D = {"kernel_size": (1,), "stride": (1,), "padding": (0,), "groups": 1}
FP_3 = {
    "kernel_size": (3, 1, 1),
    "stride": (3, 1, 1),
    "padding": (0, 0, 0),
    "dilation": (1, 1, 1),
    "ceil_mode": False,
    "return_indices": False,
}
FP_5 = {**FP_3, "kernel_size": (5, 1, 1), "padding": (1, 0, 0)}


def _convolution_fault(holder: nn.Module, name: str) -> str | None:
    if not _holds_conv3d(holder):
        return f"{name} is a {type(holder).__name__}, expected a module that holds one conv3d"
    others = [other for other, _ in holder.named_children() if other != "conv3d"]
    if others:
        return f"{name} holds {', '.join(others)} beside its conv3d"
    return _layer_fault(getattr(holder, "conv3d", None), f"{name}.conv3d", nn.Conv3d, CONV3D)


def _activation_fault(module: nn.Module, name: str) -> str | None:
    if not isinstance(module, nn.LeakyReLU):
        return f"{name} is a {type(module).__name__}, expected nn.LeakyReLU"
    if not module.negative_slope >= 0:
        return f"{name} has the slope {module.negative_slope}, expected at least 0"
    return _layer_fault(module, name, nn.LeakyReLU, {})


def _unit_fault(unit: Any, name: str) -> str | None:
    for pool, expected in (("FP_3", FP_3), ("FP_5", FP_5)):
        reason = _layer_fault(getattr(unit, pool, None), f"{name}.{pool}", nn.MaxPool3d, expected)
        if reason:
            return reason
    fcs: Any = getattr(unit, "fcs", None)
    if not isinstance(fcs, nn.ModuleList) or len(fcs) != 2:
        return f"{name}.fcs must be an nn.ModuleList of two nn.Conv1d"
    reasons = [_gate_fault(fc, f"{name}.fcs.{k}") for k, fc in enumerate(fcs)]
    return next(filter(None, reasons), None)


def _gate_fault(fc: Any, name: str) -> str | None:
    reason = _layer_fault(fc, name, nn.Conv1d, CONV1D)
    return f"{name} has no bias" if not reason and fc.bias is None else reason


def _pool_fault(pool: Any, name: str) -> str | None:
    prefix = f"{name}." if name else ""
    bins, p, eps = (getattr(pool, attribute, None) for attribute in ("bin_num", "p", "eps"))
    if not isinstance(bins, (list, tuple)) or len(bins) != 1 or type(bins[0]) is not int or bins[0] < 1:
        return f"{prefix}bin_num must be a list of one number, got {bins!r}"
    if not isinstance(p, nn.Parameter) or tuple(p.shape) != (1,):
        got = list(p.shape) if isinstance(p, Tensor) else type(p).__name__
        return f"{prefix}p must be a Parameter of shape [1], got {got}"
    return None if eps == SMALLEST else f"{prefix}eps must be {SMALLEST}, got {eps!r}"


def _region_pool_fault(pool: Any, name: str) -> str | None:
    reason = _pool_fault(pool, name)
    if not reason and pool.bin_num[0] != 1:
        reason = f"{name}.bin_num must be [1], got {list(pool.bin_num)}"
    return reason


def _layer_fault(layer: Any, name: str, kind: type[nn.Module], expected: dict[str, Any]) -> str | None:
    """What keeps `layer` from being one of torch's layers of this kind, with these settings."""
    if not isinstance(layer, kind):
        return f"{name} is a {type(layer).__name__}, expected nn.{kind.__name__}"
    if parametrize.is_parametrized(layer):
        return f"{name} is parametrized"
    if any(isinstance(parameter, UninitializedParameter) for parameter in layer.parameters()):
        return f"{name} is not initialised yet"
    if type(layer).forward is not kind.forward:
        return f"{name} is a {type(layer).__name__} with a forward of its own"
    for attribute, value in expected.items():
        found = getattr(layer, attribute)
        if attribute == "bias" and found is not None:
            return f"{name} has a bias"
        if attribute != "bias" and _spread(found, value) != value:
            return f"{name} has {attribute} {found}, expected {value}"
    return None


def _spread(found: Any, like: Any) -> Any:
    """A setting that torch lets stand for all axes, written for every axis as in `like`."""
    return (found,) * len(like) if isinstance(like, tuple) and type(found) is int else found


def _argument_names(kind: type[FastForward], module: nn.Module) -> tuple[list[str], str | None]:
    """The names under which callers pass what `kind` takes, and why the module's forward cannot be this kind's."""
    try:
        parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return [], "its forward has no signature that can be read"
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional[kind.arguments :] if p.default is p.empty]
    needed += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(positional) < kind.arguments or needed:
        taken = ", ".join(p.name for p in parameters)
        return [], f"its forward takes ({taken}), expected {kind.arguments} argument{'s' * (kind.arguments > 1)}"
    return [p.name for p in positional[: kind.arguments]], None


def _outer_fault(module: nn.Module) -> str | None:
    if not isinstance(vars(module).get("forward"), (FastForward, type(None))):
        return "somebody has replaced its forward on the instance"
    if parametrize.is_parametrized(module):
        return "it is parametrized"
    return None


def _inner_fault(kind: type[FastForward], module: nn.Module) -> str | None:
    """State and hooks inside the layer that our forward would not see."""
    for name, inner in module.named_modules():
        if inner is module:
            continue
        if _has_hooks(inner):
            return f"{name} has hooks, which would not be called"
        if "forward" in vars(inner) and not _is_accelerated(inner):
            return f"{name} has a forward replaced on the instance"
    used = kind.used(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name in [*parameters, *(name for name, _ in module.named_buffers(remove_duplicate=False))]:
        if name not in used:
            return f"{name} is no part of a layer of this kind"
    for name, parameter in parameters.items():
        reason = _parameter_fault(parameter)
        if reason:
            return f"{name} {reason}"
    places = {(parameter.device, parameter.dtype) for parameter in parameters.values()}
    return None if len(places) == 1 else "its parameters differ in device or dtype"


def _parameter_fault(parameter: Tensor) -> str | None:
    if parameter.is_meta:
        return "is on the meta device, where nothing can be compared; accelerate it once it has values"
    if type(parameter) is not nn.Parameter:
        return f"is a {type(parameter).__name__}, expected nn.Parameter"
    return None if parameter.dtype in FLOATING else f"is of {parameter.dtype}"


def _has_hooks(module: nn.Module) -> bool:
    return any(getattr(module, name) for name in HOOKS)


OF_ANSWERS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 5e-2}
"""How far the answers of one layer may lie apart, relative to the largest."""
OF_GRADIENTS = {torch.float64: 1e-7, torch.float32: 1e-3}
"""The same of gradients; in narrower types only their existence is compared."""
ON_ACCELERATORS = 20
"""Times as far: an accelerator may round factors to ten bits."""


SCALES: dict[str, Callable[[Any, torch.Generator], Tensor]] = {
    "large numbers": lambda shape, generator: 100 * torch.randn(shape, generator=generator),
    "small numbers": lambda shape, generator: torch.randn(shape, generator=generator) / 100,
    "numbers up to 255": lambda shape, generator: torch.randint(256, shape, generator=generator),
}


def _difference(forward: FastForward) -> str | None:
    """How the operator's answer or gradients differ from those of the module's own forward, on small inputs."""
    owned = next(forward.module.parameters())
    with _undisturbed(owned):
        generator = torch.Generator().manual_seed(0)
        for training in (True, False):
            mode = f"in {'training' if training else 'evaluation'} mode"
            tried = _tried(forward, owned.dtype, training)
            for shape, *others in tried.trials():
                x = torch.randn(shape, generator=generator).to(owned)
                reason = _compared_on(tried, x, others, _answer, owned.dtype)
                if reason:
                    return f"{reason} {mode}"
        reason = _difference_of_scale(_tried(forward, torch.float64, False), generator)
        if reason or not has_autocast(owned.device.type):
            return reason
        tried = _tried(forward, torch.float32, False)
        reason = _difference_under_autocast(tried, generator)
        forward.under_autocast = tried.under_autocast
    return reason


def _difference_of_scale(tried: FastForward, generator: torch.Generator) -> str | None:
    """The same for numbers of other sizes, in float64: gates turn rounding of large numbers into other answers."""
    owned = next(tried.module.parameters())
    for scale, draw in SCALES.items():
        for shape, *others in tried.trials():
            reason = _compared_on(tried, draw(shape, generator).to(owned), others, _value, torch.float64)
            if reason:
                return f"{reason} on {scale} in evaluation mode"
    return None


def _difference_under_autocast(tried: FastForward, generator: torch.Generator) -> str | None:
    """The same under autocast, where `tried` learns which types its own forward returns."""
    owned = next(tried.module.parameters())
    device = owned.device.type
    narrow = torch.get_autocast_dtype(device)
    for shape, *others in tried.trials():
        for dtype in (torch.float32, narrow):
            x = torch.randn(shape, generator=generator).to(owned).to(dtype)
            with torch.autocast(device, narrow):
                try:
                    found = _tensor(_own(tried)(x.clone(), *others)).dtype
                except Exception:  # and so it fails for its callers
                    continue
                tried.under_autocast[dtype == narrow] = None if found == narrow else found
                reason = _compared_on(tried, x, others, _value, narrow)
            if reason:
                return f"{reason} under autocast"
    return None


@contextmanager
def _undisturbed(owned: Tensor) -> Iterator[None]:
    """The caller's random states and contexts count for nothing here, and are as they were afterwards."""
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[owned.device] if owned.device.type == "cuda" else []))
        stack.enter_context(torch.inference_mode(False))  # which lets gradients be recorded, too
        stack.enter_context(without_autocast(owned))
        stack.enter_context(use_algorithm("auto"))
        stack.enter_context(torch.device("cpu"))  # where inputs are drawn, under torch.device("meta"), too
        yield


def _tried(forward: FastForward, dtype: torch.dtype, training: bool) -> FastForward:
    """The same forward for a copy of its module, of this type and in this mode."""
    module = _copied(forward.module, dtype, {})
    for inner in module.modules():
        inner.training = training
    return type(forward)(module, forward.names)


def _copied(module: nn.Module, dtype: torch.dtype, copies: dict[int, Any]) -> nn.Module:
    """The module and those inside, without hooks, and parameters of this type: what is done to them leaves no trace.

    Not `copy.deepcopy`, which would follow a hook or an attribute to the whole model and beyond.
    """
    if id(module) in copies:
        made: nn.Module = copies[id(module)]
        return made
    copied = copies[id(module)] = type(module).__new__(type(module))
    state = {name: value for name, value in vars(module).items() if name != "forward"}
    state.update((name, hooks) for name, hooks in vars(nn.Module()).items() if "hooks" in name)
    state["_parameters"] = dict(module._parameters)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            values = parameter.detach().to(dtype, copy=True)
            state["_parameters"][name] = copies.setdefault(
                id(parameter), nn.Parameter(values, requires_grad=parameter.requires_grad)
            )
    state["_modules"] = {
        name: child if child is None else _copied(child, dtype, copies) for name, child in module._modules.items()
    }
    vars(copied).update(state)
    return copied


def _own(forward: FastForward) -> Callable[..., Any]:
    return lambda *args: type(forward.module).forward(forward.module, *args)


def _ours(forward: FastForward) -> Callable[..., Tensor]:
    """The operator, which must not leave a trial to the own forward as a call may."""
    return lambda x, *others: forward.typed(forward.compute(*(forward.bound((x, *others), {}) or [])), x)


def _compared_on(
    forward: FastForward, x: Tensor, others: Sequence[Any], ask: Callable[..., Answer], dtype: torch.dtype
) -> str | None:
    """How ours differs from the module's own forward on `x`, beyond rounding in `dtype`."""
    try:
        expected = ask(_own(forward), forward.module, x, others)
    except Exception as fault:
        return f"its own forward fails on a small input ({_first_line(fault)})"
    try:
        got = ask(_ours(forward), forward.module, x, others)
    except Exception as fault:
        return f"hstl_fast cannot compute it ({_first_line(fault)})"
    return _compared(got, expected, dtype, 1 if x.device.type == "cpu" else ON_ACCELERATORS)


def _value(forward: Callable[..., Any], module: nn.Module, x: Tensor, others: Sequence[Any]) -> Answer:
    """The answer to `x` alone."""
    return _tensor(forward(x.clone(), *others)).detach().cpu(), []


def _answer(forward: Callable[..., Any], module: nn.Module, x: Tensor, others: Sequence[Any]) -> Answer:
    """The answer to `x`, and the gradients of a fixed direction of it: of `x` and of the parameters that want one."""
    x = x.clone().requires_grad_()
    y = _tensor(forward(x * 1, *others))  # the product may be changed in place, a leaf may not
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    if not y.requires_grad:
        return y.cpu(), [None] * len(leaves)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(y)
    gradients = torch.autograd.grad(y, leaves, direction, allow_unused=True)
    return y.detach().cpu(), [None if gradient is None else gradient.cpu() for gradient in gradients]


def _tensor(y: Any) -> Tensor:
    if not isinstance(y, Tensor):
        raise TypeError(f"it returned a {type(y).__name__}")
    return y


def _compared(got: Answer, expected: Answer, dtype: torch.dtype, times: int) -> str | None:
    """How the two differ beyond so many times the rounding of `dtype`."""
    (y, gradients), (own_y, own_gradients) = got, expected
    if y.shape != own_y.shape:
        return f"its own forward returns {list(own_y.shape)}, ours {list(y.shape)},"
    if y.dtype != own_y.dtype:
        return f"its own forward returns {own_y.dtype}, ours {y.dtype},"
    if not own_y.isfinite().all() or not own_y.any():
        return "its own forward answers with zeros or infinities only, which shows nothing,"
    distance = float((y.double() - own_y.double()).abs().max() / own_y.double().abs().max())
    if not distance <= times * OF_ANSWERS[dtype]:
        return f"its own forward answers differently (by {distance:.1g} of the largest value)"
    for of_ours, of_own in zip(gradients, own_gradients):
        if (of_ours is None) != (of_own is None):
            return "its own forward stops a gradient, or passes one on that ours stops,"
        if of_ours is None or of_own is None or dtype not in OF_GRADIENTS:
            continue
        distance = float((of_ours.double() - of_own.double()).norm())
        if not distance <= times * OF_GRADIENTS[dtype] * float(of_own.double().norm()):
            return "its own forward has other gradients"
    return None


def _first_line(fault: Exception) -> str:
    lines = str(fault).strip().splitlines()
    return lines[0] if lines else type(fault).__name__


def _backend_notes(modules: Sequence[nn.Module]) -> list[str]:
    """Devices on which the replaced layers compute in plain torch, and gain nothing."""
    owned = [next(module.parameters()) for module in modules]
    places = {(p.device.type, p.dtype): None for p in owned}
    return [
        f"on {device} in {dtype} the replaced layers run on the reference backend, in plain torch, and gain nothing"
        for device, dtype in places
        if _dispatch.choose("arme", device, dtype, None) == "reference"
    ]
