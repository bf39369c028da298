"""Embedding by graphs: their sizes, their tables at fixed places, and what a graph that fits is filled with."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL, clear_caches
from hstl_fast._caches import cache_bytes
from hstl_fast.backends.tables import StaticTables
from hstl_fast.models import cuda_graphs, eligibility
from hstl_fast.nn import SeparateFCs
from hstl_fast.reference import fta_lengths
from tests.helpers import graphs
from tests.helpers.networks import narrow_model

CPU = torch.device("cpu")
SETTINGS = cuda_graphs.CacheKey("model", "arithmetic")
LENS = [[3], [30], [3, 3, 3, 3], [5, 3, 4], [30, 12, 57, 8, 3], [64] * 33, [2047]]


def size_of(lens: list[int]) -> cuda_graphs.Size:
    return cuda_graphs.size_for(lens)


@pytest.mark.parametrize("lens", [*LENS, *([3] * n for n in range(1, 70)), *([t] for t in range(3, 300))], ids=str)
def test_sequences_fit_in_their_size(lens: list[int]) -> None:
    size = size_of(lens)
    assert size.sequences >= len(lens)
    assert size.frames >= sum(lens)
    assert size.frames % 3 == 0
    assert size.frames > 3 * size.sequences
    assert size.frames <= max(1.25 * sum(lens) + 3, 3.75 * size.sequences + 6, 12)


def test_there_are_few_sizes() -> None:
    frames = sorted({size_of([t]).frames for t in range(3, 2049)})
    assert len(frames) < 40
    assert all(a < b <= max(1.25 * a, a + 3) for a, b in pairwise(frames))
    assert size_of([30] * 64) == (1920, 64)
    assert size_of([30]) == (30, 1)


@pytest.mark.parametrize("lens", LENS, ids=str)
def test_tables_in_slots_are_those_of_the_sequences(lens: list[int]) -> None:
    from hstl_fast.backends.tables import frames_table, windows_table

    size = size_of(lens)
    kept = StaticTables(*size, CPU)
    kept.memory.copy_(torch.randint(-9, 9, kept.memory.shape, dtype=torch.int32))  # of other sequences
    staged = torch.randint(-9, 9, kept.memory.shape, dtype=torch.int32)
    kept.fill(staged, lens)
    kept.memory.copy_(staged)
    counts = fta_lengths(lens)
    with kept.active():
        found = frames_table(kept.capture_lens, CPU)
        of_windows, windows = frames_table(fta_lengths(kept.capture_lens), CPU), windows_table(kept.capture_lens, CPU)
        of_maxima = frames_table([1] * size.sequences, CPU)
    for table, real in ((found, lens), (of_windows, counts)):
        _holds(table, real)
    assert len(found.sequence) == size.frames == sum(kept.capture_lens)
    assert len(of_windows.sequence) == size.frames // 3 == sum(fta_lengths(kept.capture_lens))
    assert torch.equal(windows.ends[: sum(counts)], windows_table(lens, CPU).ends)
    nothing = windows.ends[sum(counts) :]
    assert (nothing[:, 1] > nothing[:, 2]).all()
    assert torch.equal(windows.starts, of_windows.starts)
    assert of_maxima.starts.tolist() == list(range(size.sequences + 1))


def _holds(table: object, lens: list[int]) -> None:
    """The sequences' own rows, then rows that no sequence has a part in."""
    ends, starts, sequence = (value.numpy() for value in table)  # type: ignore[attr-defined]
    total = sum(lens)
    first = np.concatenate([[0], np.cumsum(lens)])
    assert starts[: len(first)].tolist() == first.tolist()
    assert (starts[len(first) :] == total).all()
    for i, (begin, end) in enumerate(pairwise(first)):
        assert (ends[begin:end] == [begin, end - 1]).all()
        assert (sequence[begin:end] == i).all()
    assert (ends[total:] == [total, len(ends) - 1]).all()


