"""The frame maximum in CUDA C++, run on the CPU: exact, with its ties, NaNs and supports, and its gradient."""

import math
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from torch import Tensor

from tests.csrc.cuda.operators import TF32, TYPES, Memory, Tables, call, normal, random_support

each_dtype = pytest.mark.parametrize("dtype", TYPES, ids=str)
each_offset = pytest.mark.parametrize("offset", [0, 1], ids=["aligned", "misaligned"])


@dataclass(frozen=True)
class Case:
    """Lengths of the sequences, rows, columns and channels."""

    lens: tuple[int, ...]
    h: int
    w: int
    c: int

    def map(self, dtype: torch.dtype, seed: int = 0) -> Tensor:
        """A random map [frames, h, w, c], of few values, so that maxima tie."""
        return (normal(sum(self.lens), self.h, self.w, self.c, seed=seed) * 4).round().to(dtype) / 4


CASES = {
    "one frame": Case((1,), 1, 3, 8),
    "ragged": Case((1, 2, 8, 9, 19), 5, 7, 16),
    "odd channels": Case((3, 11), 3, 5, 7),
    "one channel": Case((17,), 7, 11, 1),
    "several blocks": Case((2, 5), 13, 11, 40),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def frame_maximum(
    module: ModuleType, x: Tensor, support: Tensor | None, lens: tuple[int, ...], offset: int = 0
) -> tuple[Tensor, Tensor]:
    memory, tables, (_, h, w, c) = Memory(offset), Tables(lens), x.shape
    maximum = memory.output(len(lens), h, w, c, dtype=x.dtype)
    index = memory.output(len(lens), h, w, c, dtype=torch.int16)
    call(
        module,
        "frame_maximum",
        maximum=maximum,
        index=index,
        x=memory.given(x),
        support=None if support is None else memory.given(support),
        starts=tables.starts,
        sequences=len(lens),
        h=h,
        w=w,
        c=c,
        type=TYPES[x.dtype],
    )
    if not x.isnan().any() or support is not None:
        memory.check()
    return maximum, index


def expected_maximum(x: Tensor, lens: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Maxima and the first frames that attain them; NumPy's first NaN wins, too."""
    found = [torch.from_numpy(sequence.float().numpy().argmax(0)) for sequence in x.split(lens)]
    maxima = [sequence.gather(0, first[None])[0] for sequence, first in zip(x.split(lens), found, strict=True)]
    return torch.stack(maxima), torch.stack(found).to(torch.int16)


@each_dtype
@each_offset
@each_case
def test_first_of_the_largest(case: Case, offset: int, dtype: torch.dtype, module: ModuleType) -> None:
    x = case.map(dtype)
    found, expected = frame_maximum(module, x, None, case.lens, offset), expected_maximum(x, case.lens)
    assert all(map(torch.equal, found, expected))


@each_dtype
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@each_case
def test_what_stands_outside_counts_as_0(case: Case, share: float, dtype: torch.dtype, module: ModuleType) -> None:
    x = -case.map(dtype).abs()
    support = random_support(*x.shape[:3], share=share)
    inside = support[..., None] != 0
    found = frame_maximum(module, x.where(inside, math.nan), support, case.lens)
    assert all(map(torch.equal, found, expected_maximum(x.where(inside, 0), case.lens)))


@each_dtype
@pytest.mark.parametrize("case", [CASES["ragged"], CASES["odd channels"]], ids=["vectors", "elements"])
def test_first_nan_wins(case: Case, dtype: torch.dtype, module: ModuleType) -> None:
    x = case.map(dtype)
    x[normal(*x.shape, seed=1) > 1.5] = math.nan
    x[normal(*x.shape, seed=2) > 1.5] = math.inf
    (maximum, index), expected = frame_maximum(module, x, None, case.lens), expected_maximum(x, case.lens)
    assert x.isnan().any()
    assert torch.equal(maximum.nan_to_num(), expected[0].nan_to_num())
    assert torch.equal(maximum.isnan(), expected[0].isnan())
    assert torch.equal(index, expected[1])


def test_minus_infinity_is_a_value(module: ModuleType) -> None:
    x = torch.full((3, 1, 1, 8), -math.inf)
    maximum, index = frame_maximum(module, x, None, (3,))
    assert (maximum == -math.inf).all()
    assert not index.any()


def test_sequences_of_no_frames_give_0(module: ModuleType) -> None:
    x = CASES["ragged"].map(torch.float32)[:4] + 10
    maximum, index = frame_maximum(module, x, None, (0, 3, 0, 1, 0))
    for empty in (0, 2, 4):
        assert not maximum[empty].any()
        assert not index[empty].any()
    real = expected_maximum(x, (3, 1))
    assert torch.equal(maximum[[1, 3]], real[0])
    assert torch.equal(index[[1, 3]], real[1])


def test_tf32_is_stored_as_float32(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["odd channels"]
    x = case.map(torch.float32)
    monkeypatch.setitem(TYPES, torch.float32, TF32)
    assert all(map(torch.equal, frame_maximum(module, x, None, case.lens), expected_maximum(x, case.lens)))


# ---- its gradient

GRADIENTS = [(dtype, grad) for dtype in TYPES for grad in {dtype: 0, torch.float32: 0}]
each_gradient = pytest.mark.parametrize(("dtype", "grad_dtype"), GRADIENTS, ids=[f"{a}-{b}" for a, b in GRADIENTS])


def attained(case: Case, index: Tensor) -> Tensor:
    """Where a frame attains the maximum of its sequence: bool [frames, h, w, c]."""
    frames = torch.cat([torch.arange(count) for count in case.lens])
    return index.repeat_interleave(torch.tensor(case.lens), 0) == frames[:, None, None, None]


def random_index(case: Case) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    shape = case.h, case.w, case.c
    return torch.stack([torch.randint(count, shape, generator=generator, dtype=torch.int16) for count in case.lens])


@each_gradient
@each_offset
@each_case
def test_gradient(case: Case, offset: int, dtype: torch.dtype, grad_dtype: torch.dtype, module: ModuleType) -> None:
    behind = 3
    memory, tables, frames = Memory(offset), Tables(case.lens, behind=behind), sum(case.lens)
    grad, index = normal(len(case.lens), case.h, case.w, case.c).to(grad_dtype), random_index(case)
    gx = memory.output(frames + behind, case.h, case.w, case.c, dtype=dtype)
    call(
        module,
        "frame_maximum_backward",
        gx=gx,
        grad=memory.given(grad),
        index=memory.given(index),
        ends=tables.ends,
        sequence_of_frame=tables.sequence_of_frame,
        frames=frames + behind,
        h=case.h,
        w=case.w,
        c=case.c,
        type=TYPES[dtype],
        grad_type=TYPES[grad_dtype],
    )
    memory.check()
    spread = grad.to(dtype).repeat_interleave(torch.tensor(case.lens), 0)
    assert torch.equal(gx[:frames], spread.where(attained(case, index), 0))


@each_gradient
@each_offset
@each_case
def test_added_gradient(
    case: Case, offset: int, dtype: torch.dtype, grad_dtype: torch.dtype, module: ModuleType
) -> None:
    # A sequence of no frames stands at the beginning and one at the end: nothing may be added for them.
    lens = (0, *case.lens, 0)
    memory, tables = Memory(offset), Tables(lens)
    grad, index = normal(len(case.lens), case.h, case.w, case.c).to(grad_dtype), random_index(case)
    before, one = case.map(dtype), torch.ones_like(grad[:1])
    gx = memory.given(before)
    call(
        module,
        "frame_maximum_backward_add",
        gx=gx,
        grad=memory.given(torch.cat([one, grad, one])),
        index=memory.given(torch.cat([index[:1] * 0, index, index[:1] * 0])),
        starts=tables.starts,
        sequences=len(lens),
        h=case.h,
        w=case.w,
        c=case.c,
        type=TYPES[dtype],
        grad_type=TYPES[grad_dtype],
    )
    memory.check()
    spread = grad.float().repeat_interleave(torch.tensor(case.lens), 0)
    assert torch.equal(gx, (before.float() + spread).to(dtype).where(attained(case, index), before))
