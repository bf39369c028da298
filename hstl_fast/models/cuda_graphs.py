"""Embedding on a GPU by CUDA graphs: a batch is launched at once, instead of kernel by kernel from Python.

A graph computes as much every time, at fixed places in memory. So there are graphs of few sizes. Behind a batch's
frames come blank ones, outside every support; where sequences begin and end stands in tables, which are filled for each
batch. They and its bytes are gathered in pinned memory while the batch before is computed.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hstl_fast.backends.triton.available import precision, slots

DEVICE_TYPE = "cuda"
MOST_GRAPHS = 16
"""That a model keeps. They share the memory of feature maps; a graph's own is a few megabytes."""
MOST_FRAMES = 4096
"""Of a batch."""
WARM_UP = 2
"""Calls before one is captured: the first compiles and makes tables, the second finds all made."""

Compute = Callable[[Tensor, list[int]], Tensor]
"""What is recorded: from bytes [1, t, h, w] and the lengths of their sequences to embeddings [n, p, c]."""


class Size(NamedTuple):
    """Of a graph: the most frames, and the most sequences."""

    frames: int
    sequences: int


def size_for(lens: Sequence[int]) -> Size:
    """The smallest size for sequences of at least 3 frames: of frames there are four to an octave, of sequences one."""
    sequences = 1 << (len(lens) - 1).bit_length()
    thirds = max(-(-sum(lens) // 3), sequences + 1, 4)
    octave = thirds.bit_length() - 3  # 4 to 7 times 2^octave are within it
    return Size(3 * (-(-thirds >> octave) << octave), sequences)


def is_small(lens: Sequence[int]) -> bool:
    """Whether launching a batch of these takes time beside computing it."""
    return max(sum(lens), 3 * len(lens)) <= MOST_FRAMES


class Settings(NamedTuple):
    """All that a recorded computation depends on besides the clips.

    model: where the weights lie, and what the layers were told. arithmetic: what torch was asked for.
    """

    model: Hashable
    arithmetic: Hashable


def settings_of(model: nn.Module) -> Settings:
    """Of a model, as it is now and would compute now."""
    tensors = [*model.parameters(), *model.buffers()]
    memory = tuple((t.data_ptr(), t.dtype, t.device, t.shape, t.stride()) for t in tensors)
    told = tuple(_told(module) for module in model.modules())
    autocast = torch.get_autocast_dtype(DEVICE_TYPE) if torch.is_autocast_enabled(DEVICE_TYPE) else None
    return Settings((memory, told), (autocast, precision(), _precision_of_products()))


def _told(module: nn.Module) -> Hashable:
    split = getattr(module, "split", None)
    return split and tuple(split), getattr(module, "negative_slope", None), getattr(module, "eps", None)


def _precision_of_products() -> str:
    products = torch.backends.cuda.matmul
    return str(getattr(products, "fp32_precision", None) or products.allow_tf32)  # torch 2.6 has the older one only


class Graphs:
    """A model's graphs, for whoever embeds with it: one after another, in any thread and on any stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Hashable = None
        self._graphs: OrderedDict[tuple[Size, Hashable], _Graph] = OrderedDict()
        self._room: _Room | None = None
        self._done: Any = None
        """The last replay: all graphs compute in one memory, so that they follow one another on any streams."""

    def embed(self, clips: Sequence[Tensor], compute: Compute, settings: Settings, device: torch.device) -> Tensor:
        """Embeddings of clips, uint8 [t_i, h, w] of at least 3 frames, all on the CPU or all on the device."""
        lens = [len(clip) for clip in clips]
        with self._lock, torch.inference_mode(False), torch.no_grad(), _on(device):
            graph = self._graph(size_for(lens), compute, settings, clips[0], device)
            self._done.wait()
            try:
                return graph.embed(clips, lens)
            finally:
                self._done.record()

    def _graph(self, size: Size, compute: Compute, settings: Settings, like: Tensor, device: torch.device) -> "_Graph":
        if settings.model != self._model:
            self._discard(len(self._graphs))
            self._model, self._done = settings.model, _event()
        key = size, settings.arithmetic
        if key not in self._graphs:
            self._discard(len(self._graphs) + 1 - MOST_GRAPHS)
            if self._room is None or not self._graphs:  # a pool ends with its last graph
                self._room = _new_room()
            self._graphs[key] = _Graph(size, compute, like, device, self._room)
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def _discard(self, count: int) -> None:
        """Let go of those that were not asked for longest, once nobody runs them."""
        if count > 0:
            self._done.synchronize()
        for _ in range(count):
            self._graphs.popitem(last=False)


class _Graph:
    """One size's. Two pieces of pinned memory take turns: one is filled while the other is on its way."""

    def __init__(self, size: Size, compute: Compute, like: Tensor, device: torch.device, room: "_Room") -> None:
        self._slots = slots(*size, device)
        self._bytes = torch.zeros((1, size.frames, *like.shape[1:]), dtype=torch.uint8, device=device)
        self._filled = 0
        """Frames of `_bytes` that are not blank."""
        self._sources = deque(_Pinned(self._bytes, self._slots.memory) for _ in range(2))
        with self._slots.standing_in():
            stand_in = self._slots.stand_in
            self._embeddings, self._replay = _recorded(lambda: compute(self._bytes, stand_in), room)

    def embed(self, clips: Sequence[Tensor], lens: Sequence[int]) -> Tensor:
        """Embeddings of sequences that fit in."""
        total, source = sum(lens), self._sources[0]
        source.sent.synchronize()
        self._slots.fill(source.tables, lens)
        if clips[0].device.type == "cpu":
            torch.cat(tuple(clips), out=source.bytes[:total])
            self._bytes[0, :total].copy_(source.bytes[:total], non_blocking=True)
        else:
            torch.cat(tuple(clips), out=self._bytes[0, :total])
        self._bytes[0, total : max(total, self._filled)].zero_()
        self._slots.memory.copy_(source.tables, non_blocking=True)
        source.sent.record()
        self._replay()
        embeddings = self._embeddings[: len(lens)].clone()
        self._filled = total
        self._sources.rotate()
        return embeddings


class _Pinned:
    """Memory from which the device copies by itself."""

    def __init__(self, frames: Tensor, tables: Tensor) -> None:
        self.bytes, self.tables = _pinned_like(frames[0]), _pinned_like(tables)
        self.sent = _event()
        """Everything that stood here is on the device."""


class _Room(NamedTuple):
    """Where graphs are recorded. pool: the memory that they share. stream: of the device, as torch's own default is of
    the device that was first; recording on one stream also takes memory for cuBLAS once."""

    pool: Any
    stream: Any


_recording = threading.Lock()
"""A process records one graph at a time."""


def _recorded(compute: Callable[[], Tensor], room: _Room) -> tuple[Tensor, Callable[[], None]]:
    """Where the answer will be, and what computes it again."""
    callers = torch.cuda.current_stream()
    with _recording, torch.cuda.stream(callers):  # which torch leaves elsewhere when recording fails
        room.stream.wait_stream(callers)
        with torch.cuda.stream(room.stream):
            for _ in range(WARM_UP):
                compute()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=room.pool, stream=room.stream, capture_error_mode="thread_local"):
            answer = compute()
        callers.wait_stream(room.stream)
    return answer, graph.replay


def _pinned_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=True)


def _event() -> Any:
    return torch.cuda.Event()


def _new_room() -> _Room:
    return _Room(torch.cuda.graph_pool_handle(), torch.cuda.Stream())


def is_capturing() -> bool:
    """Whether a graph is being recorded in which another cannot be."""
    return torch.cuda.is_current_stream_capturing()


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device)


_of_models: WeakKeyDictionary[nn.Module, Graphs] = WeakKeyDictionary()
_lock = threading.Lock()


def graphs_of(model: nn.Module) -> Graphs:
    """Kept beside the model and as long as it lives: its copies have their own, and files of it none."""
    with _lock:
        return _of_models.setdefault(model, Graphs())
