"""The native CPU functions called directly, against `hstl_fast.reference` in float64.

Outputs lie between guard words and are full of NaN before the call; workspaces have exactly the size asked for and
guard words of their own. Maps are `[F, H, W, C]` as in csrc/cpu/operators.h.
"""

from __future__ import annotations

import math
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast import reference
from hstl_fast.backends.cpu import calls, head, library, operators  # noqa: F401  calls are defined when imported
from tests.helpers.bounds import away_from_kink, rounding

if library.cpu() is None:
    pytest.skip(library.cpu_error(), allow_module_level=True)
cpu = library.require_cpu()

GUARD = 32  # elements before and after every buffer
GUARD_VALUE = 77
EPS32 = 2.0**-23


@dataclass(frozen=True)
class Case:
    seq_lens: tuple[int, ...]
    split: tuple[int, ...]
    w: int
    c_in: int
    c_out: int

    @property
    def frames(self) -> int:
        return sum(self.seq_lens)

    @property
    def h(self) -> int:
        return sum(self.split)

    def __str__(self) -> str:
        return f"{self.seq_lens}-{self.split}-{self.w}-{self.c_in}-{self.c_out}".replace(" ", "")


CASES = [
    Case((1, 2, 3, 4, 5, 7), (3, 1, 1), 7, 3, 5),
    Case((2,), (5,), 1, 1, 1),
    Case((1,), (1,), 3, 17, 40),
    Case((4, 4), (7, 1, 3), 13, 40, 17),
    Case((5,), (11,), 29, 1, 32),
    Case((3, 7), (1, 1, 1, 4), 11, 32, 64),
    Case((4,), (6, 2), 44, 33, 3),
]
FTA_CASES = [case for case in CASES if max(case.seq_lens) >= 3]


class Buffers:
    """Output and workspace memory with guard words on both sides."""

    def __init__(self) -> None:
        self.wholes: list[Tensor] = []
        self.outputs: list[Tensor] = []

    def output(self, *shape: int, dtype: torch.dtype) -> Tensor:
        tensor = self._guarded(math.prod(shape), dtype).view(shape).fill_(math.nan if dtype.is_floating_point else -1)
        self.outputs.append(tensor)
        return tensor

    def workspace(self, size: int) -> int:
        return self._guarded(size, torch.uint8).data_ptr()

    def check(self) -> None:
        for whole in self.wholes:
            assert (whole[:GUARD] == GUARD_VALUE).all(), "wrote before the buffer"
            assert (whole[-GUARD:] == GUARD_VALUE).all(), "wrote past the buffer"
        for tensor in self.outputs:
            assert not tensor.isnan().any() if tensor.is_floating_point() else (tensor >= 0).all(), "left unwritten"

    def _guarded(self, size: int, dtype: torch.dtype) -> Tensor:
        whole = torch.full((size + 2 * GUARD,), GUARD_VALUE, dtype=dtype)
        self.wholes.append(whole)
        return whole[GUARD : GUARD + size]


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class Random:
    """Normal numbers, the same for every dtype but for rounding."""

    def __init__(self, dtype: torch.dtype, seed: int = 0) -> None:
        self.dtype = dtype
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=self.generator).to(self.dtype)


def as_map(x: Tensor) -> Tensor:
    """`[F, H, W, C]` as the packed `[1, C, F, H, W]` of the reference."""
    return x.permute(3, 0, 1, 2)[None]


def from_map(x: Tensor) -> Tensor:
    return x[0].permute(1, 2, 3, 0)