def test_tables_are_aligned_for_what_is_compiled() -> None:
    kept = StaticTables(21, 5, CPU)
    views = [value for table in kept._tables(kept.memory) for value in table]
    assert all((view.data_ptr() - kept.memory.data_ptr()) % 16 == 0 for view in views)
    places = sorted({(view.data_ptr(), view.data_ptr() + 4 * view.numel()) for view in views})
    assert all(end <= begin for (_, end), (begin, _) in pairwise(places))


def test_tables_that_were_asked_for_are_kept_with_the_static_tables() -> None:
    from hstl_fast.backends import tables

    kept = StaticTables(21, 5, CPU)
    with kept.active():
        first = tables.regions_table([3, 5], CPU)
        tables._made.clear()
        assert tables.regions_table([3, 5], CPU) is first
    assert tables.regions_table([3, 5], CPU) is not first


def sums(silhouettes: Tensor, lens: list[int]) -> Tensor:
    """The sums of each sequence's bytes, and of all there are, `[n, 2, 1]`, found as kernels find sequences."""
    from hstl_fast.backends.tables import frames_table

    table, of_frames = frames_table(lens, CPU), silhouettes.double().sum((0, 2, 3))
    own = [of_frames[begin:end].sum() for begin, end in pairwise(table.starts.tolist())]
    return torch.stack([torch.stack(own), of_frames.sum().expand(len(own))], 1)[..., None]


