"""The CPU binary, and the instruction set that the environment selects for it."""

from __future__ import annotations

from types import ModuleType

from hstl_fast import environment
from hstl_fast.backends import binaries

_ADVICE = "install again with a C++ compiler (GCC or Clang) and HSTL_FAST_CPU=1, which makes a failing build say why"

# The interface that this code calls, `kInterface` in csrc/cpu.
INTERFACE = 13


def _load(name: str) -> tuple[ModuleType | None, str]:
    try:
        wanted = environment.cpu_isa()
    except ValueError as error:
        return None, str(error)
    binary, error_text = binaries.load(name, INTERFACE, _ADVICE)
    if binary is None:
        return None, error_text
    try:
        if wanted is not None:
            binary.use_instruction_set(wanted)
    except ValueError as error:
        return None, f"{environment.CPU_ISA.name}{str(error).removeprefix('name')}"
    return binary, ""


_cpu, _cpu_error = _load("hstl_fast._cpu")


def cpu() -> ModuleType | None:
    """The CPU binary, or None if it could not be loaded."""
    return _cpu


def cpu_error() -> str:
    """Why the CPU binary could not be loaded, and what to do; empty if it was."""
    return _cpu_error


def wrong_setting() -> str | None:
    """Why the environment's instruction set cannot be used; None if it can, or is not set."""
    return _cpu_error if _cpu_error.startswith(environment.CPU_ISA.name) else None


def require_cpu() -> ModuleType:
    """Return the CPU binary.

    Returns:
        The module `hstl_fast._cpu`.

    Raises:
        ValueError: The environment asks for an instruction set that cannot be used.
        RuntimeError: The binary could not be loaded for another reason, which the message says.
    """
    if _cpu is None:
        raise RuntimeError(_cpu_error) if wrong_setting() is None else ValueError(_cpu_error)
    return _cpu