def error(got: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return ((got.double() - truth.double()).abs().max() / truth.double().abs().max()).item()


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """The truth is many small convolutions; torch's threads would only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=cpu.instruction_sets())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    before = cpu.instruction_set()
    cpu.use_instruction_set(request.param)
    yield request.param
    cpu.use_instruction_set(before)


both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
Results = dict[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """Inputs of an operator, the gradient that arrives at its output, and the operator in torch."""

    inputs: Results
    gradient: Tensor
    forward: Callable[..., Tensor]
    length: int = 1  # terms of the output's sums

    @cached_property
    def truth(self) -> Results:
        return torch_results(self.forward, self.inputs, self.gradient, torch.float64)

    @cached_property
    def torch_errors(self) -> dict[str, float]:
        own = torch_results(self.forward, self.inputs, self.gradient, self.gradient.dtype)
        return {name: error(own[name], expected) for name, expected in self.truth.items()}

    def errors(self, native: Results) -> dict[str, float]:
        return {name: error(native[name], expected) for name, expected in self.truth.items()}


def assert_exact(trial: Trial, native: Results) -> None:
    """float64: nothing but rounding."""
    assert trial.gradient.dtype == torch.float64
    for name, each in trial.errors(native).items():
        assert each <= 1e-13, name


def assert_as_good_as_torch(trials: list[Trial], run: Callable[[Trial], Results]) -> None:
    """float32: the median error of the trials is at most twice torch's own, or what the trial says of its sums."""
    errors = [trial.errors(run(trial)) for trial in trials]
    for name in errors[0]:
        torch_own = statistics.median(trial.torch_errors[name] for trial in trials)
        least = max(4 * EPS32, rounding(torch.float32, trials[0].length))
        assert statistics.median(each[name] for each in errors) <= max(2 * torch_own, least), name


def compare(trial_of: Callable[[torch.dtype, int], Trial], run: Callable[[Trial], Results], dtype: torch.dtype) -> None:
    if dtype == torch.float64:
        trial = trial_of(dtype, 0)
        assert_exact(trial, run(trial))
    else:
        assert_as_good_as_torch([trial_of(dtype, seed) for seed in range(3)], run)


def torch_results(forward: Callable[..., Tensor], inputs: Results, gradient: Tensor, dtype: torch.dtype) -> Results:
    """What torch gives in `dtype`: the output as `y` and gradients under their inputs' names."""
    leaves = {name: tensor.to(dtype, copy=True).requires_grad_() for name, tensor in inputs.items()}
    y = forward(**leaves)
    y.backward(gradient.to(dtype))
    return {"y": y.detach(), **{f"g{name}": leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}}


# ---- arme


@dataclass(frozen=True)
class Support:
    """Where the maps of a convolution may be non-zero: uint8 `[F, H, W]`."""

    x: Tensor
    y: Tensor


def arme_native(
    case: Case, trial: Trial, slope: float = 0.01, threads: int = 2, algorithm: int = 0, support: Support | None = None
) -> Results:
    x, w, gy = trial.inputs["x"], trial.inputs["w"], trial.gradient
    dtype, last = x.dtype, (case.c_in, case.c_out, algorithm, x.dtype.itemsize, threads)
    sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out, slope, *last[2:])
    memory = Buffers()
    needed = max(cpu.arme_workspace(*sizes[:3], *last, False), cpu.arme_wgrad_workspace(*sizes[:3], *last))
    workspace = memory.workspace(needed)
    packed, packed_back = (packed_weights(memory, case, w, algorithm, transposed) for transposed in (False, True))
    y, gx, gw = (memory.output(*t.shape, dtype=dtype) for t in (gy, x, w))
    sign = 0 if slope == 1 else address(y)
    where = (workspace, *((0, 0) if support is None else (address(support.x), address(support.y))))
    cpu.arme_forward(address(y), address(x), packed, *where, *sizes, 0, 0)
    cpu.arme_dgrad(address(gx), address(gy), sign, packed_back, *where, *sizes)
    cpu.arme_wgrad(address(gw), address(x), address(gy), sign, *where, *sizes)
    memory.check()
    return {"y": y, "gx": gx, "gw": gw}


def packed_weights(memory: Buffers, case: Case, w: Tensor, algorithm: int, transposed: bool) -> int:
    sizes = (case.split, case.c_in, case.c_out, algorithm, transposed, w.dtype.itemsize)
    packed = memory.workspace(cpu.arme_prepacked_size(*sizes))
    cpu.arme_prepack(packed, address(w), *sizes, 2)
    return packed


def arme_torch(case: Case, slope: float | None = 0.01) -> Callable[..., Tensor]:
    return lambda x, w: from_map(reference.arme(as_map(x), w, case.split, negative_slope=slope, seq_lens=case.seq_lens))


@cache
def arme_trial(case: Case, dtype: torch.dtype, seed: int = 0) -> Trial:
    random = Random(dtype, seed)
    scale = (2 / (27 * case.c_in)) ** 0.5
    inputs = {
        "x": random(case.frames, case.h, case.w, case.c_in),
        "w": random(len(case.split), case.c_out, case.c_in, 3, 3, 3) * scale,
    }
    gradient = random(case.frames, case.h, case.w, case.c_out)
    y = arme_torch(case)(inputs["x"].double(), inputs["w"].double())
    return Trial(inputs, away_from_kink(gradient, y, 1e-5).contiguous(), arme_torch(case), 27 * case.c_in)


@both_dtypes
@pytest.mark.parametrize("case", CASES, ids=str)
def test_arme(case: Case, dtype: torch.dtype, isa: str) -> None:
    compare(partial(arme_trial, case), partial(arme_native, case), dtype)


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
def test_arme_slopes(slope: float) -> None:
    case = CASES[0]
    trial = replace(arme_trial(case, torch.float64), forward=arme_torch(case, None if slope == 1 else slope))
    assert_exact(trial, arme_native(case, trial, slope))


def test_arme_gradient_takes_the_slope_where_the_output_is_zero() -> None:
    case = Case((3,), (4,), 5, 3, 2)
    trial = arme_trial(case, torch.float64)
    trial.inputs["x"][:, :, :3] = 0
    assert (trial.truth["y"] == 0).any()
    assert_exact(trial, arme_native(case, trial))


def test_arme_many_frames_and_wide_channels() -> None:
    case = Case((40, 3), (17,), 23, 72, 96)  # several blocks and groups of frames, partial chunks and panels
    assert_as_good_as_torch([arme_trial(case, torch.float32)], partial(arme_native, case))


def test_arme_keeps_subnormal_numbers(isa: str) -> None:
    case = Case((1,), (1,), 5, 1, 1)
    x = torch.full((1, 1, 5, 1), 1e-39)
    w = torch.zeros(1, 1, 1, 3, 3, 3)
    w[0, 0, 0, 1, 1, 1] = 1
    results = arme_native(case, Trial({"x": x, "w": w}, x, arme_torch(case)))
    assert torch.equal(results["y"], x)
    assert torch.equal(results["gx"], x)


# ---- arme and supports


def random_support(*shape: int, share: float = 0.05, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < share).to(torch.uint8)