def clips(*lens: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(sum(lens))
    return [torch.randint(0, 256, (t, 2, 3), dtype=torch.uint8, generator=random) for t in lens]


def answer(batch: list[Tensor]) -> Tensor:
    own = torch.stack([clip.double().sum() for clip in batch])
    return torch.stack([own, own.sum().expand(len(own))], 1)[..., None]


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    graphs.simulate(monkeypatch)
    return graphs.counted(monkeypatch)


def test_a_graph_computes_what_it_is_given_last(captured: list[int]) -> None:
    kept = cuda_graphs.Graphs()
    for lens in ([9, 12, 9], [30], [4, 6, 13, 3], [3, 4, 5, 6], [28], [3, 3, 3], [29]):
        batch = clips(*lens)
        assert torch.equal(kept.embed(batch, sums, SETTINGS, CPU), answer(batch))
    assert captured == [len({size_of(lens) for lens in ([9, 12, 9], [30], [4, 6, 13, 3], [3, 4, 5, 6], [3, 3, 3])})]


def test_answers_are_not_overwritten(captured: list[int]) -> None:
    kept, batches = cuda_graphs.Graphs(), [clips(5, t) for t in (3, 4, 5)]
    answers = [kept.embed(batch, sums, SETTINGS, CPU) for batch in batches]
    assert all(torch.equal(found, answer(batch)) for found, batch in zip(answers, batches, strict=True))


def test_views_of_clips_are_read_as_they_are(captured: list[int]) -> None:
    wide = torch.randint(0, 256, (5, 2, 9), dtype=torch.uint8)
    batch = [wide[:, :, 3:6], wide.flip(0)[:, :, ::3]]
    assert torch.equal(cuda_graphs.Graphs().embed(batch, sums, SETTINGS, CPU), answer(batch))


def test_other_settings_capture_again(captured: list[int]) -> None:
    kept = cuda_graphs.Graphs()
    for model, arithmetic, count in (("a", 1, 1), ("a", 1, 1), ("b", 1, 2), ("a", 1, 3), ("a", 2, 4), ("a", 1, 4)):
        kept.embed(clips(9), sums, cuda_graphs.CacheKey(model, arithmetic), CPU)
        assert captured == [count]


def test_graphs_not_used_for_long_are_let_go(captured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MOST_GRAPHS", 2)
    kept = cuda_graphs.Graphs()
    for t, count in ((30, 1), (60, 2), (30, 2), (120, 3), (30, 3), (60, 4)):
        assert torch.equal(kept.embed(clips(t), sums, SETTINGS, CPU), answer(clips(t)))
        assert captured == [count]


def test_threads_share_graphs(captured: list[int]) -> None:
    kept, batches = cuda_graphs.Graphs(), [clips(3 + i % 7, 5, 4) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: kept.embed(batch, sums, SETTINGS, CPU), batches))
    assert all(torch.equal(a, answer(batch)) for a, batch in zip(found, batches, strict=True))


def test_graphs_of_inference_mode_serve_outside(captured: list[int]) -> None:
    kept = cuda_graphs.Graphs()
    with torch.inference_mode():
        kept.embed(clips(9), sums, SETTINGS, CPU)
    assert torch.equal(kept.embed(clips(8), sums, SETTINGS, CPU), answer(clips(8)))
    assert captured == [1]


def test_a_computation_that_fails_leaves_nothing(captured: list[int]) -> None:
    def fail(silhouettes: Tensor, lens: list[int]) -> Tensor:
        raise RuntimeError("no")

    kept = cuda_graphs.Graphs()
    with pytest.raises(RuntimeError, match="no"):
        kept.embed(clips(9), fail, SETTINGS, CPU)
    assert torch.equal(kept.embed(clips(9), sums, SETTINGS, CPU), answer(clips(9)))


@pytest.fixture
def tf32() -> Iterator[None]:
    """TF32 in convolutions, none in other products, whatever a test changes."""
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32, products.allow_tf32 = True, False
    yield
    convolutions.allow_tf32, products.allow_tf32 = before


def _plain(model: nn.Module) -> None:
    weight = model.weight.detach().clone()
    del model.weight
    model.weight = weight


def _other_plain(model: nn.Module) -> None:
    model.plain = torch.ones(3)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.negative_slope, self.split, self.bins = 0.01, [2, 1], 4
        self.weight = nn.Parameter(torch.ones(2, 3))
        self.plain = torch.ones(3)
        self.norm = nn.BatchNorm1d(3)


def _add(model: Layer) -> None:
    with torch.no_grad():
        model.weight += 1


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [
        (_add, False),  # a graph reads the weights where they are
        (lambda model: model.load_state_dict(Layer().state_dict()), False),
        (lambda model: model.load_state_dict(Layer().state_dict(), assign=True), True),
        (lambda model: model.double(), True),
        (lambda model: setattr(model, "weight", nn.Parameter(torch.ones(2, 3))), True),
        (lambda model: setattr(model.norm, "running_mean", torch.ones(3)), True),
        (_plain, True),
        (_other_plain, True),
        (lambda model: setattr(model, "bins", 2), True),
        (lambda model: setattr(model, "negative_slope", 0.2), True),
        (lambda model: setattr(model.norm, "eps", 1.0), True),
        (lambda model: setattr(model, "split", [1, 2]), True),
        (lambda model: model.split.reverse(), True),
        (lambda model: torch.backends.cudnn.__setattr__("allow_tf32", False), True),
        (lambda model: torch.backends.cuda.matmul.__setattr__("allow_tf32", True), True),
    ],
    ids=[
        "in place",
        "load",
        "assign",
        "double",
        "weight",
        "buffer",
        "plain weight",
        "other plain tensor",
        "bins",
        "slope",
        "eps",
        "split",
        "in split",
        "tf32",
        "tf32 of products",
    ],
)
def test_what_a_graph_would_not_see_is_part_of_its_settings(
    change: Callable[[Layer], object], is_seen: bool, tf32: None
) -> None:
    model = Layer()
    before, kept_alive = cuda_graphs.cache_key(model, CPU), [*model.parameters(), *model.buffers(), model.plain]
    change(model)
    assert (cuda_graphs.cache_key(model, CPU) != before) == is_seen
    assert kept_alive


def test_autocast_is_part_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "DEVICE_TYPE", "cpu")
    found = [cuda_graphs.cache_key(Layer(), CPU)]
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            found.append(cuda_graphs.cache_key(Layer(), CPU))
    assert len({settings.arithmetic for settings in found}) == 3


def _hooked(model: HSTL) -> list[Tensor]:
    model.parts.register_forward_hook(lambda *_: None)
    return [silhouettes()]


def _own_parts(model: HSTL) -> list[Tensor]:
    class Parts(SeparateFCs): ...

    model.parts.__class__ = Parts
    return [silhouettes()]


def _hooked_layer(model: HSTL) -> list[Tensor]:
    model.fta.register_forward_hook(lambda *_: None)
    return [silhouettes()]


