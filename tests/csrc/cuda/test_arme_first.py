"""The first layer in CUDA C++, ARME of one channel, run on the CPU against the reference in float64."""

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from hstl_fast import reference
from tests.csrc.cuda.operators import BYTES, TF32, TYPES, Memory, Tables, call, normal
from tests.helpers.bounds import distance, rounding


@dataclass(frozen=True)
class Case:
    """Lengths of the sequences, rows of the regions, columns, output channels, and the share of the input's support."""

    lens: tuple[int, ...]
    split: tuple[int, ...]
    w: int
    c_out: int
    share: float | None = None

    @property
    def sites(self) -> int:
        """Positions of all frames."""
        return sum(self.lens) * sum(self.split) * self.w


CASES = {
    "one position": Case((1,), (1,), 1, 1),
    "one frame": Case((1,), (3,), 5, 8, 0.5),
    "one-row regions": Case((2, 3), (1, 1, 2), 7, 7),
    "ragged, prime sizes": Case((4, 1, 3), (7, 3), 11, 32, 0.1),
    "two tiles of columns": Case((2, 3), (3, 2), 67, 16, 0.05),
    "two blocks of channels": Case((3,), (2,), 6, 136, 0.3),
    "many tiles": Case((9, 5), (19, 2), 13, 20, 0.1),
    "many positions in a tile": Case((8, 3), (9,), 41, 8, 0.1),
    "nothing inside": Case((2, 1), (3, 2), 5, 8, 0.0),
    "everything inside": Case((5,), (9,), 8, 12, 1.0),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_dtype = pytest.mark.parametrize("dtype", TYPES, ids=str)
each_input = pytest.mark.parametrize("is_bytes", [True, False], ids=["bytes", "floating"])
each_size = pytest.mark.parametrize("multiprocessors", [1, 132])


class Inputs(NamedTuple):
    """x [F, H, W, 1], weights [m, c_out, 1, 3, 3, 3], the sums' gradient [F, H, W, c_out], and y's support."""

    x: Tensor
    weights: Tensor
    grad: Tensor
    support: Tensor | None

    def exact(self) -> tuple[Tensor, Tensor]:
        """x as the reference takes it, and the weights, in float64."""
        x = self.x.double() / (255 if self.x.dtype == torch.uint8 else 1)
        return x.permute(3, 0, 1, 2)[None], self.weights.double()


def inputs_of(case: Case, dtype: torch.dtype, is_bytes: bool) -> Inputs:
    shape = sum(case.lens), sum(case.split), case.w
    generator, support = torch.Generator().manual_seed(0), None
    x = normal(*shape, 1).to(dtype)
    if is_bytes:
        x = torch.randint(0, 256, (*shape, 1), generator=generator, dtype=torch.uint8)
    if case.share is not None:
        inside = torch.rand(shape, generator=generator) < case.share
        x = x * inside[..., None]
        support = reference.grow_support(inside[None], case.split, case.lens)[0]
    weights = (normal(len(case.split), case.c_out, 1, 3, 3, 3, seed=1) / 27**0.5).to(dtype)
    return Inputs(x, weights, normal(*shape, case.c_out, seed=2).to(dtype), support)


def arguments_of(case: Case, given: Inputs, memory: Memory) -> dict[str, object]:
    """The arguments that both functions take; their tensors are copies in `memory`."""
    tables, kind = Tables(case.lens, case.split), TYPES[given.weights.dtype]
    return {
        "x": memory.given(given.x),
        "y_support": None if given.support is None else memory.given(given.support),
        "starts": tables.starts,
        "ends": tables.ends,
        "regions": tables.regions,
        **sizes_of(case),
        "type": kind,
        "x_type": BYTES if given.x.dtype == torch.uint8 else kind,
    }


def sizes_of(case: Case) -> dict[str, object]:
    return {
        "split": list(case.split),
        "frames": sum(case.lens),
        "sequences": len(case.lens),
        "w": case.w,
        "c_in": 1,
        "c_out": case.c_out,
        "stretch": 30,
    }


def forward(module: ModuleType, case: Case, given: Inputs, slope: float = 0.01, offset: int = 0) -> Tensor:
    memory = Memory(offset)
    y = memory.output(*given.grad.shape, dtype=given.weights.dtype)
    arguments = arguments_of(case, given, memory)
    weights = memory.given(given.weights)
    call(module, "arme_forward", y=y, weights=weights, workspace=None, negative_slope=slope, **arguments)
    memory.check()
    return y


def wgrad(module: ModuleType, case: Case, given: Inputs, offset: int = 0) -> Tensor:
    """The gradient of the weights; gradients outside the support are NaN, since nobody may read them."""
    memory = Memory(offset)
    gw = memory.output(*given.weights.shape, dtype=torch.float32)
    grad = given.grad if given.support is None else given.grad.masked_fill(~given.support[..., None], torch.nan)
    kind = TYPES[given.weights.dtype]
    size = call(module, "arme_workspace", type=kind, wgrad=True, **sizes_of(case))
    # The scratch memory may be larger than what is written.
    scratch = Memory().given(torch.full((size,), 255, dtype=torch.uint8))
    call(module, "arme_wgrad", gw=gw, grad=memory.given(grad), workspace=scratch, **arguments_of(case, given, memory))
    memory.check()
    return gw


def expected_forward(case: Case, given: Inputs, slope: float = 0.01) -> Tensor:
    y = reference.arme(*given.exact(), case.split, seq_lens=case.lens, negative_slope=slope)[0].permute(1, 2, 3, 0)
    return y if given.support is None else y.where(given.support[..., None], 0)


def expected_wgrad(case: Case, given: Inputs) -> Tensor:
    x, weights = given.exact()
    weights.requires_grad_()
    y = reference.arme(x, weights, case.split, seq_lens=case.lens, negative_slope=None)
    grad = given.grad.double()
    if given.support is not None:
        grad = grad.where(given.support[..., None], 0)
    (gw,) = torch.autograd.grad(y, weights, grad.permute(3, 0, 1, 2)[None])
    return gw


@each_dtype
@each_input
@each_size
@each_case
def test_forward(case: Case, multiprocessors: int, is_bytes: bool, dtype: torch.dtype, module: ModuleType) -> None:
    # More multiprocessors get shorter tiles.
    module.shim.options(multiprocessors=multiprocessors)
    given = inputs_of(case, dtype, is_bytes)
    y, expected = forward(module, case, given), expected_forward(case, given)
    # 27 products, the division by 255, and one rounding to the type.
    assert distance(y, expected) <= rounding(torch.float32, 28) + torch.finfo(dtype).eps / 2
    if given.support is not None:
        assert not y[~given.support].any()


@each_dtype
@each_input
@each_size
@each_case
def test_wgrad(case: Case, multiprocessors: int, is_bytes: bool, dtype: torch.dtype, module: ModuleType) -> None:
    # More multiprocessors get more partial sums.
    module.shim.options(multiprocessors=multiprocessors)
    given = inputs_of(case, dtype, is_bytes)
    assert distance(wgrad(module, case, given), expected_wgrad(case, given)) <= rounding(torch.float32, case.sites + 1)


@each_dtype
@pytest.mark.parametrize("name", ["two tiles of columns", "many tiles"])
def test_misaligned_memory(name: str, dtype: torch.dtype, module: ModuleType) -> None:
    case = CASES[name]
    given = inputs_of(case, dtype, is_bytes=False)
    assert torch.equal(forward(module, case, given, offset=1), forward(module, case, given))
    assert torch.equal(wgrad(module, case, given, offset=1), wgrad(module, case, given))


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.25])
def test_slope(slope: float, module: ModuleType) -> None:
    case = CASES["ragged, prime sizes"]
    given = inputs_of(case, torch.float32, is_bytes=False)
    y = forward(module, case, given, slope)
    assert distance(y, expected_forward(case, given, slope)) <= rounding(torch.float32, 28)
    assert bool((y < 0).any()) == (slope > 0)


