"""The forward that an accelerated layer is given, and how it notices that the layer is no longer the one compared.

A replaced layer stays the object it was: only its instance gets a `forward`, which reads the layer's own parameters at
every call. The layer's class, its other instances, parameters, buffers, hooks and modes are not touched.
"""

import inspect
from collections.abc import Iterable, Sequence
from types import CodeType, MethodType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast._torch_private import (
    children_of,
    constant_when_compiled,
    is_fake,
    is_tracing,
    parameters_of,
    under_transforms,
)
from hstl_fast._untouched import has_hooks, has_own_forward, inherits_forward, known_class
from hstl_fast.drop_in.costs import Expected, Situation
from hstl_fast.layout import FLOATING
from hstl_fast.ops import _dispatch
from hstl_fast.ops._library import has_autocast

# The settings of the layers, of their pools and of torch's modules inside. A slope is read at every call instead.
SETTINGS = (
    *("split_param", "m", "flag", "bin_num", "eps", "kernel_size", "stride", "padding", "dilation", "groups"),
    *("padding_mode", "ceil_mode", "return_indices", "halving", "fm_sign", "p"),
)

# Sizes for which a layer keeps in mind whether the operator pays.
MOST_DECISIONS = 256

# The shape of a small input, and the arguments that are passed beside it.
Trial = tuple[Any, ...]


class _OwnSignature:
    """The signature of the layer's own forward, which torch.export and others read the arguments' names from."""

    def __get__(self, instance: "FastForward | None", owner: type) -> inspect.Signature:
        if instance is None:
            raise AttributeError("__signature__")  # the class itself is called with other arguments
        return inspect.signature(MethodType(type(instance.module).forward, instance.module))


