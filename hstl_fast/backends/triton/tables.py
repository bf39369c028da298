"""Small tables that kernels read: where sequences, windows and regions begin and end."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from hstl_fast.reference import fta_lengths

CPU = torch.device("cpu")


class Frames(NamedTuple):
    """Of all sequences, one after another; int32."""

    ends: Tensor
    """[frames, 2]: the first and the last frame of the sequence that a frame belongs to."""
    starts: Tensor
    """[n + 1]: each sequence's first frame, and the number of all."""
    sequence: Tensor
    """[frames]: the sequence that a frame belongs to."""


class Windows(NamedTuple):
    """FTA's, of all sequences; int32."""

    ends: Tensor
    """[windows, 3]: a window's second frame, with which its inner three begin; its sequence's first and last frame."""
    starts: Tensor
    """[n + 1]: each sequence's first window, and the number of all."""


def frames_table(lens: Sequence[int], device: torch.device) -> Frames:
    """The table for sequences of these lengths."""
    return _found(_frames, lens, device)


def windows_table(lens: Sequence[int], device: torch.device) -> Windows:
    """The table for sequences of these lengths."""
    return _found(_windows, lens, device)


def regions_table(split: Sequence[int], device: torch.device) -> Tensor:
    """int32 [m, 2]: the first row of each region, and how many it has."""
    return _found(_regions, split, device)


def region_of_rows(split: Sequence[int], device: torch.device) -> Tensor:
    """int32 [h]: the region that each row belongs to."""
    return _found(_region_of_rows, split, device)


_Table = TypeVar("_Table")
_Key = tuple[Callable[..., Any], tuple[int, ...]]
"""What makes a table, and of what."""
MOST_TABLES = 1024
_kept: ContextVar[dict[_Key, Any] | None] = ContextVar("kept", default=None)
_made: OrderedDict[tuple[_Key, torch.device, int], Any] = OrderedDict()
"""The latest, by stream: on another a table may not have arrived yet, and its memory may be taken too early."""
_captured: list[Any] = []
"""Those that a graph of somebody else's reads; nobody says when it ends."""
_lock = threading.Lock()


def _found(make: Callable[[tuple[int, ...], torch.device], _Table], of: Sequence[int], device: torch.device) -> _Table:
    """The table that was made before; inside `Slots.standing_in`, the one that the slots keep."""
    key, kept = (make, tuple(of)), _kept.get()
    if kept is None:
        return _of_stream(key, device)  # type: ignore[no-any-return]
    if key not in kept:
        kept[key] = make(tuple(of), device)
    found: _Table = kept[key]
    return found


def _of_stream(key: _Key, device: torch.device) -> Any:
    """One that was made on the current stream; of a stream that is being captured, on any, since nothing can be made
    then, and what captures has waited for all."""
    on_gpu = device.type == "cuda"
    with _lock:
        if on_gpu and torch.cuda.is_current_stream_capturing():
            found = next((table for other, table in _made.items() if other[:2] == (key, device)), None)
            if found is not None:
                _captured.append(found)
                return found
        stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
        found = _made.pop((key, device, stream), None)
        if found is None:
            make, of = key
            found = make(of, device)
        _made[key, device, stream] = found
        if len(_made) > MOST_TABLES:
            _made.popitem(last=False)
    return found