def test_order_of_threads_does_not_matter(module: ModuleType) -> None:
    case = CASES["many tiles"]
    given = inputs_of(case, torch.bfloat16, is_bytes=True)
    plain = forward(module, case, given), wgrad(module, case, given)
    for seed in (1, 2):
        module.shim.options(seed=seed, late=False)
        assert all(map(torch.equal, (forward(module, case, given), wgrad(module, case, given)), plain))


def test_tf32_is_multiplied_as_float32(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["ragged, prime sizes"]
    given = inputs_of(case, torch.float32, is_bytes=False)
    plain = forward(module, case, given), wgrad(module, case, given)
    monkeypatch.setitem(TYPES, torch.float32, TF32)
    assert all(map(torch.equal, (forward(module, case, given), wgrad(module, case, given)), plain))


def test_frames_behind_the_last_sequence_are_written(module: ModuleType) -> None:
    case, behind = Case((3, 2), (4,), 6, 8), 3
    given = inputs_of(Case((3, 2, behind), case.split, case.w, case.c_out), torch.float32, is_bytes=True)
    memory, tables = Memory(), Tables(case.lens, case.split, behind)
    arguments = arguments_of(case, given, memory) | {"frames": 5 + behind, "ends": tables.ends}
    y = memory.output(*given.grad.shape, dtype=torch.float32)
    weights = memory.given(given.weights)
    call(module, "arme_forward", y=y, weights=weights, workspace=None, negative_slope=1.0, **arguments)
    memory.check()
    real = given._replace(x=given.x[:5], grad=given.grad[:5])
    assert torch.equal(y[:5], forward(module, case, real, 1.0))
