"""Embedding on a GPU by CUDA graphs: a batch is launched at once, instead of kernel by kernel from Python.

A graph computes as much at every replay, at fixed addresses. So graphs of few sizes are captured, and a batch is copied
into the static input of the smallest that it fits in. Behind the batch's frames come blank ones, outside every support;
where sequences begin and end stands in static tables, which are filled for each batch. Tables and bytes are gathered in
pinned memory while the batch before is computed.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hstl_fast._caches import register_cache
from hstl_fast.backends import gpu
from hstl_fast.backends.tables import StaticTables

DEVICE_TYPE = "cuda"
# A model caches so many graphs. They share the memory of feature maps; a graph's own is a few megabytes.
MOST_GRAPHS = 16
# A batch of more frames is computed layer by layer.
MOST_FRAMES = 4096
# Calls before one is captured: the first compiles and makes tables, the second finds all made.
WARM_UP = 2

# The captured computation, from bytes [1, t, h, w] and the lengths of their sequences to embeddings [n, p, c].
Compute = Callable[[Tensor, list[int]], Tensor]


class Size(NamedTuple):
    """The size of a graph: the most frames, and the most sequences."""

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


class CacheKey(NamedTuple):
    """The conditions under which a captured graph may be replayed, besides its size.

    Attributes:
        model: the addresses of the weights, whose values a graph reads at every replay, and the options of the layers.
        arithmetic: the precision and autocast that torch is set to, and the backends of the layers.
    """

    model: Hashable
    arithmetic: Hashable


def cache_key(model: nn.Module, device: torch.device, backends: Hashable = ()) -> CacheKey:
    """The key for a model as it is now and would compute now on `device` by these backends."""
    tensors = [*model.parameters(), *model.buffers(), *_plain_tensors(model)]
    memory = tuple((t.data_ptr(), t.dtype, t.device, t.shape, t.stride()) for t in tensors)
    options = tuple(_options(module) for module in model.modules())
    autocast = torch.get_autocast_dtype(DEVICE_TYPE) if torch.is_autocast_enabled(DEVICE_TYPE) else None
    return CacheKey((memory, options), (autocast, gpu.precision(device), _precision_of_products(), backends))


def _plain_tensors(model: nn.Module) -> list[Tensor]:
    """The tensors that are neither parameters nor buffers, such as a weight that was replaced by a plain tensor."""
    return [value for module in model.modules() for value in vars(module).values() if isinstance(value, Tensor)]


def _options(module: nn.Module) -> Hashable:
    split = getattr(module, "split", None)
    names = ("negative_slope", "eps", "bins", "config")
    return split and tuple(split), *(getattr(module, name, None) for name in names)


def _precision_of_products() -> str:
    products = torch.backends.cuda.matmul
    return str(getattr(products, "fp32_precision", None) or products.allow_tf32)  # torch 2.6 has the older one only


class Graphs:
    """The cached graphs of one model, replayed one after another, from any thread and on any stream."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: Hashable = None
        self._graphs: OrderedDict[tuple[Size, Hashable], _Graph] = OrderedDict()
        self._pool: _Pool | None = None
        # The last replay. All graphs compute in one memory, so that they follow one another on any streams.
        self._done: Any = None

    def embed(self, clips: Sequence[Tensor], compute: Compute, key: CacheKey, device: torch.device) -> Tensor:
        """Embed clips by the cached graph that they fit in; without one, capture it.

        Args:
            clips: uint8 [t_i, h, w] of at least 3 frames, all on the CPU or all on the device.
            compute: the computation to capture.
            key: the conditions under which a cached graph may be replayed.
            device: the GPU.

        Returns:
            The embeddings [n, p, c].
        """
        lens = [len(clip) for clip in clips]
        with self._lock, torch.inference_mode(False), torch.no_grad(), _on(device):
            graph = self._graph(size_for(lens), compute, key, clips[0], device)
            self._done.wait()
            try:
                return graph.embed(clips, lens)
            finally:
                self._done.record()

    def held_bytes(self) -> int:
        """The memory of all cached graphs."""
        with self._lock:
            if self._pool is None:
                return 0
            return _pool_bytes(self._pool) + sum(graph.held_bytes() for graph in self._graphs.values())

    def clear(self) -> None:
        """Drop all cached graphs, once the last replay is done."""
        with self._lock:
            self._discard(len(self._graphs))
            self._pool = None

    def _graph(self, size: Size, compute: Compute, key: CacheKey, like: Tensor, device: torch.device) -> "_Graph":
        if key.model != self._model:
            self._discard(len(self._graphs))
            self._model, self._done = key.model, _event()
        found = size, key.arithmetic
        if found not in self._graphs:
            self._discard(len(self._graphs) + 1 - MOST_GRAPHS)
            if self._pool is None or not self._graphs:  # a pool ends with its last graph
                self._pool = _new_pool()
            self._graphs[found] = _Graph(size, compute, like, device, self._pool)
        self._graphs.move_to_end(found)
        return self._graphs[found]

    def _discard(self, count: int) -> None:
        """Drop the least recently used graphs, once the last replay is done."""
        if count > 0:
            self._done.synchronize()
        for _ in range(count):
            self._graphs.popitem(last=False)


