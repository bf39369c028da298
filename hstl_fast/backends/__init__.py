"""The backends that compute the operators: a folder each, imported when it is first asked for.

A backend's package holds `why_not(operator, device, dtype)`, which says why it cannot compute the operator for
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
# Backends for GPUs. They read silhouettes as bytes, and their tables may be static ones, for CUDA graphs.
ON_GPUS = ("cuda", "triton")
# Backends whose kernels have never run on a GPU: there, the automatic choice prefers any other.
UNVERIFIED = frozenset({"cuda", "triton"})
# The backends that compute an operator, the first that can, where a context or the environment names a backend that
# has no kernels for it.
STAND_INS = {("cuda", "fta"): ("triton", "reference")}
# The longest sequence, in frames, whose maxima a two-byte frame index can name.
LONGEST = torch.iinfo(torch.int16).max

_implementations: dict[tuple[str, str], Callable[..., Any]] = {}


def implements(name: str, backend: str) -> Callable[[_Function], _Function]:
    """Register the decorated function as a backend's implementation of a private operator.

    The function takes the operator's arguments but for the last, which is the backend's name.

    Args:
        name: The operator's name in `torch.ops.hstl_fast`.
        backend: The backend's name.

    Returns:
        The decorator, which returns the function as it is.
    """

    def register(function: _Function) -> _Function:
        _implementations[name, backend] = function
        return function

    return register


def implementation(name: str, backend: str) -> Callable[..., Any]:
    """Find the function that computes a private operator; the first call imports the backend's kernels.

    Args:
        name: The operator's name in `torch.ops.hstl_fast`.
        backend: The backend's name.

    Returns:
        The function that :func:`implements` registered.

    Raises:
        NotImplementedError: The backend has no such function.
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
    """Import the package of a backend, but not its kernels.

    Args:
        backend: One of `NATIVE`.

    Returns:
        The package, which has `why_not` and the constants of its kernels.
    """
    return importlib.import_module(f"hstl_fast.backends.{backend}")


@constant_when_compiled
def why_not(backend: str, operator: str, device: torch.device | str, dtype: torch.dtype) -> str | None:
    """Return why a backend cannot compute an operator.

    Args:
        backend: One of `NATIVE`.
        operator: "arme", "astp" or "fta"; no backend computes another one.
        device: Where the tensors are; "cuda" without an index is the current GPU.
        dtype: The input's type.

    Returns:
        A reason; None if the backend can compute the operator for tensors of this device and type.
    """
    reason: str | None = package(backend).why_not(operator, torch.device(device), dtype)
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
    """Return how a backend's dgrad and wgrad take the activation into account.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if they apply LeakyReLU's slope to the gradients that they read.
    """
    return bool(package(backend).FUSES_LEAKY_BACKWARD)


@constant_when_compiled
def fuses_into_dgrad(backend: str) -> bool:
    """Return whether a backend's dgrad also does what follows it.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if it computes `arme_dgrad_fused`.
    """
    return bool(package(backend).FUSES_INTO_DGRAD)


@constant_when_compiled
def reads_outside_support(backend: str) -> bool:
    """Return whether a backend's convolutions read the input outside its support.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if they do: the input then has to be 0 there.
    """
    return bool(package(backend).READS_OUTSIDE_SUPPORT)


@constant_when_compiled
def widens_maps(backend: str) -> bool:
    """Return the type of a backend's frame maxima of float16 and bfloat16 maps.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if they are float32, False if they have the map's type.
    """
    return bool(package(backend).WIDENS_MAPS)


@constant_when_compiled
def finds_power_gradient(backend: str) -> bool:
    """Return whether a backend's `astp_forward` also finds the derivative by the powers.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if it does; otherwise `astp_backward` finds it.
    """
    return bool(package(backend).FINDS_POWER_GRADIENT)


@constant_when_compiled
def pools_for_inference(backend: str) -> bool:
    """Return whether a backend has `astp_inference`, which leaves out what only a gradient wants.

    Args:
        backend: One of `NATIVE`.

    Returns:
        True if it has; otherwise `astp_forward` is called.
    """
    return bool(package(backend).POOLS_FOR_INFERENCE)


def why_too_long(backend: str, longest: int) -> str | None:
    """Return why a backend cannot pool sequences of so many frames.

    Args:
        backend: One of `NATIVE`.
        longest: Frames of the longest sequence.

    Returns:
        A reason; None if the backend can pool them.
    """
    if longest <= LONGEST:
        return None
    return f"the {backend} backend pools sequences of at most {LONGEST} frames, got {longest}"


def indexable(lens: list[int], backend: str) -> list[int]:
    """Check lengths again: a compiled caller may bring other lengths than the backend was chosen for.

    Args:
        lens: Frames of every sequence.
        backend: One of `NATIVE`.

    Returns:
        `lens`.

    Raises:
        ValueError: A sequence is too long for the frame index.
    """
    reason = why_too_long(backend, max(lens))
    if reason is not None:
        raise ValueError(reason)
    return lens