class FastForward:
    """The `forward` of an accelerated layer; an object that knows its module, so that copies and pickles carry it.

    Args:
        module: The layer.
        names: The names of the layer's arguments, under which callers may pass them.
    """

    kind: ClassVar[str]
    arguments: ClassVar[int] = 1
    # Why layers of this kind keep their own forward, though nothing is wrong with them; empty where they do not.
    left: ClassVar[str] = ""
    __signature__ = _OwnSignature()

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        self.module = module
        self.names = tuple(names)
        self.channels_last = True  # a torch.memory_format cannot be saved by torch.save
        self.own_takes_any_layout = False
        self.decisions: dict[tuple[tuple[int, ...], Situation], bool] = {}
        self.snapshots = [Snapshot.of(inner, is_layer=inner is module) for inner in module.modules()]
        # The type of the own forward's output (None: autocast's) for a float32 input, and (True) for autocast's type.
        self.autocast_dtypes: dict[bool, torch.dtype | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the operator's output, or the own forward's where the operator does not define one."""
        values = self.bind(args, kwargs)
        if values is None or not self.accepts(*values):
            return self._own_contiguous(args, kwargs)
        if not self.pays(values[0]):  # asked first, since the answer costs least
            x = values[0]
            is_free = x.is_contiguous() or (self.own_takes_any_layout and self._is_as_compared(x))
            return self._own(args, kwargs) if is_free else self._own_contiguous(args, kwargs)
        if not self._is_as_compared(values[0]):
            return self._own_contiguous(args, kwargs)
        return self.cast(self.compute(*values), values[0])

    @property
    def __code__(self) -> CodeType:
        """The code of the own forward, which torch.export names its place by."""
        code: CodeType = type(self.module).forward.__code__
        return code

    def _own(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        return type(self.module).forward(self.module, *args, **kwargs)

    def _own_contiguous(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        return self._own(map(_contiguous, args), {name: _contiguous(value) for name, value in kwargs.items()})

    def pays(self, x: Tensor) -> bool:
        """Return whether the operator is expected to be faster than the own forward for an input like `x`.

        What is compiled, exported, traced or transformed by torch.func takes the operator for every size, and so do
        types and devices without a model of costs.
        """
        if torch.compiler.is_compiling() or is_tracing() or under_transforms() or is_fake(x) or not has_costs(x):
            return True
        key = (tuple(x.shape), self.situation(x))
        decision = self.decisions.get(key)
        if decision is None:
            if not self.is_unchanged():
                return True  # it has no costs that are known, and is left to its own forward afterwards
            if len(self.decisions) >= MOST_DECISIONS:
                self.decisions.clear()  # another thread may do so at any time
            expected = self.expected(*key)
            self.decisions[key] = decision = expected is None or expected.pays
        return decision

    def situation(self, x: Tensor) -> Situation:
        """Return what the cost of a call with `x` depends on beside its shape."""
        training = torch.is_grad_enabled() and (
            x.requires_grad or any(parameter.requires_grad for parameter in self.module.parameters())
        )
        is_narrow = x.dtype != torch.float32 or _is_autocast(x)
        is_last = x.dim() == 4 or x.is_contiguous(memory_format=torch.channels_last_3d)
        return Situation(training, is_last, not self.channels_last, is_narrow)

    def usual_shape(self) -> tuple[int, ...]:
        """Return the shape of an input as it is usual for such a layer, for which the report says what is expected."""
        raise NotImplementedError

    def expected(self, shape: tuple[int, ...], situation: Situation) -> Expected | None:
        """Return the seconds that both ways are expected to take for an input of this shape; None if not known."""
        raise NotImplementedError

    @classmethod
    def forms(cls) -> "tuple[type[FastForward], ...]":
        """Return the forms of this kind that a module may have; the comparison says which one it has."""
        return (cls,)

    @staticmethod
    def looks_like(module: nn.Module) -> bool:
        """Return whether `module` has the attributes of this kind of layer, right or wrong."""
        raise NotImplementedError

    @staticmethod
    def check(module: Any) -> None:
        """Raise `Mismatch` if the structure of `module` is not that of this kind of layer."""
        raise NotImplementedError

    @staticmethod
    def used(module: Any) -> set[str]:
        """Return the names of the parameters that `compute` reads, for a module that passed `check`."""
        raise NotImplementedError

    def trials(self) -> list[Trial]:
        """Return shapes of small inputs, each with the other arguments."""
        raise NotImplementedError

    def accepts(self, x: Any, *others: Any) -> bool:
        """Return whether the operator defines an output for these arguments."""
        raise NotImplementedError

    def compute(self, x: Tensor, *others: Any) -> Tensor:
        """Return the operator's output for the module's own parameters."""
        raise NotImplementedError

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any] | None:
        """Return the arguments in order; None if the call is none that the operator takes."""
        if len(args) > len(self.names) or any(key not in self.names[len(args) :] for key in kwargs):
            return None
        values = [*args, *(kwargs.get(name) for name in self.names[len(args) :])]
        return values if isinstance(values[0], Tensor) else None

    def cast(self, y: Tensor, x: Tensor) -> Tensor:
        """Return `y` in the type of the own forward's output for `x`; it differs under autocast only."""
        if x.dtype == torch.float64 or not _is_autocast(x):
            return y
        narrow = torch.get_autocast_dtype(x.device.type)
        return y.to(self.autocast_dtypes[x.dtype == narrow] or narrow)

    def is_unchanged(self) -> bool:
        """Return whether hooks, modules and settings inside the layer are still those of the comparison."""
        try:
            return all(snapshot.is_unchanged() for snapshot in self.snapshots)
        except Exception:  # a setting that cannot be compared, such as a tensor
            return False

    def _in_memory_format(self, y: Tensor) -> Tensor:
        return y if self.channels_last else y.contiguous()

    def _is_as_compared(self, x: Tensor) -> bool:
        """Return whether the layer is the one that was compared, and the type of `x` one that was."""
        if x.dtype == torch.float64 or not _is_autocast(x):
            return self._is_still(x.dtype, x.dtype)
        is_narrow = x.dtype == torch.get_autocast_dtype(x.device.type)
        return is_narrow in self.autocast_dtypes and self._is_still(x.dtype, torch.float32)

    @constant_when_compiled
    def _is_still(self, *dtypes: torch.dtype) -> bool:
        """Return whether nothing inside has changed and every parameter has one of these types."""
        for snapshot in self.snapshots:
            for parameter in parameters_of(snapshot.module).values():
                if parameter is not None and parameter.dtype not in dtypes:
                    return False
        return self.is_unchanged()


class Snapshot(NamedTuple):
    """The state of a layer, or of a module inside it, at the time of the comparison.

    Attributes:
        module: The module.
        is_layer: Whether the module is the layer itself, whose hooks are called and whose forward is ours.
        kind: The known class whose forward the module had, or None.
        names: Names of attributes that our forward relies on.
        values: The modules inside, then the attributes' values in `vars(module)`.
        missing: Whether each parameter was None, as a convolution's bias may be.
    """

    module: nn.Module
    is_layer: bool
    kind: type[nn.Module] | None
    names: tuple[str, ...]
    values: tuple[Any, ...]
    missing: list[bool]

    @classmethod
    def of(cls, module: nn.Module, is_layer: bool) -> "Snapshot":
        """Return the snapshot of a module as it is now; lists and dicts are copied, since they may change in place."""
        names = tuple(name for name in SETTINGS if hasattr(module, name))
        values = (children_of(module), *(vars(module).get(name) for name in names))
        kept = (value.copy() if isinstance(value, (list, dict)) else value for value in values)
        kind = known_class(module)
        if kind is not None and not inherits_forward(module, kind):
            kind = None
        return cls(module, is_layer, kind, names, tuple(kept), [p is None for p in parameters_of(module).values()])

    def is_unchanged(self) -> bool:
        """Return whether the module is still in this state."""
        module = self.module
        if not self.is_layer and (has_hooks(module) or (has_own_forward(module) and not is_accelerated(module))):
            return False
        if self.kind is not None and not inherits_forward(module, self.kind):
            return False
        if (children_of(module), *map(vars(module).get, self.names)) != self.values:
            return False
        return [p is None for p in parameters_of(module).values()] == self.missing


def is_accelerated(module: nn.Module) -> bool:
    """Return whether the module has a forward of ours, made for this very module."""
    forward = vars(module).get("forward")
    return isinstance(forward, FastForward) and forward.module is module


def _is_autocast(x: Tensor) -> bool:
    return has_autocast(x.device.type) and torch.is_autocast_enabled(x.device.type)


def has_costs(x: Tensor) -> bool:
    """Return whether there is a model of costs for tensors of this device and type."""
    if x.device.type != "cpu" or x.dtype == torch.float64:
        return False
    return _dispatch.choose("arme", x.device, x.dtype, None) == "cpu"


def is_feature_map(x: Tensor, dimensions: int) -> bool:
    """Return whether `x` has this many dimensions, no empty one, and a floating type."""
    return x.dim() == dimensions and x.dtype in FLOATING and 0 not in x.shape


def _contiguous(value: Any) -> Any:
    """Return a tensor contiguous, as own forwards may need it: accelerated layers before may have left it otherwise."""
    return value.contiguous() if isinstance(value, Tensor) else value
