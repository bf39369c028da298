"""Small odd convolutions, run by a module of CUDA kernels on the CPU and judged against the reference in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast import reference
from tests.helpers import bounds


class Kind(NamedTuple):
    """How a convolution is stored and multiplied: the number in csrc/cuda/operators.h, and torch's type."""

    number: int
    dtype: torch.dtype


KINDS = {
    "float32": Kind(0, torch.float32),
    "tf32": Kind(1, torch.float32),
    "float16": Kind(2, torch.float16),
    "bfloat16": Kind(3, torch.bfloat16),
}
BYTES = 4
# When copies in the background arrive, and the order of the threads.
ORDERS = {"late": {"late": True, "seed": 0}, "early, permuted": {"late": False, "seed": 1}}


@dataclass(frozen=True)
class Case:
    """The sizes of a convolution, the frames of a block's stretch, and the share of positions that may be non-zero."""

    c_in: int
    c_out: int
    split: tuple[int, ...]
    lens: tuple[int, ...]
    w: int
    stretch: int = 30
    share: float | None = None

    @property
    def frames(self) -> int:
        """Frames of all sequences."""
        return sum(self.lens)


CASES = {
    "one frame": Case(16, 8, (3,), (1,), 5),
    "one-row regions, two frames": Case(8, 16, (1, 1, 2), (2,), 7),
    "ragged, prime sizes": Case(24, 40, (7, 3), (4, 1, 3), 11, 2, 0.1),
    "two column blocks": Case(40, 72, (5,), (3,), 7, 30, 0.2),
    "odd channels": Case(19, 13, (2, 5), (2, 3), 13, 3, 0.05),
    "a tile full of positions and a second one": Case(16, 32, (13,), (2,), 23, 1),
    "two panels": Case(16, 16, (3, 2), (2,), 67, 30, 0.02),
    "no active site": Case(16, 16, (3, 2), (2, 1), 5, 30, 0.0),
    "long stretches": Case(8, 8, (3,), (7, 5), 5, 4, 0.1),
}


def truncated(x: Tensor, kind: Kind) -> Tensor:
    """`x` in a kind's type, of values that its products take without rounding."""
    y = x.to(kind.dtype)
    return (y.view(torch.int32) & ~0x1FFF).view(torch.float32) if kind is KINDS["tf32"] else y


class Inputs(NamedTuple):
    """The inputs of a case: maps [1, c, t, h, w] and supports [1, t, h, w]."""

    x: Tensor
    weights: Tensor
    grad: Tensor
    x_support: Tensor | None
    y_support: Tensor | None


def inputs_of(case: Case, kind: Kind, seed: int = 0) -> Inputs:
    """Random inputs, 0 outside the support; gradients outside are NaN, since nobody may read them."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    h = sum(case.split)
    x = normal(1, case.c_in, case.frames, h, case.w)
    grad = normal(1, case.c_out, case.frames, h, case.w)
    weights = normal(len(case.split), case.c_out, case.c_in, 3, 3, 3) / (27 * case.c_in) ** 0.5
    x_support = y_support = None
    if case.share is not None:
        x_support = torch.rand((1, case.frames, h, case.w), generator=random) < case.share
        y_support = reference.grow_support(x_support, list(case.split), list(case.lens))
        x = x * x_support[:, None]
    return Inputs(*(truncated(value, kind) for value in (x, weights, grad)), x_support, y_support)


def channels_last(x: Tensor) -> Tensor:
    """A map [1, c, t, h, w] as [t, h, w, c], dense."""
    return x[0].permute(1, 2, 3, 0).contiguous()


def address(x: Tensor | None) -> int:
    """Where a tensor's memory begins; 0 for none."""
    return 0 if x is None else x.data_ptr()


class Tables:
    """The tables that kernels read."""

    def __init__(self, split: Sequence[int], lens: Sequence[int]) -> None:
        starts, rows = [0], [0]
        for count in lens:
            starts.append(starts[-1] + count)
        for count in split:
            rows.append(rows[-1] + count)
        ends = [[begin, end - 1] for begin, end in pairwise(starts) for _ in range(end - begin)]
        self.starts = torch.tensor(starts, dtype=torch.int32)
        self.ends = torch.tensor(ends, dtype=torch.int32)
        self.regions = torch.tensor([[row, count] for row, count in zip(rows, split, strict=False)], dtype=torch.int32)

    def addresses(self) -> tuple[int, int, int]:
        """Those of starts, ends and regions."""
        return address(self.starts), address(self.ends), address(self.regions)


