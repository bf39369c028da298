"""Whether a module is as its class was written: the same forward, no hooks, no parametrizations.

A computation that takes the place of `module(x)`, such as an operator, an execution plan or a CUDA graph, asks here
first, so that nothing a user has attached to the module is passed over in silence.

A *known class* is one whose forward was remembered here before a user could replace it: the classes of `torch.nn`, and
those that `remember_forwards` is called with.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from hstl_fast import _torch_private

# The forward of every known class, as it was when it was remembered.
_forwards: dict[type[nn.Module], Callable[..., Any]] = {}


def remember_forwards(*kinds: type[nn.Module]) -> None:
    """Make known classes of these, with the forwards that they have now; the forward of a known class is kept.

    Call it where the classes are defined or imported, before a user can have changed them.

    Args:
        *kinds: The classes.
    """
    for kind in kinds:
        _forwards.setdefault(kind, kind.forward)


def has_hooks(module: nn.Module) -> bool:
    """Return whether calling the module runs hooks of its own; hooks inside it and global ones do not count."""
    return _torch_private.has_hooks(module)


def has_own_forward(module: nn.Module) -> bool:
    """Return whether a forward was set on the instance, in place of its class's."""
    return "forward" in vars(module)


def known_class(module: nn.Module) -> type[nn.Module] | None:
    """Return the nearest known class that the module is an instance of, or None if there is none."""
    return next((kind for kind in type(module).__mro__ if kind in _forwards), None)


def inherits_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether the module's class has the forward that was remembered of a known class.

    Args:
        module: An instance of any class.
        kind: A class.

    Returns:
        False if the module's class has another forward, if the forward of `kind` has been replaced, or if `kind` is
        not known.
    """
    known = _forwards.get(kind)
    return known is not None and type(module).forward is known


def is_untouched(module: nn.Module, kind: type[nn.Module] | None = None) -> bool:
    """Return whether the module computes exactly what its class was written to compute, with nothing attached to it.

    Args:
        module: The module; modules inside it are not looked at.
        kind: The class that the module must be an instance of, not of a subclass. None accepts every known class and
            subclasses that inherit the forward of one.

    Returns:
        True if the forward is the one that was remembered of the class, none was set on the instance, and the module
        has no hooks and no parametrizations.
    """
    if kind is None:
        kind = known_class(module)
        if kind is None or parametrize.is_parametrized(module):  # which would make it an instance of a new class
            return False
    elif type(module) is not kind:
        return False
    return inherits_forward(module, kind) and not has_own_forward(module) and not has_hooks(module)


_classes = (value for value in vars(nn).values() if isinstance(value, type))
remember_forwards(*(kind for kind in _classes if issubclass(kind, nn.Module) and kind is not nn.Module))