def silhouettes(t: int = 3, device: str = "cpu") -> Tensor:
    return torch.zeros(t, 64, 44, dtype=torch.uint8, device=device)


@pytest.mark.parametrize(
    ("prepare", "is_replayed"),
    [
        (lambda _: [silhouettes(), silhouettes(7)], True),
        (lambda _: [silhouettes(), silhouettes().float()], False),
        (lambda _: [silhouettes(device="meta")], False),
        (lambda _: [silhouettes(), silhouettes(device="meta")], False),
        (_hooked_layer, False),
        (_hooked, False),
        (_own_parts, False),
    ],
    ids=["bytes", "floats", "another device", "several devices", "hook", "hook on parts", "other parts"],
)
def test_who_is_replayed(
    prepare: Callable[[HSTL], list[Tensor]], is_replayed: bool, captured: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = narrow_model("casia-b")
    given = prepare(model)
    skipping = "triton" if eligibility.is_made_of_own_layers(model) else "reference"
    monkeypatch.setattr(eligibility, "backend_with_support", lambda _: skipping)
    monkeypatch.setattr(eligibility._dispatch, "choose", lambda *_, **__: "triton")
    assert eligibility.may_replay(model, given, "cpu", lambda _: False) == is_replayed


def test_batches_of_many_short_clips_are_not_small() -> None:
    assert cuda_graphs.is_small([30] * 64)
    assert not cuda_graphs.is_small([30] * 200)
    assert not cuda_graphs.is_small([1] * 4000)


def test_graphs_go_with_their_model() -> None:
    model = Layer()
    assert cuda_graphs.graphs_of(model) is cuda_graphs.graphs_of(model)
    assert cuda_graphs.graphs_of(model) is not cuda_graphs.graphs_of(Layer())
    count = len(cuda_graphs._of_models)
    del model
    assert len(cuda_graphs._of_models) < count


def test_clearing_caches_drops_graphs(captured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    clear_caches()
    assert cache_bytes()["CUDA graphs"] == 0
    model = Layer()
    kept = cuda_graphs.graphs_of(model)
    kept.embed(clips(9), sums, SETTINGS, CPU)
    frames, tables = size_of([9]).frames * 2 * 3, StaticTables(*size_of([9]), CPU).memory.nbytes
    assert cache_bytes()["CUDA graphs"] == 3 * (frames + tables)  # on the device, and in two pinned buffers
    monkeypatch.setattr(cuda_graphs, "_pool_bytes", lambda _: 1000)
    assert cache_bytes()["CUDA graphs"] == 3 * (frames + tables) + 1000
    clear_caches()
    assert cache_bytes()["CUDA graphs"] == 0
    assert torch.equal(kept.embed(clips(9), sums, SETTINGS, CPU), answer(clips(9)))
    assert captured == [2]


def test_a_pools_memory_is_that_of_its_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    segments = [{"segment_pool_id": (0, i % 2), "total_size": 10**i} for i in range(4)]
    monkeypatch.setattr(torch.cuda, "memory_snapshot", lambda: segments)
    assert cuda_graphs._pool_bytes(cuda_graphs._Pool((0, 1), None)) == 1010


def test_the_models_device_decides_the_arithmetic(monkeypatch: pytest.MonkeyPatch, tf32: None) -> None:
    def properties(device: torch.device) -> SimpleNamespace:
        return SimpleNamespace(gcnArchName=("gfx90a", "gfx942")[device.index])

    monkeypatch.setattr(torch.version, "hip", "6.3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    model = Layer()
    keys = [cuda_graphs.cache_key(model, torch.device("cuda", index)) for index in (0, 1, 1)]
    assert keys[0].arithmetic != keys[1].arithmetic == keys[2].arithmetic


@pytest.mark.parametrize("captured", [[], [0], [1], [0, 1]], ids=str)
def test_nothing_is_captured_beside_a_capture(captured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    current = graphs.several_devices(monkeypatch, captured)
    assert cuda_graphs.is_capturing(torch.device("cuda", 1)) == bool(captured)
    assert current == [0]
