"""The supports in CUDA C++, run on the CPU, against the maxima of torch."""

from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, max_pool3d

from hstl_fast import reference
from tests.csrc.cuda.operators import Memory, Tables, call, random_support

each_offset = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])
each_share = pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])


@dataclass(frozen=True)
class Case:
    """Lengths of the sequences, rows of the regions, and columns."""

    lens: tuple[int, ...]
    split: tuple[int, ...]
    w: int

    def support(self, share: float) -> Tensor:
        """Random positions [frames, rows, columns]."""
        return random_support(sum(self.lens), sum(self.split), self.w, share=share)


CASES = {
    "one position": Case((1,), (1,), 1),
    "one-row regions": Case((3, 4), (1, 1, 2, 1), 7),
    "two strips of columns": Case((4, 3), (7, 5), 31),
    "exactly two strips": Case((3,), (2, 3), 60),
    "many rows": Case((3, 5), (19, 2), 13),
    "whole words": Case((5, 8), (4, 4), 32),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def grown(module: ModuleType, case: Case, x: Tensor, behind: int = 0) -> Tensor:
    memory, tables = Memory(), Tables(case.lens, case.split, behind)
    y = memory.output(*x.shape, dtype=torch.uint8)
    call(
        module,
        "grow_support",
        y=y,
        x=memory.given(x),
        ends=tables.ends,
        regions=tables.regions,
        region_of_row=tables.region_of_row,
        frames=len(x),
        h=x.shape[1],
        w=case.w,
    )
    memory.check()
    return y


def expected_grown(case: Case, x: Tensor) -> Tensor:
    return reference.grow_support(x[None] != 0, case.split, case.lens)[0].to(torch.uint8)


@each_share
@each_case
def test_grown(case: Case, share: float, module: ModuleType) -> None:
    x = case.support(share)
    assert torch.equal(grown(module, case, x), expected_grown(case, x))


def test_frames_behind_the_last_sequence_do_not_grow_into_it(module: ModuleType) -> None:
    case, behind = CASES["one-row regions"], 2
    x = case.support(0.05)
    y = grown(module, case, torch.cat([x, torch.ones_like(x[:1]).expand(behind, -1, -1)]), behind)
    assert torch.equal(y[: len(x)], expected_grown(case, x))
    assert (y[len(x) :] == 1).all()


@pytest.mark.parametrize("seed", range(1, 5))
def test_order_of_threads_does_not_matter(seed: int, module: ModuleType) -> None:
    module.shim.options(seed=seed)
    case = CASES["exactly two strips"]
    x = torch.zeros_like(case.support(0))
    x[..., [26, 31]] = 1  # around the two strips' border
    assert torch.equal(grown(module, case, x), expected_grown(case, x))


def windows_of(lens: tuple[int, ...]) -> Tensor:
    """A window's second frame, and the first and the last frame of its sequence."""
    starts = Tables(lens).starts.tolist()
    return torch.tensor(
        [
            [first + 3 * i, first, first + count - 1]
            for first, count in zip(starts, lens, strict=False)
            for i in range(count // 3)
        ],
        dtype=torch.int32,
    )


@each_offset
@each_share
@each_case
def test_windows(case: Case, share: float, offset: int, module: ModuleType) -> None:
    lens = tuple(count + 2 for count in case.lens)
    x, memory, windows = Case(lens, case.split, case.w).support(share), Memory(offset), windows_of(lens)
    y = memory.output(len(windows), *x.shape[1:], dtype=torch.uint8)
    call(module, "window_support", y=y, x=memory.given(x), windows=windows, frames=len(y), h=x.shape[1], w=case.w)
    memory.check()
    expected = [max_pool3d((s != 0).float()[None, None], (5, 1, 1), (3, 1, 1), (1, 0, 0))[0, 0] for s in x.split(lens)]
    assert torch.equal(y, torch.cat(expected).to(torch.uint8))


@pytest.mark.parametrize(("frames", "h", "w"), [(3, 8, 44), (2, 5, 7), (1, 2, 2), (4, 1, 9), (7, 13, 11)])
@each_share
def test_max_pool(share: float, frames: int, h: int, w: int, module: ModuleType) -> None:
    x, memory = random_support(frames, h, w, share=share), Memory()
    y = memory.output(frames, h // 2, w // 2, dtype=torch.uint8)
    call(module, "max_pool_support", y=y, x=memory.given(x), frames=frames, h=h, w=w)
    memory.check()
    if y.numel():
        assert torch.equal(y, max_pool2d((x != 0).float(), 2).to(torch.uint8))
