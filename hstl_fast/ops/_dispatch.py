"""Which backend computes an operator, by which algorithm, and why."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import torch

from hstl_fast import backends
from hstl_fast._torch_private import constant_when_compiled
from hstl_fast.backends import measured
from hstl_fast.backends.cpu import algorithm as cpu_algorithm
from hstl_fast.layout import FLOATING
from hstl_fast.options import ALGORITHM, BACKEND

OPERATORS = ("arme", "astp", "fta")
BACKENDS = ("auto", "reference", *backends.NATIVE)

_logger = logging.getLogger("hstl_fast")
_logged: set[tuple[str, ...]] = set()


def use_backend(name: str) -> AbstractContextManager[None]:
    """Make `name` the backend of every operator called in this context (this thread, this task).

    An explicit `backend=` argument wins over the context, the context over the environment variable HSTL_FAST_BACKEND.
    A function compiled by torch.compile keeps the backend it was compiled with. A backend that cannot run raises where
    it is used.

    Args:
        name: "auto", "reference", "cpu", "triton" or "cuda".

    Returns:
        A context manager.

    Raises:
        ValueError: the name is unknown.
    """
    return BACKEND.use(name)


def use_algorithm(name: str) -> AbstractContextManager[None]:
    """Make `name` the algorithm of every native convolution called in this context (this thread, this task).

    An explicit `algorithm=` argument wins over the context, the context over the environment variable
    HSTL_FAST_ALGORITHM. A function compiled by torch.compile keeps the algorithm it was compiled with. "winograd"
    raises RuntimeError where it cannot run.

    Args:
        name: "auto", "winograd" or "direct".

    Returns:
        A context manager.

    Raises:
        ValueError: the name is unknown.
    """
    return ALGORITHM.use(name)


def why_not(
    operator: str, backend: str, device: torch.device | str, dtype: torch.dtype, longest: int = 0
) -> str | None:
    """Return why a backend cannot compute an operator.

    The automatic choice, the exception for a backend asked for by name and the table of `hstl-fast info` all ask here.

    Args:
        operator: "arme", "astp" or "fta".
        backend: One of `BACKENDS` but "auto".
        device: Where the tensors are; "cuda" without an index is the current GPU.
        dtype: The input's type.
        longest: Frames of the longest sequence, where the operator depends on it.

    Returns:
        A reason; None if the backend can compute the operator for tensors of this device and type.
    """
    if dtype not in FLOATING:
        return f"{operator} computes float16, bfloat16, float32 and float64, not {dtype}"
    if backend == "reference":
        return None
    return backends.why_too_long(backend, longest) or backends.why_not(backend, operator, device, dtype)


def candidates(
    operator: str, device: torch.device | str, dtype: torch.dtype, widths: tuple[int, ...] = ()
) -> tuple[str, ...]:
    """List the backends that "auto" tries.

    Args:
        operator: "arme", "astp" or "fta".
        device: Where the tensors are.
        dtype: The input's type.
        widths: The layer's input and output channels, or one number for both; without any, all layers count together.

    Returns:
        Names of backends, the best one first. On a GPU, those that were measured on its generation come first, the
        fastest before the others, and kernels that no device has confirmed come last.
    """
    place = torch.device(device)
    if place.type == "cpu":
        return "cpu", "reference"
    if place.type == "meta":
        return ("reference",)
    found = measured.fastest_first(operator, place, dtype, widths) if place.type == "cuda" else ()
    verified = [name for name in backends.ON_GPUS if name not in backends.UNVERIFIED]
    unverified = [name for name in backends.ON_GPUS if name in backends.UNVERIFIED]
    return tuple(dict.fromkeys((*found, *verified, "reference", *unverified)))


def widths_of(*channels: int) -> tuple[int, ...]:
    """Return the argument `widths` of the functions here.

    Args:
        *channels: A layer's input and output channels, or one number for both.

    Returns:
        The channels; none while compiling, where they may not be known yet.
    """
    return () if torch.compiler.is_compiling() else channels


@constant_when_compiled
def choose(
    operator: str,
    device: torch.device | str,
    dtype: torch.dtype,
    backend: str | None,
    longest: int = 0,
    called: str = "",
    widths: tuple[int, ...] = (),
) -> str:
    """Choose the backend that computes an operator, by argument, context, environment or automatically.

    "auto" logs, once, why it fell back. Where a context or the environment names a backend without kernels for the
    operator, `backends.STAND_INS` computes it.

    Args:
        operator: "arme", "astp" or "fta".
        device: Where the tensors are.
        dtype: The input's type.
        backend: The caller's argument `backend`.
        longest: Frames of the longest sequence, where the operator depends on it.
        called: The public function that asks, for messages, where it is not named like the operator.
        widths: As for `candidates`.

    Returns:
        One of `BACKENDS` but "auto".

    Raises:
        RuntimeError: A backend asked for by name cannot run; the message says why.
        ValueError: A name is unknown, or a variable of the environment has a wrong value.
    """
    called = called or operator
    name = BACKEND.value(backend)
    if name == "auto":
        return _first(operator, candidates(operator, device, dtype, widths), device, dtype, longest, called)
    stand_ins = backends.STAND_INS.get((name, operator), ()) if backend is None else ()
    # A backend that others stand in for must be able to run: it computes the layers around this one.
    reason = why_not("arme" if stand_ins else operator, name, device, dtype, longest)
    if reason is not None:
        if reason == backends.wrong_setting(name):
            raise ValueError(reason)
        raise RuntimeError(f"backend {name!r} cannot run {called}: {reason}")
    return _first(operator, stand_ins, device, dtype, longest, called) if stand_ins else name


def _first(
    operator: str, names: tuple[str, ...], device: torch.device | str, dtype: torch.dtype, longest: int, called: str
) -> str:
    """The first of these backends that can compute the operator."""
    place, reasons = torch.device(device).type, list[str]()
    for candidate in names:
        reason = why_not(operator, candidate, device, dtype, longest)
        if reason is None:
            if (called, candidate, place, *reasons) not in _logged:
                _log(called, candidate, place, reasons)
            return candidate
        if reason == backends.wrong_setting(candidate):  # a wrong variable is an error, not a reason to fall back
            raise ValueError(reason)
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeError(f"no backend can run {called}: {'; '.join(reasons)}")


@constant_when_compiled
def choose_for_network(device: torch.device | str, dtype: torch.dtype) -> str:
    """Choose the backend whose private operators a network may call between its layers.

    Args:
        device: Where the network is.
        dtype: The type of the network's weights.

    Returns:
        The backend that computes "arme"; "reference" if it does not compute "astp" as well. "fta" may be another
        backend's: it needs the support of its output only.

    Raises:
        RuntimeError: The backend that is asked for by name cannot run; the message says why.
        ValueError: A variable of the environment has a wrong value.
    """
    chosen = choose("arme", device, dtype, None)
    return chosen if why_not("astp", chosen, device, dtype) is None else "reference"


def _log(called: str, chosen: str, device_type: str, reasons: list[str]) -> None:
    """Say which backend was chosen and why, and remember that it was said."""
    _logged.add((called, chosen, device_type, *reasons))
    because = f" ({'; '.join(reasons)})" if reasons else ""
    line = f"{called} on {device_type} runs on the backend {chosen!r}{because}"
    _logger.log(logging.WARNING if reasons else logging.DEBUG, line)


def why_no_winograd(backend: str, dtype: torch.dtype) -> str | None:
    """Return why a backend cannot compute `arme` in the Winograd domain.

    Args:
        backend: One of `BACKENDS` but "auto".
        dtype: The input's type.

    Returns:
        A reason; None if the backend can.
    """
    if backend != "cpu":
        return f"the {backend} backend has no Winograd convolution"
    return cpu_algorithm.why_no_winograd(dtype)


@constant_when_compiled
def choose_algorithm(algorithm: str | None, backend: str, dtype: torch.dtype) -> int:
    """Choose the private operators' argument `algorithm`, by argument, context or environment.

    Args:
        algorithm: The caller's argument `algorithm`.
        backend: The backend that computes `arme`.
        dtype: The input's type.

    Returns:
        AUTO, DIRECT or WINOGRAD of backends/cpu/algorithm.py.

    Raises:
        ValueError: The name is unknown.
        RuntimeError: Winograd is asked for by name and cannot run; the message says why.
    """
    name = ALGORITHM.value(algorithm)
    if name == "winograd":
        reason = why_no_winograd(backend, dtype)
        if reason is not None:
            raise RuntimeError(f"algorithm 'winograd' cannot run arme: {reason}")
    codes = {"auto": cpu_algorithm.AUTO, "winograd": cpu_algorithm.WINOGRAD, "direct": cpu_algorithm.DIRECT}
    return codes[name]
