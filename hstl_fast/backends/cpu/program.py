"""Programs of native calls: prepared once, run in one call of the extension, without the interpreter in between.

The memory of a program belongs to a run, so that several threads may run one program at once: an address among the
arguments is the number of a place, which is an offset from one of the bases that a run gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from hstl_fast.backends.cpu import library
from hstl_fast.backends.cpu.calls import Memory, NativeCall

# Bases of every run: nothing, for places whose address is known, and the memory of the program's areas.
ABSOLUTE, ARENA = 0, 1
# Areas begin at a page, as blocks of the allocator do, and each this many bytes further into it than the one before, so
# that the same position of two maps, which are whole pages apart, is not in the same set of a cache.
_ALIGNMENT, _STAGGER = 4096, 320


@dataclass(slots=True, eq=False)
class CopyRowsCall(NativeCall):
    """Rows of bytes copied to where one begins `stride` bytes after another."""

    name: ClassVar[str] = "copy_rows"
    y: Memory
    x: Memory
    rows: int
    bytes: int
    stride: int


class Place:
    """Memory of a program: `offset` bytes behind a base, or behind another place."""

    def __init__(self, number: int, base: int | Place, offset: int = 0) -> None:
        self._number, self._base, self._offset = number, base, offset

    def data_ptr(self) -> int:
        """The number that stands for the address in the arguments of the program's calls."""
        return self._number

    def located(self) -> tuple[int, int]:
        """The base, and the bytes behind it."""
        if not isinstance(self._base, Place):
            return self._base, self._offset
        base, offset = self._base.located()
        return base, offset + self._offset


class Area(Place):
    """Memory for one thing after another, as much as the largest needs."""

    def __init__(self, number: int) -> None:
        super().__init__(number, ARENA)
        self._sizes = [0]

    def reserve(self, size: int) -> Area:
        """Make room for `size` bytes."""
        self._sizes.append(size)
        return self

    def cancel_last(self) -> None:
        """Cancel the last reservation, whose map is not written."""
        self._sizes.pop()

    @property
    def size(self) -> int:
        """Bytes of the area."""
        return max(self._sizes)

    def place_at(self, offset: int) -> int:
        """Put the area there in the program's memory, and return where the next one may begin."""
        self._offset = offset + self._number * _STAGGER % _ALIGNMENT
        return -(-(self._offset + self.size) // _ALIGNMENT) * _ALIGNMENT


class ProgramBuilder:
    """The places and the calls of a program, in order."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._calls: list[NativeCall] = []
        # Tensors whose addresses the program knows, and that it alone holds.
        self.constants: list[Tensor] = []

    def place(self, base: int | Place, offset: int = 0) -> Place:
        """Memory behind a base or another place."""
        return self._added(Place(self._next_number(), base, offset))

    def area(self, size: int = 0) -> Area:
        """Memory that belongs to a run."""
        area = Area(self._next_number())
        self._added(area)
        return area.reserve(size)

    def tensor(self, tensor: Tensor) -> Place:
        """The memory of a tensor, which has to be there at every run."""
        return self.place(ABSOLUTE, tensor.data_ptr())

    def constant(self, tensor: Tensor) -> Place:
        """The memory of a tensor that the program holds."""
        self.constants.append(tensor)
        return self.tensor(tensor)

    def append(self, call: NativeCall) -> None:
        """Add a call, whose fields may change until the program is built."""
        self._calls.append(call)

    def build(self) -> Program:
        """Make the program."""
        size = 0
        for place in self._places:
            if isinstance(place, Area):
                size = place.place_at(size)
        native = library.require_cpu().Program([(ABSOLUTE, 0), *(place.located() for place in self._places)])
        for call in self._calls:
            native.append(call.name, call.arguments())
        return Program(native, size, self.constants)

    def _next_number(self) -> int:
        return len(self._places) + 1

    def _added(self, place: Place) -> Place:
        self._places.append(place)
        return place


class Program:
    """Native calls that run one after another.

    Args:
        native: The extension's program.
        arena_bytes: The memory that a run needs for the program's areas.
        constants: Tensors whose addresses the program knows.
    """

    def __init__(self, native: Any, arena_bytes: int, constants: list[Tensor]) -> None:
        self._native, self._constants = native, constants
        self.arena_bytes = arena_bytes

    @property
    def nbytes(self) -> int:
        """The memory of the program itself."""
        size: int = self._native.nbytes
        return size + sum(constant.nbytes for constant in self._constants)

    def run(self, bases: list[int]) -> None:
        """Run all calls; `bases` are the addresses of the bases, the first one 0."""
        self._native.run(bases)

    def run_timed(self, bases: list[int]) -> list[float]:
        """Run all calls, and return the seconds of each."""
        seconds: list[float] = self._native.run_timed(bases)
        return seconds
