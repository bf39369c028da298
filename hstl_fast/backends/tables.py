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

from hstl_fast._caches import register_cache
from hstl_fast.backends.gpu import is_capturing
from hstl_fast.reference import fta_lengths

CPU = torch.device("cpu")


class Frames(NamedTuple):
    """The frames of all sequences, one sequence after another; int32.

    Attributes:
        ends: `[frames, 2]`: the first and the last frame of the sequence that a frame belongs to.
        starts: `[n + 1]`: each sequence's first frame, and the number of all frames.
        sequence: `[frames]`: the sequence that a frame belongs to.
    """

    ends: Tensor
    starts: Tensor
    sequence: Tensor


class Windows(NamedTuple):
    """FTA's windows of all sequences; int32.

    Attributes:
        ends: `[windows, 3]`: a window's second frame, with which its inner three begin, and the first and the last
            frame of its sequence.
        starts: `[n + 1]`: each sequence's first window, and the number of all windows.
    """

    ends: Tensor
    starts: Tensor


def frames_table(lens: Sequence[int], device: torch.device) -> Frames:
    """The table for sequences of these lengths."""
    return _found(_frames, lens, device)


def windows_table(lens: Sequence[int], device: torch.device) -> Windows:
    """The table for sequences of these lengths."""
    return _found(_windows, lens, device)


def regions_table(split: Sequence[int], device: torch.device) -> Tensor:
    """The first row of each region, and how many it has: int32 [m, 2]."""
    return _found(_regions, split, device)


def region_of_rows(split: Sequence[int], device: torch.device) -> Tensor:
    """The region that each row belongs to: int32 [h]."""
    return _found(_region_of_rows, split, device)


_Table = TypeVar("_Table")
# The function that makes a table, and the lengths it makes it from.
_Key = tuple[Callable[..., Any], tuple[int, ...]]
MOST_TABLES = 1024
_static: ContextVar[dict[_Key, Any] | None] = ContextVar("static_tables", default=None)
# The latest tables, by stream: on another stream a table may not have arrived yet, and its memory may be reused too
# early.
_made: OrderedDict[tuple[_Key, torch.device, int], Any] = OrderedDict()
# Tables that a CUDA graph of the caller's own reads. They stay, since nothing tells when that graph ends.
_captured: list[Any] = []
_lock = threading.Lock()


def cached_bytes() -> int:
    """The memory of the cached tables."""
    with _lock:
        return sum(_bytes(table) for table in _made.values())


def clear() -> None:
    """Drop the cached tables, except those that CUDA graphs read."""
    with _lock:
        _made.clear()


def _bytes(table: Any) -> int:
    tensors = (table,) if isinstance(table, Tensor) else table
    return sum(tensor.nbytes for tensor in tensors)


register_cache("tables of the GPU kernels", cached_bytes, clear)


def _found(
    make: Callable[[tuple[int, ...], torch.device], _Table], lens: Sequence[int], device: torch.device
) -> _Table:
    """The cached table; inside `StaticTables.active`, one of the static tables."""
    key, static = (make, tuple(lens)), _static.get()
    if static is None:
        return _cached(key, device)  # type: ignore[no-any-return]
    if key not in static:
        static[key] = make(tuple(lens), device)
    found: _Table = static[key]
    return found


def _cached(key: _Key, device: torch.device) -> Any:
    """The table that was made on the device's current stream.

    While that stream is captured, a table made on any stream will do: the stream has waited for the others. None can be
    made then.

    Raises:
        RuntimeError: the device's current stream is captured, and there is no such table.
    """
    on_gpu = device.type == "cuda"
    with _lock:
        if on_gpu and is_capturing(device):
            found = next((table for other, table in _made.items() if other[:2] == (key, device)), None)
            if found is None:
                raise RuntimeError(
                    f"a CUDA graph is being captured on {device}, and tables for {list(key[1])} (lengths of sequences, "
                    "or rows of regions) cannot be made meanwhile; call the layer once with these before the capture"
                )
            _captured.append(found)
            return found
        stream = torch.cuda.current_stream(device).cuda_stream if on_gpu else 0
        found = _made.pop((key, device, stream), None)
        if found is None:
            make, lens = key
            found = make(lens, device)
        _made[key, device, stream] = found
        if len(_made) > MOST_TABLES:
            _made.popitem(last=False)
    return found


class StaticTables:
    """Tables at fixed addresses in the device's memory, for all sequences that fit in.

    A CUDA graph is captured inside `active` with the lengths `capture_lens`, as many sequences and frames as fit in;
    its kernels then read these tables. Filled anew, the tables describe other sequences. Frames and windows behind the
    last sequence are neighbours of none, and sequences that are not there have no frames.
    """

    def __init__(self, frames: int, sequences: int, device: torch.device) -> None:
        """Allocate the tables; `frames` is a multiple of 3, and more than 3 for every sequence."""
        assert frames % 3 == 0
        assert frames > 3 * sequences  # else the table of windows would be that of maps of one frame a sequence
        self.frames, self.windows, self.sequences = frames, frames // 3, sequences
        self.capture_lens = [3] * (sequences - 1) + [frames - 3 * (sequences - 1)]
        self.memory = torch.zeros(_size(self._shapes()), dtype=torch.int32, device=device)
        of_frames, of_windows, windows = self._tables(self.memory)
        after_fta = fta_lengths(self.capture_lens)
        self._by_key: dict[_Key, Any] = {
            (_frames, tuple(self.capture_lens)): of_frames,
            (_frames, tuple(after_fta)): of_windows,
            (_windows, tuple(self.capture_lens)): windows,
        }

    @contextmanager
    def active(self) -> Iterator[None]:
        """A context in which kernels are given these tables, and all others they need live as long as these."""
        token = _static.set(self._by_key)
        try:
            yield
        finally:
            _static.reset(token)

    def fill(self, memory: Tensor, lens: Sequence[int]) -> None:
        """Write into `memory`, on the CPU and of the size of `self.memory`, the tables of some sequences.

        The sequences have at least 3 frames each.
        """
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
        """The tables in this memory: of frames, of the frames that FTA makes of them, and of FTA's windows."""
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


# Elements of int32 in the 16 bytes to which kernels are compiled to find tables aligned.
ALIGNED = 4


def _parts(memory: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    """Tensors of these shapes one after another, each aligned as any tensor of its own would be."""
    begin = 0
    for shape in shapes:
        yield memory[begin : begin + math.prod(shape)].view(shape)
        begin += _size([shape])


def _size(shapes: Sequence[tuple[int, ...]]) -> int:
    """The elements that `_parts` needs."""
    return sum(-(-math.prod(shape) // ALIGNED) * ALIGNED for shape in shapes)


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