def grown(case: Case, x: Tensor) -> Tensor:
    """One position in time, rows and columns, inside region and sequence."""
    y = torch.zeros_like(x)
    for sequence, into in zip(x.split(case.seq_lens), y.split(case.seq_lens), strict=True):
        for region, to in zip(sequence.split(case.split, 1), into.split(case.split, 1), strict=True):
            to.copy_(torch.nn.functional.max_pool3d(region.float()[None, None], 3, 1, 1)[0, 0])
    return y


SUPPORT_CASES = [*CASES, Case((3, 2, 1), (9, 2, 1, 3), 31, 1, 1), Case((2,), (3,), 5000, 1, 1)]


@pytest.mark.parametrize("case", SUPPORT_CASES, ids=str)
def test_supports_grow_inside_region_and_sequence(case: Case, isa: str) -> None:
    x, memory = random_support(case.frames, case.h, case.w), Buffers()
    y = memory.output(*x.shape, dtype=torch.uint8)
    cpu.grow_support(address(y), address(x), case.seq_lens, case.split, case.w, 2)
    memory.check()
    assert torch.equal(y, grown(case, x))


def test_supports_of_many_frames_grow_on_several_threads() -> None:
    case = Case((150, 57, 93), (40, 24), 44, 1, 1)
    x, y = random_support(case.frames, case.h, case.w, share=0.001), torch.empty(0)
    for threads in (1, 2, 3):
        y = torch.full_like(x, 9)
        cpu.grow_support(address(y), address(x), case.seq_lens, case.split, case.w, threads)
        assert torch.equal(y, grown(case, x))


def window_support(case: Case, x: Tensor) -> Tensor:
    """Any of the five frames of fta's windows."""
    kept = [s.float()[None, None] for s in x.split(case.seq_lens) if len(s) >= 3]
    pooled = [torch.nn.functional.max_pool3d(s, (5, 1, 1), (3, 1, 1), (1, 0, 0))[0, 0] for s in kept]
    return torch.cat(pooled).to(torch.uint8)


@pytest.mark.parametrize("case", FTA_CASES, ids=str)
def test_support_of_a_window_joins_its_frames(case: Case, isa: str) -> None:
    x, memory = random_support(case.frames, case.h, case.w, share=0.2), Buffers()
    expected = window_support(case, x)
    y = memory.output(*expected.shape, dtype=torch.uint8)
    cpu.window_support(address(y), address(x), case.seq_lens, case.h, case.w, 2)
    memory.check()
    assert torch.equal(y, expected)


def blank_support(case: Case) -> Tensor:
    """Half of the positions are in no frame; the rest in half of them."""
    ever = torch.cat([random_support(1, case.h, case.w, share=0.5, seed=n) for n in range(len(case.seq_lens))])
    lens = torch.tensor(case.seq_lens)
    return ever.repeat_interleave(lens, 0) * random_support(case.frames, case.h, case.w, share=0.5, seed=99)


@pytest.mark.parametrize(("frames", "h", "w"), [(3, 8, 44), (2, 5, 7), (1, 2, 2), (4, 1, 9), (2, 64, 45)])
def test_support_of_the_2x2_maximum(frames: int, h: int, w: int, isa: str) -> None:
    x, memory = random_support(frames, h, w, share=0.2), Buffers()
    y = memory.output(frames, h // 2, w // 2, dtype=torch.uint8)
    cpu.max_pool_support(address(y), address(x), frames, h, w)
    memory.check()
    if y.numel():
        assert torch.equal(y, torch.nn.functional.max_pool2d(x[None].float(), 2)[0].to(torch.uint8))


@both_dtypes
@pytest.mark.parametrize("supported", [False, True])
@pytest.mark.parametrize("case", [case for case in CASES if case.c_in == 1], ids=str)
def test_silhouettes_are_their_own_scale_and_support(case: Case, supported: bool, dtype: torch.dtype, isa: str) -> None:
    """The same as the direct convolution of x / 255, bit for bit."""
    generator, memory = torch.Generator().manual_seed(5), Buffers()
    silhouettes = torch.randint(0, 256, (case.frames, case.h, case.w), dtype=torch.uint8, generator=generator)
    silhouettes *= random_support(case.frames, case.h, case.w, share=0.3)
    x, inside = silhouettes.to(dtype) / 255, (silhouettes > 0).to(torch.uint8)
    around = grown(case, inside)
    packed = packed_weights(memory, case, arme_trial(case, dtype).inputs["w"], 0, False)
    sizes, last = (case.seq_lens, case.split, case.w), (dtype.itemsize, 2)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, 1, case.c_out, 0, *last, False))
    expected, y = (memory.output(case.frames, case.h, case.w, case.c_out, dtype=dtype) for _ in range(2))
    supports = (address(inside), address(around)) if supported else (0, 0)
    method = (1, case.c_out, 0.01, 0, *last, 0, 0)
    cpu.arme_forward(address(expected), address(x), packed, workspace, *supports, *sizes, *method)
    given = (address(silhouettes), packed, workspace, supports[1])
    cpu.silhouettes_forward(address(y), *given, *sizes, case.c_out, 0.01, *last)
    memory.check()
    assert torch.equal(y, expected)


