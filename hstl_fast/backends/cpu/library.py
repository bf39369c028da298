"""The native binaries: loaded after torch, so that they share its OpenMP runtime; load errors are kept, not raised."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch  # noqa: F401  its libgomp must be mapped before the binary asks for one

from hstl_fast import environment

_ADVICE = "install again with a C++ compiler (GCC or Clang) and HSTL_FAST_CPU=1, which makes a failing build say why"

# The interface that this code calls, `kInterface` in csrc. A binary of an earlier build may have another.
INTERFACE = 8


def _load(name: str) -> tuple[ModuleType | None, str]:
    try:
        wanted = environment.cpu_isa()
        binary = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, _built_elsewhere(name) or f"{name} was not built; {_ADVICE}"
        return None, f"{name} cannot be loaded ({error})"
    except (ImportError, ValueError) as error:
        if str(error).startswith(environment.CPU_ISA.name):
            return None, str(error)
        return None, f"{name} cannot be loaded ({error}); {_ADVICE}"
    found = getattr(binary, "interface", None)
    if found != INTERFACE:
        return None, f"{name} was built from other sources (interface {found}, expected {INTERFACE}); {_ADVICE}"
    try:
        if wanted is not None:
            binary.use_instruction_set(wanted)
    except ValueError as error:
        return None, f"{environment.CPU_ISA.name}{str(error).removeprefix('name')}"
    return binary, ""


def _built_elsewhere(name: str) -> str | None:
    """The reason, if Python imports this package from a checkout although a built one is installed."""
    package, module = name.split(".")
    here = Path(__file__).parents[2]
    for distribution in metadata.distributions(name=package):
        folder = Path(str(distribution.locate_file(package)))
        if folder.resolve() != here.resolve() and any(folder.glob(f"{module}*.so")):
            return (
                f"{name} was not built in {here}, where Python finds {package}, but it is installed in {folder}; "
                "start Python in another folder, or install the checkout with pip install -e"
            )
    return None


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
