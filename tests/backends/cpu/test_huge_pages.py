"""New layers ask for huge pages under their weights; where there are none, nothing happens."""

import ctypes

import pytest
import torch

from hstl_fast.backends.cpu import huge_pages
from hstl_fast.backends.cpu.huge_pages import HUGE_PAGE, prefer_huge_pages
from hstl_fast.nn import ARME

Advice = tuple[int, int]


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[Advice]:
    """The begin and the end of all memory that huge pages are asked for."""
    found: list[Advice] = []

    def advise(begin: ctypes.c_void_p, size: ctypes.c_size_t, _: int) -> int:
        assert begin.value is not None
        found.append((begin.value, begin.value + size.value))
        return -1  # the system refuses

    monkeypatch.setattr(huge_pages, "_advise", lambda: advise)
    return found


@pytest.mark.parametrize("size", [1, HUGE_PAGE - 1, HUGE_PAGE, 3 * HUGE_PAGE + 5])
def test_whole_pages_within_the_tensor_are_asked_for(size: int, advised: list[Advice]) -> None:
    memory = torch.empty(size + 2 * HUGE_PAGE, dtype=torch.uint8)
    for offset in (0, 1, -memory.data_ptr() % HUGE_PAGE):
        x = memory[offset : offset + size]
        prefer_huge_pages(x)
        begin, end = advised.pop() if advised else (0, 0)
        assert begin % HUGE_PAGE == end % HUGE_PAGE == 0
        if begin < end:
            assert x.data_ptr() <= begin < x.data_ptr() + HUGE_PAGE
            assert x.data_ptr() + size - HUGE_PAGE < end <= x.data_ptr() + size
        else:
            assert size - (-x.data_ptr()) % HUGE_PAGE < HUGE_PAGE


def test_weights_of_layers_are_in_them(advised: list[Advice]) -> None:
    layer = ARME(128, 256, [4, 4])
    ((begin, end),) = advised
    assert layer.weight.data_ptr() <= begin < end <= layer.weight.data_ptr() + layer.weight.nbytes
    assert end - begin > layer.weight.nbytes - 2 * HUGE_PAGE


def test_other_tensors_are_left_alone(advised: list[Advice]) -> None:
    prefer_huge_pages(torch.empty(1 << 22, device="meta"))
    prefer_huge_pages(torch.nn.Parameter(torch.empty(1 << 22)))  # it may be in use
    assert not advised


def test_values_survive_and_systems_without_it_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(1 << 21)
    prefer_huge_pages(x)
    assert torch.equal(x, torch.arange(1 << 21))
    monkeypatch.setattr(huge_pages, "_advise", lambda: None)
    prefer_huge_pages(x)
