"""Prepared calls of native functions: eager execution runs one at once, an execution plan appends it.

Every native function has one class on its operator's page; the class's fields are the function's arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from types import ModuleType
from typing import Any, ClassVar, Protocol, get_type_hints

from torch import Tensor

# Types of arguments that are passed as they are.
_NUMBERS = frozenset((int, float, bool, list))


class Memory(Protocol):
    """A tensor, or a buffer of a plan that is allocated later."""

    def data_ptr(self) -> int:
        """The address of the first byte."""
        ...


@dataclass(slots=True, eq=False)
class NativeCall:
    """One call of the native function `name`, whose positional arguments are the fields, in order.

    The fields are those of the function's struct in the backend's operators.h; the first call compares their names. A
    tensor or buffer stands for the address of its memory, which is asked for when the call runs; None stands for no
    memory; a tuple stands for its elements.
    """

    name: ClassVar[str]

    @staticmethod
    def binary() -> ModuleType:
        """The binary whose function is called; raises RuntimeError where it cannot be used."""
        raise NotImplementedError

    def arguments(self) -> list[Any]:
        """The arguments of the native function: addresses and numbers."""
        given: list[Any] = []
        for value in _values_of(type(self))(self):  # type: ignore[arg-type]
            if value is None:
                given.append(0)
            elif isinstance(value, Tensor):
                given.append(value.data_ptr())
            elif isinstance(value, tuple):
                given.extend(value if _NUMBERS.issuperset(map(type, value)) else map(_address, value))
            else:
                given.append(_address(value))
        return given

    def __call__(self) -> Any:
        """Run the native function."""
        return getattr(self.binary(), self.name)(*self.arguments())


@functools.cache
def _values_of(kind: type[NativeCall]) -> Callable[[NativeCall], tuple[Any, ...]]:
    """A function that reads the fields of a call, in order."""
    names, expected = argument_names(kind), kind.binary().fields[kind.name]
    if names != expected:
        raise RuntimeError(f"{kind.name}: the native function expects {expected}, its call has {names}")
    return attrgetter(*(field.name for field in fields(kind)))


def argument_names(kind: type[NativeCall]) -> tuple[str, ...]:
    """Names of a call's arguments: its fields, and in place of a tuple that tuple's own."""
    hints = get_type_hints(kind)
    names: list[str] = []
    for field in fields(kind):
        names.extend(getattr(hints[field.name], "_fields", (field.name,)))
    return tuple(names)


def _address(argument: Any) -> Any:
    if argument is None:
        return 0
    return argument.data_ptr() if hasattr(argument, "data_ptr") else argument


def contiguous(x: Tensor | None) -> Tensor | None:
    """`x` without gradient, dense in row-major order; None stays None."""
    return None if x is None else x.detach().contiguous()