class _Graph:
    """The graph of one size, with its static input and static tables.

    Two pinned buffers take turns: one is filled while the other is on its way.
    """

    def __init__(self, size: Size, compute: Compute, like: Tensor, device: torch.device, pool: "_Pool") -> None:
        self._tables = StaticTables(*size, device)
        self._input = torch.zeros((1, size.frames, *like.shape[1:]), dtype=torch.uint8, device=device)
        self._filled = 0  # frames of the static input that are not blank
        self._buffers = deque(_PinnedBuffer(self._input, self._tables.memory) for _ in range(2))
        with self._tables.active():
            lens = self._tables.capture_lens
            self._embeddings, self._replay = _captured(lambda: compute(self._input, lens), pool)

    def held_bytes(self) -> int:
        """The memory of the static input and tables and of the pinned buffers, but not of the pool."""
        pinned = [tensor for buffer in self._buffers for tensor in (buffer.frames, buffer.tables)]
        return sum(tensor.nbytes for tensor in (self._input, self._tables.memory, *pinned))

    def embed(self, clips: Sequence[Tensor], lens: Sequence[int]) -> Tensor:
        """Embed sequences that fit in."""
        total, buffer = sum(lens), self._buffers[0]
        buffer.sent.synchronize()
        self._tables.fill(buffer.tables, lens)
        if clips[0].device.type == "cpu":
            torch.cat(tuple(clips), out=buffer.frames[:total])
            self._input[0, :total].copy_(buffer.frames[:total], non_blocking=True)
        else:
            torch.cat(tuple(clips), out=self._input[0, :total])
        self._input[0, total : max(total, self._filled)].zero_()
        self._tables.memory.copy_(buffer.tables, non_blocking=True)
        buffer.sent.record()
        self._replay()
        embeddings = self._embeddings[: len(lens)].clone()
        self._filled = total
        self._buffers.rotate()
        return embeddings


class _PinnedBuffer:
    """Memory that the device copies from by itself; `sent` is recorded when all of it is on the device."""

    def __init__(self, frames: Tensor, tables: Tensor) -> None:
        self.frames, self.tables = _pinned_like(frames[0]), _pinned_like(tables)
        self.sent = _event()


class _Pool(NamedTuple):
    """The memory pool and the stream that a model's graphs are captured with.

    Attributes:
        id: the pool, whose memory the graphs share.
        stream: a stream of the device; torch's own default belongs to the device that was first. On one stream,
            capturing also takes memory for cuBLAS once.
    """

    id: Any
    stream: Any


# A process captures one graph at a time.
_capturing = threading.Lock()


def _captured(compute: Callable[[], Tensor], pool: _Pool) -> tuple[Tensor, Callable[[], None]]:
    """The tensor that will hold the answer, and the replay that computes it again."""
    callers = torch.cuda.current_stream()
    with _capturing, torch.cuda.stream(callers):  # where a failed capture leaves another current stream
        pool.stream.wait_stream(callers)
        with torch.cuda.stream(pool.stream):
            for _ in range(WARM_UP):
                compute()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool.id, stream=pool.stream, capture_error_mode="thread_local"):
            answer = compute()
        callers.wait_stream(pool.stream)
    return answer, graph.replay


def _pinned_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=True)


def _event() -> Any:
    return torch.cuda.Event()


def _new_pool() -> _Pool:
    return _Pool(torch.cuda.graph_pool_handle(), torch.cuda.Stream())


def _pool_bytes(pool: _Pool) -> int:
    """The memory that the allocator has reserved for the pool."""
    segments = torch.cuda.memory_snapshot()
    return sum(s["total_size"] for s in segments if tuple(s["segment_pool_id"]) == tuple(pool.id))


def is_capturing(device: torch.device) -> bool:
    """Whether a graph is being captured, by the caller or on `device`: another cannot be captured meanwhile."""
    return torch.cuda.is_current_stream_capturing() or gpu.is_capturing(device)


def _on(device: torch.device) -> Any:
    return torch.cuda.device(device)


_of_models: WeakKeyDictionary[nn.Module, Graphs] = WeakKeyDictionary()
_lock = threading.Lock()


def graphs_of(model: nn.Module) -> Graphs:
    """The graphs of a model, which live as long as it does; copies of it have their own, and files of it none."""
    with _lock:
        return _of_models.setdefault(model, Graphs())


def held_bytes() -> int:
    """The memory of the CUDA graphs of all models."""
    return sum(graphs.held_bytes() for graphs in _all_graphs())


def clear() -> None:
    """Drop the CUDA graphs of all models."""
    for graphs in _all_graphs():
        graphs.clear()


def _all_graphs() -> list[Graphs]:
    with _lock:
        return list(_of_models.values())


register_cache("CUDA graphs", held_bytes, clear)
