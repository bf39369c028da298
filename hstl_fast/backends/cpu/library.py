"""The native binaries: loaded after torch, so that they share its OpenMP runtime; load errors are kept, not raised."""

import importlib
from types import ModuleType

import torch  # noqa: F401  its libgomp must be mapped before the binary asks for one

_ADVICE = "install again with a C++ compiler (GCC or Clang) and HSTL_FAST_CPU=1, which makes a failing build say why"

# The interface that this code calls, `kInterface` in csrc. A binary of an earlier build may have another.
INTERFACE = 8


def _load(name: str) -> tuple[ModuleType | None, str]:
    try:
        binary = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, f"{name} was not built; {_ADVICE}"
        return None, f"{name} cannot be loaded ({error})"
    except ImportError as error:
        advice = "" if str(error).startswith("HSTL_FAST_CPU_ISA") else f"; {_ADVICE}"
        return None, f"{name} cannot be loaded ({error}){advice}"
    found = getattr(binary, "interface", None)
    if found != INTERFACE:
        return None, f"{name} was built from other sources (interface {found}, expected {INTERFACE}); {_ADVICE}"
    return binary, ""


_cpu, _cpu_error = _load("hstl_fast._cpu")


def cpu() -> ModuleType | None:
    """The CPU binary, or None if it could not be loaded."""
    return _cpu


def cpu_error() -> str:
    """Why the CPU binary could not be loaded, and what to do; empty if it was."""
    return _cpu_error


def require_cpu() -> ModuleType:
    """The CPU binary; raises RuntimeError with the reason where there is none."""
    if _cpu is None:
        raise RuntimeError(_cpu_error)
    return _cpu