@both_dtypes
@pytest.mark.parametrize(
    ("frames", "h", "w", "c"), [(3, 8, 44, 32), (2, 5, 7, 3), (1, 2, 2, 17), (4, 1, 9, 4), (2, 6, 3, 33)]
)
def test_2x2_maximum(frames: int, h: int, w: int, c: int, dtype: torch.dtype, isa: str) -> None:
    inside = random_support(frames, h, w, share=0.2)
    x, memory = Random(dtype)(frames, h, w, c) * inside[..., None], Buffers()
    some, whole = (memory.output(frames, h // 2, w // 2, c, dtype=dtype) for _ in range(2))
    support = torch.nn.functional.max_pool2d(inside[None].float(), 2)[0].to(torch.uint8) if h > 1 else inside[:, :0]
    cpu.max_pool(address(some), address(x), address(support), frames, h, w, c, dtype.itemsize, 2)
    cpu.max_pool(address(whole), address(x), 0, frames, h, w, c, dtype.itemsize, 1)
    memory.check()
    if some.numel():
        expected = torch.nn.functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
        assert torch.equal(some, expected)
        assert torch.equal(whole, expected)


def test_2x2_maximum_keeps_nan() -> None:
    x, y = torch.ones(1, 2, 2, 20), torch.zeros(1, 1, 1, 20)
    x[0, 1, 0, 7] = math.nan
    cpu.max_pool(address(y), address(x), 0, 1, 2, 2, 20, 4, 1)
    assert y.flatten().isnan().nonzero().tolist() == [[7]]


@cache
def supported_trial(case: Case, share: float, dtype: torch.dtype, seed: int = 0) -> tuple[Trial, Support]:
    trial = arme_trial(case, dtype, seed)
    x = random_support(case.frames, case.h, case.w, share=share, seed=seed)
    support = Support(x, grown(case, x))
    inside_x, inside_y = support.x[..., None] == 1, support.y[..., None] == 1

    def forward(x: Tensor, w: Tensor) -> Tensor:
        return trial.forward(x.where(inside_x, 0), w).where(inside_y, 0)

    y = forward(**{name: value.double() for name, value in trial.inputs.items()})
    gradient = away_from_kink(trial.gradient, y, 1e-5).contiguous()
    return replace(trial, gradient=gradient, forward=forward), support


def arme_native_supported(case: Case, trial: Trial, support: Support, algorithm: int = 0, threads: int = 2) -> Results:
    """With NaN wherever an input or a gradient counts as 0."""
    outside_x, outside_y = support.x[..., None] == 0, support.y[..., None] == 0
    inputs = {**trial.inputs, "x": trial.inputs["x"].masked_fill(outside_x, math.nan)}
    dirty = replace(trial, inputs=inputs, gradient=trial.gradient.masked_fill(outside_y, math.nan))
    results = arme_native(case, dirty, threads=threads, algorithm=algorithm, support=support)
    assert (results["y"].masked_select(outside_y) == 0).all()
    assert (results["gx"].masked_select(outside_x) == 0).all()
    return results


@both_dtypes
@pytest.mark.parametrize("share", [0.03, 0.5])
@pytest.mark.parametrize("case", [*CASES[:-1], Case((9, 4), (12, 5), 44, 32, 32)], ids=str)
def test_arme_skips_the_background(case: Case, share: float, dtype: torch.dtype, isa: str) -> None:
    trial, support = supported_trial(case, share, dtype)
    results = arme_native_supported(case, trial, support)
    if (support.x == 0).all():
        assert all((tensor == 0).all() for tensor in results.values())
    elif dtype == torch.float64:
        assert_exact(trial, results)
    else:
        assert_as_good_as_torch([trial], lambda _: results)


def test_arme_of_an_empty_support_is_zero(isa: str) -> None:
    case = CASES[3]
    nothing = torch.zeros(case.frames, case.h, case.w, dtype=torch.uint8)
    results = arme_native_supported(case, arme_trial(case, torch.float32), Support(nothing, nothing))
    assert all((tensor == 0).all() for tensor in results.values())


# ---- arme in the Winograd domain

ALGORITHMS = (2, 4, 5)
WINOGRAD_CASES = [
    *CASES,
    Case((9, 4), (12, 5), 44, 32, 32),
    Case((11,), (3, 9), 22, 48, 20),
]
winograd = pytest.mark.parametrize("algorithm", ALGORITHMS)


def assert_close(case: Case, trial: Trial, native: Results, support: Support | None = None) -> None:
    """Maps within 1e-5 of their largest value, the weight gradient within 1e-4 of its norm.

    An output near 0 may have the other sign than in float64, so the gradients are those of the signs that came out.
    """
    gradient = trial.gradient.where(native["y"] > 0, trial.gradient * 0.01)
    x, w = (trial.inputs[name].double().requires_grad_() for name in ("x", "w"))
    masked = x if support is None else x * support.x[..., None]
    linear = arme_torch(case, None)(masked, w)
    linear.backward(gradient if support is None else gradient * support.y[..., None])
    assert x.grad is not None
    assert w.grad is not None
    assert error(native["y"], trial.truth["y"]) <= 1e-5
    assert error(native["gx"], x.grad) <= 1e-5
    assert (native["gw"] - w.grad).norm() <= 1e-4 * w.grad.norm()


@winograd
@pytest.mark.parametrize("case", WINOGRAD_CASES, ids=str)
def test_winograd(case: Case, algorithm: int, isa: str) -> None:
    trial = arme_trial(case, torch.float32)
    assert_close(case, trial, arme_native(case, trial, algorithm=algorithm))


@winograd
@pytest.mark.parametrize("share", [0.03, 0.5])
@pytest.mark.parametrize("case", WINOGRAD_CASES[-3:], ids=str)
def test_winograd_skips_the_background(case: Case, share: float, algorithm: int, isa: str) -> None:
    trial, support = supported_trial(case, share, torch.float32)
    assert_close(case, trial, arme_native_supported(case, trial, support, algorithm), support)


@winograd
def test_winograd_does_not_depend_on_the_number_of_threads(algorithm: int, isa: str) -> None:
    case = WINOGRAD_CASES[-2]
    trial, support = supported_trial(case, 0.05, torch.float32)
    one, *others = (arme_native_supported(case, trial, support, algorithm, threads) for threads in (1, 2, 3))
    for other in others:
        assert all(torch.equal(one[name], other[name]) for name in one)


@winograd
def test_winograd_of_an_empty_support_is_zero(algorithm: int, isa: str) -> None:
    case = CASES[3]
    nothing = torch.zeros(case.frames, case.h, case.w, dtype=torch.uint8)
    trial = arme_trial(case, torch.float32)
    results = arme_native_supported(case, trial, Support(nothing, nothing), algorithm)
    assert all((tensor == 0).all() for tensor in results.values())


@winograd
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.03, 0.5, None])
@pytest.mark.parametrize("case", WINOGRAD_CASES[-3:], ids=str)
def test_winograd_finds_the_frame_maximum(
    case: Case, share: float | None, threads: int, algorithm: int, isa: str
) -> None:
    """It is that of the map, background included, whether the map is written or not, and the map is the same."""
    trial, support = (
        (arme_trial(case, torch.float32), None) if share is None else supported_trial(case, share, torch.float32)
    )
    y = arme_native(case, trial, threads=threads, algorithm=algorithm, support=support)["y"]
    memory, last = Buffers(), (algorithm, 4, threads)
    again = memory.output(*y.shape, dtype=y.dtype)
    beside, alone = (memory.output(len(case.seq_lens), *y.shape[1:], dtype=y.dtype) for _ in range(2))
    packed = packed_weights(memory, case, trial.inputs["w"], algorithm, False)
    for maximum, map_ in ((beside, again), (alone, None)):
        sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out)
        workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, True))
        where = (0, 0) if support is None else (address(support.x), address(support.y))
        inputs = (address(trial.inputs["x"]), packed, workspace, *where)
        cpu.arme_forward(address(map_), *inputs, *sizes, 0.01, *last, address(maximum), 0)
    memory.check()
    expected = torch.stack([frames.amax(0) for frames in y.split(case.seq_lens)])
    assert torch.equal(again, y)
    assert torch.equal(beside, expected)
    assert torch.equal(alone, expected)