def workspace(module: ModuleType, case: Case, kind: Kind, exchanged: bool = False, wgrad: bool = False) -> Tensor:
    """Scratch memory, full of bytes that are NaN in every type."""
    channels = (case.c_out, case.c_in) if exchanged else (case.c_in, case.c_out)
    sizes = (list(case.split), case.frames, len(case.lens), case.w, *channels)
    size = module.arme_workspace(*sizes, kind.number, case.stretch, wgrad, 0)
    return torch.full((size + 256,), 255, dtype=torch.uint8)[: size + 256]


def aligned(memory: Tensor) -> int:
    """The first address in it that is a multiple of 256."""
    return -(-memory.data_ptr() // 256) * 256


def forward(module: ModuleType, case: Case, kind: Kind, given: Inputs, slope: float = 0.01) -> Tensor:
    """The convolution by the module: [t, h, w, c_out]."""
    x, tables = channels_last(given.x), Tables(case.split, case.lens)
    y = torch.full((case.frames, sum(case.split), case.w, case.c_out), torch.nan, dtype=kind.dtype)
    memory = workspace(module, case, kind)
    module.arme_forward(
        *(address(each) for each in (y, x, given.weights, given.y_support)),
        *tables.addresses(),
        aligned(memory),
        *(list(case.split), case.frames, len(case.lens), case.w, case.c_in, case.c_out),
        *(slope, kind.number, BYTES if x.dtype == torch.uint8 else kind.number, case.stretch, 0, 0),
    )
    return y


class Fused(NamedTuple):
    """What dgrad also does: x, whose activation's derivative is applied, and the frame maximum's gradient and frame."""

    x: Tensor
    slope: float
    maximum_grad: Tensor
    maximum_index: Tensor


def fused_with(case: Case, kind: Kind, given: Inputs) -> Fused:
    """Random ones: x [t, h, w, c], gradients [n, h, w, c]."""
    random = torch.Generator().manual_seed(1)
    shape = (len(case.lens), sum(case.split), case.w, case.c_in)
    frames = [torch.randint(0, count, shape[1:], generator=random, dtype=torch.int16) for count in case.lens]
    return Fused(channels_last(given.x), 0.125, torch.randn(shape, generator=random), torch.stack(frames))


def dgrad(module: ModuleType, case: Case, kind: Kind, given: Inputs, fused: Fused | None = None) -> Tensor:
    """The gradient of x by the module: [t, h, w, c_in]."""
    grad, tables = channels_last(given.grad), Tables(case.split, case.lens)
    gx = torch.full((case.frames, sum(case.split), case.w, case.c_in), torch.nan, dtype=kind.dtype)
    memory = workspace(module, case, kind, exchanged=True)
    extra = (None, None, None) if fused is None else (fused.x, fused.maximum_grad, fused.maximum_index)
    module.arme_dgrad(
        *(address(each) for each in (gx, grad, given.weights, given.x_support, *extra)),
        *tables.addresses(),
        aligned(memory),
        *(list(case.split), case.frames, len(case.lens), case.w, case.c_in, case.c_out),
        *(1.0 if fused is None else fused.slope, kind.number, case.stretch, 0, 0),
    )
    return gx


def expected_forward(case: Case, given: Inputs, slope: float = 0.01) -> Tensor:
    """The reference's convolution in float64, 0 outside the support: [t, h, w, c_out]."""
    y = reference.arme(
        given.x.double(), given.weights.double(), list(case.split), seq_lens=list(case.lens), negative_slope=slope
    )
    return channels_last(y if given.y_support is None else y * given.y_support[:, None])


def expected_dgrad(case: Case, given: Inputs, fused: Fused | None = None) -> Tensor:
    """The reference's gradient in float64, 0 outside the support: [t, h, w, c_in]."""
    x = given.x.double().requires_grad_()
    y = reference.arme(x, given.weights.double(), list(case.split), seq_lens=list(case.lens), negative_slope=1.0)
    (gx,) = torch.autograd.grad(y, x, given.grad.double())
    gx = channels_last(gx)
    if fused is not None:
        at = torch.cat([torch.arange(count) for count in case.lens])
        sequence = torch.repeat_interleave(torch.arange(len(case.lens)), torch.tensor(case.lens))
        taken = fused.maximum_index[sequence] == at[:, None, None, None]
        gx = (gx + fused.maximum_grad.double()[sequence] * taken) * torch.where(fused.x > 0, 1.0, fused.slope)
    return gx if given.x_support is None else gx * given.x_support[0, ..., None]


def tolerance(kind: Kind, terms: int) -> float:
    """The bound of a float32 sum of exact products that is rounded once to the type."""
    return bounds.rounding(torch.float32, terms) + torch.finfo(kind.dtype).eps / 2


def is_right(found: Tensor, expected: Tensor, kind: Kind, terms: int) -> bool:
    """Whether every element was written and is within the bound, and is exactly 0 where 0 is expected everywhere."""
    return bool(found.isfinite().all()) and bounds.distance(found, expected) <= tolerance(kind, terms)