class Slots:
    """Tables at fixed places in the device's memory, for any sequences that fit in.

    What is launched inside `standing_in` with the lengths `stand_in`, as many sequences and frames as fit in, finds
    these tables; filled anew, they mean other sequences. Frames and windows behind the last sequence are
    nobody's neighbours; sequences that are not there have no frames.
    """

    def __init__(self, frames: int, sequences: int, device: torch.device) -> None:
        """frames: a multiple of 3, and more than 3 for every sequence."""
        assert frames % 3 == 0
        assert frames > 3 * sequences  # or the stand-ins for windows would be those for maps of one frame a sequence
        self.frames, self.windows, self.sequences = frames, frames // 3, sequences
        self.stand_in = [3] * (sequences - 1) + [frames - 3 * (sequences - 1)]
        self.memory = torch.zeros(_size(self._shapes()), dtype=torch.int32, device=device)
        of_frames, of_windows, windows = self._tables(self.memory)
        after_fta = fta_lengths(self.stand_in)
        self._kept: dict[_Key, Any] = {
            (_frames, tuple(self.stand_in)): of_frames,
            (_frames, tuple(after_fta)): of_windows,
            (_windows, tuple(self.stand_in)): windows,
        }

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """A context in which kernels are given these tables, and all others they need are kept as long as these."""
        token = _kept.set(self._kept)
        try:
            yield
        finally:
            _kept.reset(token)

    def fill(self, memory: Tensor, lens: Sequence[int]) -> None:
        """Into int32 memory of the same size, on the CPU, what these tables should hold for sequences of at least 3
        frames."""
        of_frames, of_windows, windows = self._tables(memory)
        counts = fta_lengths(lens)
        _fill_frames(of_frames, lens)
        _fill_frames(of_windows, counts)
        real = _windows(tuple(lens), CPU)
        windows.ends[: sum(counts)] = real.ends
        windows.ends[sum(counts) :] = torch.tensor([0, 1, 0], dtype=torch.int32, device=CPU)  # windows on no frame

    def _shapes(self) -> list[tuple[int, ...]]:
        starts = (self.sequences + 1,)
        of_frames, of_windows = ([(n, 2), starts, (n,)] for n in (self.frames, self.windows))
        return [*of_frames, *of_windows, (self.windows, 3)]

    def _tables(self, memory: Tensor) -> tuple[Frames, Frames, Windows]:
        """Of frames, of what FTA makes of them, and of its windows, in this memory."""
        *parts, windows = _parts(memory, self._shapes())
        of_frames, of_windows = Frames(*parts[:3]), Frames(*parts[3:])
        return of_frames, of_windows, Windows(windows, of_windows.starts)


def _fill_frames(table: Frames, lens: Sequence[int]) -> None:
    total, real = sum(lens), _frames(tuple(lens), CPU)
    table.ends[:total] = real.ends
    table.ends[total:] = torch.tensor([total, len(table.ends) - 1], dtype=torch.int32, device=CPU)
    table.sequence[:total] = real.sequence
    table.sequence[total:] = len(table.starts) - 2
    table.starts[: len(lens) + 1] = real.starts
    table.starts[len(lens) + 1 :] = total


def _parts(memory: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Tensors of these shapes one after another, each where memory is aligned like any other."""
    begin = 0
    for shape in shapes:
        yield memory[begin : begin + math.prod(shape)].view(shape)
        begin += _size([shape])


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    """Elements that `_parts` needs."""
    return sum(-(-math.prod(shape) // ALIGNED) * ALIGNED for shape in shapes)


ALIGNED = 4
"""Elements of int32 in the 16 bytes that kernels are compiled for."""


def _frames(lens: tuple[int, ...], device: torch.device) -> Frames:
    starts = _starts(lens)
    ends = np.stack([np.repeat(starts[:-1], lens), np.repeat(starts[1:] - 1, lens)], 1)
    sequence = np.repeat(np.arange(len(lens)), lens)
    return Frames(_on(ends, device), _on(starts, device), _on(sequence, device))


def _windows(lens: tuple[int, ...], device: torch.device) -> Windows:
    frames, counts = _starts(lens), fta_lengths(lens)
    windows = _starts(counts)
    within = np.arange(windows[-1]) - np.repeat(windows[:-1], counts)
    firsts, lasts = np.repeat(frames[:-1], counts), np.repeat(frames[1:] - 1, counts)
    return Windows(_on(np.stack([firsts + 3 * within, firsts, lasts], 1), device), _on(windows, device))


def _regions(split: tuple[int, ...], device: torch.device) -> Tensor:
    return _on(np.stack([_starts(split)[:-1], split], 1), device)


def _region_of_rows(split: tuple[int, ...], device: torch.device) -> Tensor:
    return _on(np.repeat(np.arange(len(split)), split), device)


def _starts(lens: Sequence[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lens)])


def _on(values: np.ndarray, device: torch.device) -> Tensor:
    table = torch.from_numpy(np.ascontiguousarray(values, np.int32))
    if device.type == "cpu":
        return table
    return table.pin_memory().to(device, non_blocking=True)
