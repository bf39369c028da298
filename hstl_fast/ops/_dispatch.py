"""Which backend computes an operator, and why."""

import logging
from contextlib import AbstractContextManager

import torch

from hstl_fast.ops import _native, _triton
from hstl_fast.ops._checks import FLOATING
from hstl_fast.ops._request import request
from hstl_fast.ops._shared import constant_when_compiled

BACKENDS = ("auto", "reference", "cpu", "triton", "cuda")
OPERATORS = ("arme", "astp", "fta")
REQUEST = request("backend", BACKENDS)
requested = REQUEST.standing
LONGEST = torch.iinfo(torch.int16).max
"""Frames of the longest sequence whose maxima a two-byte frame index can name."""
UNVERIFIED = frozenset({"triton"})
"""Backends whose kernels have never run on a GPU: there, "auto" prefers any other."""

_logger = logging.getLogger("hstl_fast")
_said: set[str] = set()


def use_backend(name: str) -> AbstractContextManager[None]:
    """Make `name` the backend of every operator called in this context (this thread, this task).

    `name`: "auto", "reference", "cpu", "triton" or "cuda". An explicit `backend=` argument wins over the context, the
    context over the environment variable HSTL_FAST_BACKEND. A function compiled by torch.compile keeps the backend
    it was compiled with. Raises ValueError for an unknown name; a backend that cannot run raises where it is used.
    """
    return REQUEST.use(name)


def why_not(operator: str, backend: str, device_type: str, dtype: torch.dtype, longest: int = 0) -> str | None:
    """Why `backend` cannot compute `operator` for tensors of this device and type; None if it can.

    `longest` is the number of frames of the longest sequence, where the operator depends on it.

    The automatic choice, the exception for a backend asked for by name and the table of `hstl-fast info` all ask here.
    """
    if dtype not in FLOATING:
        return f"{operator} computes float16, bfloat16, float32 and float64, not {dtype}"
    if backend == "reference":
        return None
    if backend == "cuda":
        return f"this version of hstl_fast has no {backend} kernel for {operator}"
    too_long = why_too_long(backend, longest)
    if too_long is not None:
        return too_long
    if backend == "triton":
        return _triton.why_not(device_type, dtype)
    if device_type != "cpu":
        return f"the cpu backend computes tensors on the CPU, not on {device_type}"
    return None if _native.cpu() is not None else _native.cpu_error()


def why_too_long(backend: str, longest: int) -> str | None:
    """Why `backend`, which is not the reference, cannot pool sequences of so many frames."""
    if longest <= LONGEST:
        return None
    return f"the {backend} backend pools sequences of at most {LONGEST} frames, got {longest}"


def candidates(device_type: str) -> tuple[str, ...]:
    """The backends that "auto" tries for a device, best first."""
    if device_type in ("cpu", "meta"):
        return {"cpu": ("cpu", "reference"), "meta": ("reference",)}[device_type]
    return tuple(sorted(("cuda", "triton", "reference"), key=UNVERIFIED.__contains__))


@constant_when_compiled
def choose(operator: str, device_type: str, dtype: torch.dtype, backend: str | None, longest: int = 0) -> str:
    """The backend that computes `operator`, by argument, context, environment or automatically.

    Raises RuntimeError with the reason if a backend asked for by name cannot run; "auto" logs why it fell back.
    """
    name = REQUEST.of(backend)
    if name != "auto":
        reason = why_not(operator, name, device_type, dtype, longest)
        if reason is not None:
            raise RuntimeError(f"backend {name!r} cannot run {operator}: {reason}")
        return name
    reasons: list[str] = []
    for candidate in candidates(device_type):
        reason = why_not(operator, candidate, device_type, dtype, longest)
        if reason is None:
            _say_once(operator, candidate, device_type, reasons)
            return candidate
        reasons.append(f"{candidate}: {reason}")
    raise RuntimeError(f"no backend can run {operator}: {'; '.join(reasons)}")


def _say_once(operator: str, chosen: str, device_type: str, reasons: list[str]) -> None:
    because = f" ({'; '.join(reasons)})" if reasons else ""
    line = f"{operator} on {device_type} runs on the backend {chosen!r}{because}"
    if line not in _said:
        _said.add(line)
        _logger.log(logging.WARNING if reasons else logging.DEBUG, line)
