"""Prepared calls of the functions of `hstl_fast._cpu`, and their workspaces."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

from hstl_fast.backends import calls
from hstl_fast.backends.calls import Memory, argument_names, contiguous
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.allocator import allocate

__all__ = ["Memory", "NativeCall", "NativeCallWithWorkspace", "argument_names", "contiguous"]


@dataclass(slots=True, eq=False)
class NativeCall(calls.NativeCall):
    """A call of a function of csrc/cpu/operators.h."""

    @staticmethod
    def binary() -> ModuleType:
        """The binary whose function is called."""
        return library.require_cpu()


class NativeCallWithWorkspace(NativeCall):
    """A native call that has a field `workspace` for scratch memory."""

    __slots__ = ()
    if TYPE_CHECKING:
        workspace: Memory | None

    def workspace_bytes(self) -> int:
        """Bytes of the workspace."""
        raise NotImplementedError

    def run(self) -> None:
        """Run the native function with a workspace of its own."""
        self.workspace = allocate(self.workspace_bytes())
        self()