@winograd
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("share", [0.03, 0.3, None])
@pytest.mark.parametrize("case", [Case((7, 3, 12), (6, 10), 14, 20, 48), Case((2, 5), (2, 4), 6, 33, 5)], ids=str)
def test_winograd_finds_the_2x2_maximum(
    case: Case, share: float | None, threads: int, algorithm: int, isa: str
) -> None:
    """Of the map written beside it, whose tiles begin at even columns; the same beside the frame maximum alone."""
    trial, support = (
        (arme_trial(case, torch.float32), None) if share is None else supported_trial(case, share, torch.float32)
    )
    memory, last, half = Buffers(), (algorithm, 4, threads), (case.frames, case.h // 2, case.w // 2, case.c_out)
    y = memory.output(*trial.truth["y"].shape, dtype=torch.float32)
    beside, alone = (memory.output(*half, dtype=torch.float32) for _ in range(2))
    maximum = memory.output(len(case.seq_lens), *y.shape[1:], dtype=torch.float32)
    packed = packed_weights(memory, case, trial.inputs["w"], algorithm, False)
    sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, True))
    where = (0, 0) if support is None else (address(support.x), address(support.y))
    inputs = (address(trial.inputs["x"]), packed, workspace, *where)
    cpu.arme_forward(address(y), *inputs, *sizes, 0.01, *last, 0, address(beside))
    cpu.arme_forward(0, *inputs, *sizes, 0.01, *last, address(maximum), address(alone))
    memory.check()
    assert error(y, trial.truth["y"]) <= 1e-5
    expected = torch.nn.functional.max_pool2d(y.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert torch.equal(beside, expected)
    assert torch.equal(alone, expected)
    assert torch.equal(maximum, torch.stack([frames.amax(0) for frames in y.split(case.seq_lens)]))


def test_winograd_of_many_channels() -> None:
    """Several panels of outputs and blocks of inputs."""
    case = Case((10,), (8, 5), 22, 136, 72)
    trial = arme_trial(case, torch.float32)
    for algorithm in ALGORITHMS:
        assert_close(case, trial, arme_native(case, trial, algorithm=algorithm))


@pytest.mark.parametrize(("algorithm", "itemsize"), [(1, 4), (3, 4), (-1, 4), (2, 8), (5, 8)])
def test_unknown_algorithms_are_refused(algorithm: int, itemsize: int) -> None:
    with pytest.raises(ValueError, match=f"algorithm: expected 0 .*, got {algorithm}"):
        cpu.arme_workspace([4], [3], 5, 3, 3, algorithm, itemsize, 1, False)


# ---- astp


def astp_native(case: Case, trial: Trial, threads: int = 2, support: Tensor | None = None) -> Results:
    x, p, proj, gy = trial.inputs["x"], trial.inputs["p"], trial.inputs.get("proj"), trial.gradient
    n, dtype, last = len(case.seq_lens), x.dtype, (x.dtype.itemsize, threads)
    map_size = (case.seq_lens, case.h, case.w, case.c_in)
    sizes = (n, case.split, case.w, case.c_in, gy.shape[2])
    memory = Buffers()
    maximum = memory.output(n, case.h, case.w, case.c_in, dtype=dtype)
    index = memory.output(*maximum.shape, dtype=torch.int16)
    cpu.frame_maximum(address(maximum), address(index), address(x), *map_size, *last, address(support))
    y, gmaximum, gx = (memory.output(*t.shape, dtype=dtype) for t in (gy, maximum, x))
    gproj = None if proj is None else memory.output(*proj.shape, dtype=dtype)
    gp = memory.output(*p.shape, dtype=dtype)
    workspace = memory.workspace(cpu.astp_workspace(*sizes, *last))
    cpu.astp_forward(address(y), address(maximum), address(proj), address(p), workspace, *sizes, *last)
    inputs = [address(t) for t in (gy, y, maximum, proj, p)]
    cpu.astp_backward(address(gmaximum), address(gproj), address(gp), *inputs, workspace, *sizes, *last)
    cpu.frame_maximum_backward(address(gx), address(gmaximum), address(index), *map_size, *last)
    memory.check()
    results = {"y": y, "gx": gx, "gp": gp, "maximum": maximum, "index": index}
    return results if gproj is None else {**results, "gproj": gproj}


def astp_torch(case: Case) -> Callable[..., Tensor]:
    def forward(x: Tensor, p: Tensor, proj: Tensor | None = None) -> Tensor:
        return reference.astp(as_map(x), proj, p, case.split, seq_lens=case.seq_lens).transpose(1, 2)

    return forward


@cache
def astp_trial(case: Case, projected: bool, dtype: torch.dtype, seed: int = 0) -> Trial:
    random = Random(dtype, seed)
    c_out = case.c_out if projected else case.c_in
    inputs = {
        "x": random(case.frames, case.h, case.w, case.c_in),
        "p": 6.5 + 0.1 * random(len(case.split)),
        "proj": random(c_out, case.c_in) / case.c_in**0.5,
    }
    if not projected:
        del inputs["proj"]
    return Trial(inputs, random(len(case.seq_lens), len(case.split), c_out), astp_torch(case))


@both_dtypes
@pytest.mark.parametrize("projected", [True, False], ids=["proj", "no-proj"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_astp(case: Case, projected: bool, dtype: torch.dtype, isa: str) -> None:
    compare(partial(astp_trial, case, projected), partial(astp_native, case), dtype)


def plain_astp_trial(case: Case, x: Tensor, p: list[float], seed: int = 0) -> Trial:
    gradient = Random(x.dtype, seed)(len(case.seq_lens), len(case.split), case.c_in)
    return Trial({"x": x, "p": torch.tensor(p, dtype=x.dtype)}, gradient, astp_torch(case))


@both_dtypes
def test_first_maximum_wins(dtype: torch.dtype, isa: str) -> None:
    case = Case((1, 7, 4), (3,), 5, 17, 17)
    x = Random(dtype)(case.frames, case.h, case.w, case.c_in).round()
    results = astp_native(case, plain_astp_trial(case, x, [6.5]))
    for n, sequence in enumerate(x.split(case.seq_lens)):
        assert torch.equal(results["maximum"][n], sequence.amax(0))
        first = torch.from_numpy(sequence.numpy().argmax(0))
        assert torch.equal(results["index"][n].long(), first)


@both_dtypes
@pytest.mark.parametrize("value", [-1.0, 0.0, 1e-6, 1e-7])
def test_astp_of_nothing_is_the_clamp(value: float, dtype: torch.dtype, isa: str) -> None:
    case = Case((2,), (3, 2), 7, 17, 17)
    trial = plain_astp_trial(case, torch.full((2, 5, 7, 17), value, dtype=dtype), [6.5, 3.0])
    results = astp_native(case, replace(trial, gradient=trial.gradient.abs()))
    assert ((results["y"] / 1e-6 - 1).abs() <= 8 * EPS32).all()
    assert (results["gp"].abs() <= 1e-11).all()
    reached = results["gx"] > 0
    assert (reached[0].all() and not reached[1].any()) if value == 1e-6 else (results["gx"] == 0).all()


@both_dtypes
@pytest.mark.parametrize("p", [6.5, 1.0, 40.0, -3.0])
def test_astp_where_powers_would_underflow(p: float, dtype: torch.dtype, isa: str) -> None:
    """1e-6 ^ 6.5 = 1e-39 is subnormal in float32, 1e-6 ^ 40 no number at all."""
    case = Case((1,), (4,), 5, 16, 16)

    def trial(dtype: torch.dtype, seed: int) -> Trial:
        return plain_astp_trial(case, 1e-6 * (1 + Random(dtype, seed)(1, 4, 5, 16).abs()), [p], seed)

    compare(trial, partial(astp_native, case), dtype)


def test_astp_spans_the_whole_range_of_values(isa: str) -> None:
    case = Case((1,), (8,), 9, 16, 16)
    trials = [plain_astp_trial(case, (Random(torch.float32, s)(1, 8, 9, 16) * 8).exp(), [2.0], s) for s in range(3)]
    assert_as_good_as_torch(trials, partial(astp_native, case))


@both_dtypes
@pytest.mark.parametrize("case", [*CASES, Case((12, 34), (17, 4), 23, 48, 48)], ids=str)
def test_frame_maximum_with_a_support(case: Case, dtype: torch.dtype, isa: str) -> None:
    """The background enters every maximum as 0, at its own frame."""
    trial, support = astp_trial(case, False, dtype), blank_support(case)
    inputs = {**trial.inputs, "x": trial.inputs["x"] * support[..., None]}
    zeroed = replace(trial, inputs=inputs)
    expected, got = astp_native(case, zeroed), astp_native(case, zeroed, support=support)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


# ---- fta


def fta_native(case: Case, trial: Trial, threads: int = 2, support: Tensor | None = None) -> Results:
    (x, w, b), gy = trial.inputs.values(), trial.gradient
    sizes = (case.seq_lens, case.split, case.w, case.c_in)
    last, dtype = (x.dtype.itemsize, threads), x.dtype
    memory = Buffers()
    workspace = memory.workspace(cpu.fta_workspace(*sizes, *last))
    y, gx, gw, gb = (memory.output(*t.shape, dtype=dtype) for t in (gy, x, w, b))
    z = memory.output(gy.shape[0], len(case.split), case.c_in, dtype=dtype)
    weights = (address(w), address(b), workspace)
    cpu.fta_forward(address(y), address(z), address(x), *weights, *sizes, *last, address(support))
    gradients = (address(gx), address(gw), address(gb), address(gy))
    cpu.fta_backward(*gradients, address(x), address(z), *weights, *sizes, *last, address(support))
    memory.check()
    return {"y": y, "gx": gx, "gw": gw, "gb": gb, "z": z}


def fta_torch(case: Case) -> Callable[..., Tensor]:
    """Sequences of fewer than 3 frames give nothing; the reference does not take them."""

    def forward(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        kept = [s for s in x.split(case.seq_lens) if len(s) >= 3]
        lens = [len(s) for s in kept]
        return from_map(reference.fta(as_map(torch.cat(kept)), w, b, case.split, seq_lens=lens))

    return forward


@cache
def fta_trial(case: Case, dtype: torch.dtype, seed: int = 0) -> Trial:
    random, m, c = Random(dtype, seed), len(case.split), case.c_in
    inputs = {
        "x": random(case.frames, case.h, case.w, c),
        "w": random(m, 2, c, c) / c**0.5,
        "b": random(m, 2, c),
    }
    return Trial(inputs, random(sum(t // 3 for t in case.seq_lens), case.h, case.w, c), fta_torch(case))


def fta_trial_with_ties(case: Case, dtype: torch.dtype, seed: int = 0) -> Trial:
    trial = fta_trial(case, dtype, seed)
    return replace(trial, inputs={**trial.inputs, "x": trial.inputs["x"].round()})


@both_dtypes
@pytest.mark.parametrize("case", FTA_CASES, ids=str)
def test_fta(case: Case, dtype: torch.dtype, isa: str) -> None:
    compare(partial(fta_trial, case), partial(fta_native, case), dtype)


@both_dtypes
def test_fta_first_maximum_takes_the_gradient(dtype: torch.dtype, isa: str) -> None:
    case = Case((7, 3, 5), (2, 1), 5, 17, 17)
    compare(partial(fta_trial_with_ties, case), partial(fta_native, case), dtype)


@both_dtypes
@pytest.mark.parametrize("case", [*FTA_CASES, Case((11,), (9, 3), 19, 64, 64)], ids=str)
def test_fta_skips_the_background(case: Case, dtype: torch.dtype, isa: str) -> None:
    """With NaN in the input where no frame of the sequence is inside, and in the gradient."""
    trial, x_support = fta_trial(case, dtype), blank_support(case)
    support = window_support(case, x_support)
    x = trial.inputs["x"] * x_support[..., None]
    clean = replace(trial, inputs={**trial.inputs, "x": x}, gradient=trial.gradient * support[..., None])
    never = torch.cat([s.amax(0, keepdim=True).expand_as(s) for s in x_support.split(case.seq_lens)]) == 0
    inputs = {**trial.inputs, "x": x.masked_fill(never[..., None], math.nan)}
    gradient = trial.gradient.masked_fill(support[..., None] == 0, math.nan)
    expected = fta_native(case, clean)
    got = fta_native(case, replace(trial, inputs=inputs, gradient=gradient), support=support)
    for name in ("y", "z", "gw", "gb"):
        assert torch.equal(expected[name], got[name]), name
    assert torch.equal(expected["gx"][x_support == 1], got["gx"][x_support == 1])


def test_fta_of_three_frames_has_no_choice_to_learn(isa: str) -> None:
    """Both windows see the same frames: a = b, whatever the gate says."""
    case = Case((3, 3), (2,), 5, 16, 16)
    trial = fta_trial(case, torch.float32)
    results = fta_native(case, trial)
    assert error(results["y"], torch.stack([s.amax(0) for s in trial.inputs["x"].split(3)])) <= EPS32
    assert (results["gw"] == 0).all()
    assert (results["gb"] == 0).all()


# ---- what holds for all of them


@pytest.mark.parametrize("case", [CASES[0], CASES[3], Case((9, 4), (12, 5), 22, 32, 32)], ids=str)
def test_results_do_not_depend_on_the_number_of_threads(case: Case, isa: str) -> None:
    runs = [
        [
            arme_native(case, arme_trial(case, torch.float32), threads=threads),
            astp_native(case, astp_trial(case, True, torch.float32), threads),
            fta_native(case, fta_trial(case, torch.float32), threads),
        ]
        for threads in (1, 2, 3, 2)
    ]
    for run in runs[1:]:
        for expected, got in zip(runs[0], run, strict=True):
            for name, tensor in expected.items():
                assert torch.equal(tensor, got[name]), name


@both_dtypes
@pytest.mark.parametrize(
    ("n", "parts", "c_in", "c_out"), [(1, 3, 128, 128), (6, 2, 40, 72), (5, 1, 1, 1), (9, 4, 33, 17)]
)
def test_parts_are_mapped_and_normalised(
    n: int, parts: int, c_in: int, c_out: int, dtype: torch.dtype, isa: str
) -> None:
    random, memory = Random(dtype), Buffers()
    x, w = random(n, parts, c_in), random(parts, c_in, c_out) / c_in**0.5
    mean, weight, bias = (random(c_out) for _ in range(3))
    variance = random(c_out).square() + 0.1
    y = memory.output(n, parts, c_out, dtype=dtype)
    tensors = (y, x, w, mean, variance, weight, bias)
    cpu.head(*map(address, tensors), 1e-5, n, parts, c_in, c_out, dtype.itemsize, 2)
    memory.check()
    mapped = torch.einsum("npi,pio->npo", x.double(), w.double())
    truth = (mapped - mean.double()) / (variance.double() + 1e-5).sqrt() * weight.double() + bias.double()
    assert error(y, truth) <= 4 * torch.finfo(dtype).eps


def test_nan_reaches_the_output(isa: str) -> None:
    case = Case((4,), (3,), 5, 3, 3)
    trial = arme_trial(case, torch.float64)
    x = trial.inputs["x"].clone()
    x[2, 1, 2, 1] = math.nan
    maximum, index = torch.empty(1, 3, 5, 3, dtype=x.dtype), torch.empty(1, 3, 5, 3, dtype=torch.int16)
    cpu.frame_maximum(address(maximum), address(index), address(x), [4], 3, 5, 3, 8, 1, 0)
    assert maximum[0, 1, 2, 1].isnan()
    assert index[0, 1, 2, 1] == 2
    assert maximum.isnan().sum() == 1
    memory = Buffers()
    w, y = trial.inputs["w"], torch.empty(4, 3, 5, 3, dtype=x.dtype)
    workspace = memory.workspace(cpu.arme_workspace([4], [3], 5, 3, 3, 0, 8, 1, False))
    packed = packed_weights(memory, case, w, 0, False)
    cpu.arme_forward(address(y), address(x), packed, workspace, 0, 0, [4], [3], 5, 3, 3, 0.01, 0, 8, 1, 0, 0)
    assert torch.equal(y.isnan(), trial.forward(x, w).isnan())


class Wrong:
    """An argument that is no number, no sequence, and neither true nor false."""

    def __bool__(self) -> bool:
        raise TypeError("neither true nor false")


@pytest.mark.parametrize("function", cpu.fields)
def test_arguments_are_counted_and_named(function: str) -> None:
    names = cpu.fields[function]
    arguments = [[1] if name in ("seq_lens", "split") else 4 for name in names]
    call = getattr(cpu, function)
    for given in ([], arguments[:-1], [*arguments, 1]):
        expected = f"{function}: expected {len(names)} arguments ({', '.join(names)}), got {len(given)}"
        with pytest.raises(TypeError, match=re.escape(expected)):
            call(*given)
    for i, name in enumerate(names):
        with pytest.raises(TypeError, match=rf"^{function}: {name}: "):
            call(*arguments[:i], Wrong(), *arguments[i + 1 :])


def every_call(kind: type = calls.NativeCall) -> Iterator[type]:
    for each in kind.__subclasses__():
        yield from every_call(each)
        if "name" in vars(each):
            yield each


def test_every_call_has_the_fields_of_its_function() -> None:
    assert {"arme_forward", "astp_forward", "fta_forward", "max_pool", "grow_support"} <= {c.name for c in every_call()}
    for each in every_call():
        assert calls.argument_names(each) == cpu.fields[each.name], each


def test_unknown_types_are_refused() -> None:
    with pytest.raises(ValueError, match=r"itemsize: expected 4 \(float32\) or 8 \(float64\), got 2"):
        cpu.astp_workspace(1, [1], 1, 1, 1, 2, 1)


def test_instruction_sets_are_named_and_unknown_ones_refused() -> None:
    names = cpu.instruction_sets()
    assert names
    assert cpu.instruction_set() in names
    with pytest.raises(ValueError, match=rf"{names[0]}.*got 'sse9'"):
        cpu.use_instruction_set("sse9")


@pytest.mark.parametrize(("name", "printed"), [(cpu.instruction_sets()[-1], None), ("sse9", "got 'sse9'")])
def test_instruction_set_by_environment(name: str, printed: str | None) -> None:
    code = "from hstl_fast.backends.cpu import library as n; print(n.cpu_error() or n.cpu().instruction_set())"
    environment = {**os.environ, "HSTL_FAST_CPU_ISA": name}
    root = Path(__file__).parents[3]
    output = subprocess.check_output([sys.executable, "-c", code], env=environment, cwd=root, text=True)
    assert (printed or name) in output
    assert output.count("\n") == 1


def test_build_is_described() -> None:
    info: dict[str, Any] = cpu.build_info()
    assert set(info) == {"compiler", "flags", "version"}
    assert isinstance(cpu.openmp(), bool)
