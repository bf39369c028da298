"""The interface of a library that is measured."""

import importlib
import importlib.metadata
from types import ModuleType
from typing import Protocol

import torch
from torch import nn

from benchmarks.core.text import in_one_line
from benchmarks.gpu.numerics import Numerics


class Runtime(Protocol):
    """A library.

    name: of its rows. numerics: the types of its inputs and parameters. precision: the narrowest type of its products.
    groups: the groups of the suite that it computes.
    """

    @property
    def name(self) -> str:
        """The name of its rows."""

    @property
    def numerics(self) -> Numerics:
        """The types of its inputs and parameters."""

    @property
    def precision(self) -> str:
        """The narrowest type of its products."""

    @property
    def groups(self) -> frozenset[str]:
        """The groups of the suite that it computes."""

    def why_not(self, device: torch.device) -> str | None:
        """The reason why it cannot run here; None if it can."""

    def version(self) -> str:
        """Its version."""

    def prepare(self, module: nn.Module, dtype: torch.dtype) -> nn.Module:
        """A module that computes what this plain one does; it is built for the first input that it is given."""


def why_no_module(device: torch.device, *names: str) -> str | None:
    """The reason why modules of a library for GPUs cannot be imported, or not be used here."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            missing = error.name is not None and f"{name}.".startswith(f"{error.name}.")
            return f"{error.name} is not installed" if missing else in_one_line(error)
        except Exception as error:
            return in_one_line(error)
    return None if device.type == "cuda" else "it needs a GPU"


def version_of(*distributions: str) -> str:
    """The version of the first of these distributions that is installed."""
    for name in distributions:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def imported(name: str) -> ModuleType:
    """A library that need not be installed."""
    return importlib.import_module(name)
