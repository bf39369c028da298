"""Which backend computes an operator, by which algorithm, and why."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import torch

from hstl_fast import backends
from hstl_fast._torch_private import constant_when_compiled
from hstl_fast.backends.cpu import algorithm as cpu_algorithm
from hstl_fast.layout import FLOATING
from hstl_fast.options import ALGORITHM, BACKEND

OPERATORS = ("arme", "astp", "fta")
BACKENDS = ("auto", "reference", *backends.NATIVE)

_logger = logging.getLogger("hstl_fast")
_logged: set[str] = set()


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


def why_not(operator: str, backend: str, device_type: str, dtype: torch.dtype, longest: int = 0) -> str | None:
    """Return why a backend cannot compute an operator.

    The automatic choice, the exception for a backend asked for by name and the table of `hstl-fast info` all ask here.

    Args:
        operator: "arme", "astp" or "fta".
        backend: One of `BACKENDS` but "auto".
        device_type: "cpu", "cuda" or another.
        dtype: The input's type.
        longest: Frames of the longest sequence, where the operator depends on it.

    Returns:
        A reason; None if the backend can compute the operator for tensors of this device and type.
    """
    if dtype not in FLOATING:
        return f"{operator} computes float16, bfloat16, float32 and float64, not {dtype}"
    if backend == "reference":
        return None
    return backends.why_too_long(backend, longest) or backends.why_not(backend, operator, device_type, dtype)


def candidates(device_type: str) -> tuple[str, ...]:
    """List the backends that "auto" tries for a device.

    Args:
        device_type: "cpu", "cuda" or another.

    Returns:
        Names of backends, the best one first. On a GPU, kernels that no device has confirmed come last.
    """
    if device_type == "cpu":
        return "cpu", "reference"
    if device_type == "meta":
        return ("reference",)
    native = ("cuda", "triton")
    verified = [name for name in native if name not in backends.UNVERIFIED]
    unverified = [name for name in native if name in backends.UNVERIFIED]
    return *verified, "reference", *unverified


@constant_when_compiled
def choose(
    operator: str, device_type: str, dtype: torch.dtype, backend: str | None, longest: int = 0, called: str = ""
) -> str:
    """Choose the backend that computes an operator, by argument, context, environment or automatically.

    "auto" logs, once, why it fell back.

    Args:
        operator: "arme", "astp" or "fta".
        device_type: "cpu", "cuda" or another.
        dtype: The input's type.
        backend: The caller's argument `backend`.
        longest: Frames of the longest sequence, where the operator depends on it.
        called: The public function that asks, for messages, where it is not named like the operator.

    Returns:
        One of `BACKENDS` but "auto".

    Raises:
        RuntimeError: A backend asked for by name cannot run; the message says why.
        ValueError: A name is unknown, or a variable of the environment has a wrong value.
    """
    called = called or operator
    name = BACKEND.value(backend)
    if name != "auto":
        reason = why_not(operator, name, device_type, dtype, longest)
        if reason is None:
            return name
        if reason == backends.wrong_setting(name):
            raise ValueError(reason)
        raise RuntimeError(f"backend {name!r} cannot run {called}: {reason}")
    reasons: list[str] = []
    for candidate in candidates(device_type):
        reason = why_not(operator, candidate, device_type, dtype, longest)
        if reason is None:
            _log_once(called, candidate, device_type, reasons)
            return candidate
        if reason == backends.wrong_setting(candidate):  # a wrong variable is an error, not a reason to fall back
            raise ValueError(reason)
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeError(f"no backend can run {called}: {'; '.join(reasons)}")


@constant_when_compiled
def choose_for_network(device_type: str, dtype: torch.dtype) -> str:
    """Choose the backend whose private operators a network may call between its layers.

    Args:
        device_type: "cpu", "cuda" or another.
        dtype: The type of the network's weights.

    Returns:
        The backend that computes "arme"; "reference" if it does not compute the other operators as well.

    Raises:
        RuntimeError: The backend that is asked for by name cannot run; the message says why.
        ValueError: A variable of the environment has a wrong value.
    """
    chosen = choose("arme", device_type, dtype, None)
    computes_all = all(why_not(operator, chosen, device_type, dtype) is None for operator in OPERATORS)
    return chosen if computes_all else "reference"


def _log_once(called: str, chosen: str, device_type: str, reasons: list[str]) -> None:
    because = f" ({'; '.join(reasons)})" if reasons else ""
    line = f"{called} on {device_type} runs on the backend {chosen!r}{because}"
    if line not in _logged:
        _logged.add(line)
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
