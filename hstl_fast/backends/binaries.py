"""Loads native binaries after torch, so that they share its OpenMP runtime; errors are kept, not raised."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path
from types import ModuleType

import torch  # noqa: F401  its libgomp must be mapped before a binary asks for one


def load(name: str, interface: int, advice: str) -> tuple[ModuleType | None, str]:
    """Load a binary of this package.

    Args:
        name: The module's full name.
        interface: The interface that is called, `kInterface` in csrc. A binary of an earlier build may have another.
        advice: What to do where the binary is missing or does not fit.

    Returns:
        The module, or None and why it cannot be used.
    """
    try:
        binary = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name:
            return None, _built_elsewhere(name) or f"{name} was not built; {advice}"
        return None, f"{name} cannot be loaded ({error})"
    except (ImportError, ValueError) as error:
        return None, f"{name} cannot be loaded ({error}); {advice}"
    found = getattr(binary, "interface", None)
    if found != interface:
        return None, f"{name} was built from other sources (interface {found}, expected {interface}); {advice}"
    return binary, ""


def _built_elsewhere(name: str) -> str | None:
    """The reason, if Python imports this package from a checkout although a built one is installed."""
    package, module = name.split(".")
    here = Path(__file__).parents[1]
    for distribution in metadata.distributions(name=package):
        folder = Path(str(distribution.locate_file(package)))
        if folder.resolve() != here.resolve() and any(folder.glob(f"{module}*.so")):
            return (
                f"{name} was not built in {here}, where Python finds {package}, but it is installed in {folder}; "
                "start Python in another folder, or install the checkout with pip install -e"
            )
    return None
