"""The backends that compute the operators: a folder each, imported when it is first asked for.

A backend's package holds `why_not(operator, device_type, dtype)`, which says why it cannot compute the operator for
such tensors (None if it can), and the constants that the functions below ask for. Its module `operators` registers, by
:func:`implements`, a function for each private operator `torch.ops.hstl_fast.<name>`. The operators' pages,
`hstl_fast/ops`, say what these functions take and return. CONTRIBUTING.md lists the steps that add a backend.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import torch

from hstl_fast._torch_private import constant_when_compiled

_Function = TypeVar("_Function", bound=Callable[..., Any])

# Backends with kernels of their own. The reference is plain torch and needs no folder.
NATIVE = ("cpu", "triton", "cuda")
# Backends whose kernels have never run on a GPU: there, the automatic choice prefers any other.
UNVERIFIED = frozenset({"triton"})
# The longest sequence, in frames, whose maxima a two-byte frame index can name.
LONGEST = torch.iinfo(torch.int16).max

_implementations: dict[tuple[str, str], Callable[..., Any]] = {}


def implements(name: str, backend: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as what computes the private operator `name` on `backend`.

    It takes the operator's arguments but for the last, which is the backend's name.
    """

    def register(function: _Function) -> _Function:
        _implementations[name, backend] = function
        return function

    return register


def implementation(name: str, backend: str) -> Callable[..., Any]:
    """The function that computes the private operator `name` on `backend`.

    Raises:
        NotImplementedError: the backend has no such function.
    """
    found = _implementations.get((name, backend))
    if found is None:
        importlib.import_module(f"hstl_fast.backends.{backend}.operators")
        found = _implementations.get((name, backend))
    if found is None:
        raise NotImplementedError(f"the {backend} backend does not compute {name}")
    return found


@functools.cache
def package(backend: str) -> ModuleType:
    """The backend's package, which answers `why_not`; its kernels are not imported yet."""
    return importlib.import_module(f"hstl_fast.backends.{backend}")


@constant_when_compiled
def why_not(backend: str, operator: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Return why a backend cannot compute an operator.

    Args:
        backend: One of `NATIVE`.
        operator: "arme", "astp" or "fta"; no backend computes another one.
        device_type: "cpu", "cuda" or another.
        dtype: The input's type.

    Returns:
        A reason; None if the backend can compute the operator for tensors of this device and type.
    """
    reason: str | None = package(backend).why_not(operator, device_type, dtype)
    return reason


def wrong_setting(backend: str) -> str | None:
    """Return why a variable of the environment keeps a backend from running.

    Args:
        backend: A backend's name.

    Returns:
        A reason that begins with the variable's name; None if no variable does.
    """
    if backend not in NATIVE:
        return None
    found: str | None = getattr(package(backend), "wrong_setting", lambda: None)()
    return found


@constant_when_compiled
def fuses_leaky_backward(backend: str) -> bool:
    """Whether the backend's dgrad and wgrad apply LeakyReLU's slope to the gradients they read."""
    return bool(package(backend).FUSES_LEAKY_BACKWARD)


@constant_when_compiled
def reads_outside_support(backend: str) -> bool:
    """Whether the backend's convolutions read what stands outside the input's support, which then has to be 0."""
    return bool(package(backend).READS_OUTSIDE_SUPPORT)


@constant_when_compiled
def widens_maps(backend: str) -> bool:
    """Whether the backend computes frame maxima of float16 and bfloat16 maps as float32."""
    return bool(package(backend).WIDENS_MAPS)


@constant_when_compiled
def finds_power_gradient(backend: str) -> bool:
    """Whether the backend's `astp_forward` also returns the derivative by the powers."""
    return bool(package(backend).FINDS_POWER_GRADIENT)


def why_too_long(backend: str, longest: int) -> str | None:
    """Why `backend` cannot pool sequences of so many frames; None if it can."""
    if longest <= LONGEST:
        return None
    return f"the {backend} backend pools sequences of at most {LONGEST} frames, got {longest}"


def indexable(lens: list[int], backend: str) -> list[int]:
    """`lens`, checked again: a compiled caller may bring other lengths than the backend was chosen for.

    Raises:
        ValueError: a sequence is too long for the frame index.
    """
    reason = why_too_long(backend, max(lens))
    if reason is not None:
        raise ValueError(reason)
    return lens
