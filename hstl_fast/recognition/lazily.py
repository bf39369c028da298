"""Modules that are imported at their first use, since they need packages of an extra."""

import importlib
from typing import Any


class Lazily:
    """A module, imported when something of it is first used."""

    def __init__(self, name: str) -> None:
        """Name a module.

        Args:
            name: Its whole name.
        """
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._name), name)
