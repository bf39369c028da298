"""Fixtures of the native backend's tests: those of the operators'."""

from tests.ops.conftest import backend, poisoned_memory

__all__ = ["backend", "poisoned_memory"]
