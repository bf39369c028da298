"""Memory of maps and scratch that is used again."""

import gc
import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from hstl_fast import clear_caches, functional
from hstl_fast.backends.cpu import allocator
from hstl_fast.backends.cpu.allocator import Block, Borrowed, _Blocks, _blocks, allocate, allocate_map, free_bytes
from hstl_fast.ops.support import Support

MIB = 1 << 20


@pytest.fixture(autouse=True)
def emptied(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("HSTL_FAST_MEMORY_CACHE", raising=False)
    gc.collect()
    clear_caches()
    yield
    clear_caches()


def test_a_block_comes_back_and_is_used_again() -> None:
    first = allocate(3 * MIB)
    place = first.data_ptr()
    assert first.nbytes == 3 * MIB
    assert place % 64 == 0
    assert free_bytes() == 0
    del first
    assert free_bytes() >= 3 * MIB
    assert allocate(3 * MIB).data_ptr() == place


REFERENCES = {
    "slice": lambda block: block[5:6],
    "view": lambda block: block.view(torch.float32),
    "numpy": torch.Tensor.numpy,
    "storage": torch.Tensor.untyped_storage,
}


@pytest.mark.parametrize("refer", REFERENCES.values(), ids=REFERENCES)
def test_a_block_is_not_used_again_while_anything_refers_to_it(refer: Callable[[torch.Tensor], object]) -> None:
    block = allocate(3 * MIB)
    place, reference = block.data_ptr(), refer(block)
    del block
    assert free_bytes() == 0
    assert allocate(3 * MIB).data_ptr() != place
    del reference


def test_the_collector_may_release_a_block_while_another_is_looked_for() -> None:
    garbage = list[Block]()

    class Collecting(_Blocks):
        def _cut(self, wanted: int) -> Block | None:
            while garbage:
                self.release(garbage.pop())
            return super()._cut(wanted)

    blocks = Collecting()
    *taken, last = [blocks.take(size * MIB) for size in (2, 3, 4)]
    for block in taken:
        blocks.release(block)
    garbage.append(last)
    found = blocks.take(3 * MIB)
    assert not garbage
    assert found.address == taken[1].address
    assert (blocks.used_bytes, blocks.free_bytes) == (3 * MIB, 6 * MIB)


def test_blocks_are_cut_from_a_larger_one_and_grow_together_again() -> None:
    large = allocate(16 * MIB)
    place = large.data_ptr()
    del large
    parts = [allocate(size * MIB) for size in (5, 3, 8)]
    assert [part.data_ptr() - place for part in parts] == [0, 5 * MIB, 8 * MIB]
    assert free_bytes() == 0
    for i in (0, 2, 1):
        parts[i] = torch.empty(0)
    assert allocate(16 * MIB).data_ptr() == place


def test_the_smallest_room_is_taken() -> None:
    parts = [allocate(size * MIB) for size in (6, 1, 4, 1)]
    places = [part.data_ptr() for part in parts]
    parts[0] = parts[2] = torch.empty(0)
    small = allocate(3 * MIB)
    assert small.data_ptr() == places[2]
    assert allocate(5 * MIB).data_ptr() == places[0]


def test_one_segment_takes_the_place_of_all_where_nothing_is_in_use() -> None:
    for _ in range(3):
        held = [allocate(size * MIB) for size in (4, 6, 5)]
        del held
    assert len(_blocks.segments) == 1
    place = _blocks.segments[0].address
    for sizes in ((4, 6, 5), (9, 6), (1, 14), (15,)):
        held = [allocate(size * MIB) for size in sizes]
        assert all(place <= block.data_ptr() < place + 15 * MIB for block in held)
        del held
    assert [segment.address for segment in _blocks.segments] == [place]


def test_what_is_free_beside_a_block_in_use_is_given_back() -> None:
    del [allocate(16 * MIB)][0]
    block = allocate(3 * MIB)
    assert free_bytes() == 13 * MIB
    block.fill_(7)
    clear_caches()
    assert free_bytes() == 0
    assert (block == 7).all()
    others = [allocate(13 * MIB), allocate(2 * MIB)]
    for other in others:
        other.fill_(8)
    assert (block == 7).all()
    del block, other, others
    assert free_bytes() >= 15 * MIB


def test_gaps_that_nothing_fits_into_are_given_back() -> None:
    del [allocate(16 * MIB)][0]
    held = [allocate(MIB) for _ in range(16)]
    del held[::2]
    assert free_bytes() == 8 * MIB
    larger = [allocate(2 * MIB) for _ in range(4)]
    assert _blocks.used_bytes == 16 * MIB
    assert free_bytes() <= MIB
    for block in (*held, *larger):
        block.fill_(1)
    del block, held, larger
    assert free_bytes() <= 1.04 * 16 * MIB


def test_blocks_in_use_never_overlap() -> None:
    sizes, held = random.Random(1), dict[int, tuple[torch.Tensor, int]]()
    for i in range(400):
        block = allocate(sizes.randrange(MIB, 4 * MIB))
        block[:: 1 << 14] = i % 251
        held[i] = block, i % 251
        del block
        while len(held) > sizes.randrange(8):
            kept, mark = held.pop(sizes.choice(list(held)))
            assert (kept[:: 1 << 14] == mark).all()
            del kept
        if i % 97 == 0:
            clear_caches()


def test_no_more_is_kept_than_was_in_use_at_once() -> None:
    most = 0
    for size in (9, 2, 5, 31, 3, 12, 70, 1, 33):
        held = [allocate(size * MIB), allocate(MIB)]
        most = max(most, sum(block.nbytes for block in held))
        del held
        assert free_bytes() <= 1.04 * most


def test_a_map_has_its_shape_in_memory() -> None:
    y = allocate_map(torch.empty(1, dtype=torch.float64), 2, 32, 10, 16, 11)
    assert y.shape == (2, 32, 10, 16, 11)
    assert y.dtype == torch.float64
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


def test_memory_is_given_back_when_asked() -> None:
    del [allocate(8 * MIB)][0]
    assert free_bytes() > 0
    clear_caches()
    assert free_bytes() == 0


def test_nothing_is_kept_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSTL_FAST_MEMORY_CACHE", "0")
    del [allocate(8 * MIB)][0]
    assert free_bytes() == 0


@pytest.mark.parametrize("retained", [False, True], ids=["graph not retained", "graph retained"])
def test_the_gradient_of_an_input_takes_the_place_of_the_output(retained: bool) -> None:
    """The output is let go of before the map is made, unless it is needed again."""
    if not hasattr(torch._C._FunctionBase, "maybe_clear_saved_tensors"):
        pytest.skip("this version of torch frees what was saved after backward only")
    places: list[int] = []
    x = torch.ones(1, 32, 24, 64, 44, requires_grad=True)
    through = x * 1
    through.register_hook(lambda gradient: places.append(gradient.data_ptr()))
    everywhere = torch.ones(1, 24, 64, 44, dtype=torch.bool)
    support = Support(everywhere, everywhere, owns_gradient=True)  # as a network says of its own maps
    y = functional.arme(through, torch.ones(1, 32, 32, 3, 3, 3), [64], backend="cpu", support=support)
    output, z = y.data_ptr(), y * 1
    del y
    torch.autograd.grad(z, x, torch.ones(z.shape).contiguous(memory_format=torch.channels_last_3d), retained)
    assert (places == [output]) is not retained


def test_what_cannot_be_had_is_said_and_forgotten() -> None:
    with pytest.raises(MemoryError, match="cannot allocate"):
        allocate(1 << 60)
    del [allocate(2 * MIB)][0]
    assert 0 < free_bytes() < 4 * MIB


def test_little_is_had_where_the_system_is_short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    held = [allocate(size * MIB) for size in (4, 6)]
    del held
    fresh = allocator._fresh

    def scarce(size: int) -> np.ndarray:
        if size > 3 * MIB:
            raise MemoryError(f"cannot allocate {size} bytes")
        return fresh(size)

    monkeypatch.setattr(allocator, "_fresh", scarce)
    block = allocate(2 * MIB)
    assert block.nbytes == 2 * MIB
    with pytest.raises(MemoryError, match="cannot allocate"):
        allocate(4 * MIB)


def test_a_failed_attempt_does_not_count_as_use() -> None:
    with pytest.raises(MemoryError, match="cannot allocate"):
        allocate(1 << 60)
    for size in (2, 9, 38):
        del [allocate(size * MIB)][0]
        assert free_bytes() <= 1.25 * size * MIB


def test_mixtures_of_sizes_do_not_add_up() -> None:
    """What is kept stays below the most that was asked for at once, whatever blocks were taken for it."""
    sizes, most = random.Random(0), 0
    for _ in range(300):
        wanted = [sizes.randrange(MIB, 12 * MIB) for _ in range(3)]
        most = max(most, sum(wanted))
        held = [allocate(size) for size in wanted]
        del held
        assert free_bytes() <= 1.04 * most


def test_borrowed_memory_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[int] = []

    def fail() -> None:
        with Borrowed(3 * MIB) as memory, Borrowed(3 * MIB) as other:
            places.extend((memory.address, other.address))
            assert free_bytes() == 0
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert all(place % 64 == 0 for place in places)
    assert abs(places[0] - places[1]) >= 3 * MIB
    assert free_bytes() >= 6 * MIB
    clear_caches()
    monkeypatch.setenv("HSTL_FAST_MEMORY_CACHE", "0")
    with Borrowed(3 * MIB) as memory:
        assert memory.address % 64 == 0
    assert free_bytes() == 0


def test_threads_never_share_a_block() -> None:
    faults = []

    def work(mark: int) -> None:
        for _ in range(200):
            block = allocate(2 * MIB)
            block[::4096] = mark
            if not (block[::4096] == mark).all():
                faults.append(mark)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
