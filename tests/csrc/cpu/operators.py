"""The native operators run on the inputs of a trial, forward and backward, and their definitions in torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from hstl_fast import reference
from tests.csrc.cpu.helpers import Buffers, Case, Random, Results, Trial, address, as_map, cpu, from_map
from tests.helpers.bounds import away_from_kink


@dataclass(frozen=True)
class Support:
    """The supports of a convolution's input and output, uint8 `[F, H, W]`: 1 where the map may be non-zero."""

    x: Tensor
    y: Tensor


def arme_native(
    case: Case,
    trial: Trial,
    slope: float = 0.01,
    threads: int = 2,
    algorithm: int = 0,
    support: Support | None = None,
    by_region: bool = False,
) -> Results:
    """Output and gradients; `by_region`, the weights are prepacked on the way, one region after another."""
    x, w, gy = trial.inputs["x"], trial.inputs["w"], trial.gradient
    dtype, last = x.dtype, (case.c_in, case.c_out, algorithm, x.dtype.itemsize, threads)
    sizes = (case.seq_lens, case.split, case.w, case.c_in, case.c_out, slope, *last[2:])
    memory = Buffers()
    needed = max(cpu.arme_workspace(*sizes[:3], *last, False), cpu.arme_wgrad_workspace(*sizes[:3], *last))
    workspace = memory.workspace(needed)
    prepack = memory_of_region if by_region else prepacked_weights
    packed, packed_back = (prepack(memory, case, w, algorithm, transposed) for transposed in (False, True))
    weights = address(w) if by_region else 0
    y, gx, gw = (memory.output(*t.shape, dtype=dtype) for t in (gy, x, w))
    sign = 0 if slope == 1 else address(y)
    where = (workspace, *((0, 0) if support is None else (address(support.x), address(support.y))))
    cpu.arme_forward(address(y), address(x), packed, *where, *sizes, 0, 0, False, weights)
    cpu.arme_dgrad(address(gx), address(gy), sign, packed_back, *where, *sizes, weights)
    cpu.arme_wgrad(address(gw), address(x), address(gy), sign, *where, *sizes)
    memory.check()
    return {"y": y, "gx": gx, "gw": gw}


def arme_native_forward(
    case: Case, trial: Trial, threads: int = 2, algorithm: int = 0, support: Support | None = None
) -> Tensor:
    x, dtype, memory = trial.inputs["x"], trial.inputs["x"].dtype, Buffers()
    sizes, last = (case.seq_lens, case.split, case.w, case.c_in, case.c_out), (algorithm, dtype.itemsize, threads)
    workspace = memory.workspace(cpu.arme_workspace(*sizes, *last, False))
    packed = prepacked_weights(memory, case, trial.inputs["w"], algorithm, False)
    y = memory.output(*trial.gradient.shape, dtype=dtype)
    where = (0, 0) if support is None else (address(support.x), address(support.y))
    cpu.arme_forward(address(y), address(x), packed, workspace, *where, *sizes, 0.01, *last, 0, 0, False, 0)
    memory.check()
    return y


def prepacked_weights(memory: Buffers, case: Case, w: Tensor, algorithm: int, transposed: bool) -> int:
    sizes = (case.split, case.c_in, case.c_out, algorithm, transposed, w.dtype.itemsize)
    packed = memory.workspace(cpu.arme_prepacked_size(*sizes))
    cpu.arme_prepack(packed, address(w), *sizes, 2)
    return packed


def memory_of_region(memory: Buffers, case: Case, w: Tensor, algorithm: int, transposed: bool) -> int:
    return memory.workspace(
        cpu.arme_prepacked_size(case.split[:1], case.c_in, case.c_out, algorithm, transposed, w.dtype.itemsize)
    )


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


def random_support(*shape: int, share: float = 0.05, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*shape, generator=generator) < share).to(torch.uint8)


def grown(case: Case, x: Tensor) -> Tensor:
    """The support grown by one position in time, rows and columns, but not across regions or sequences."""
    y = torch.zeros_like(x)
    for sequence, into in zip(x.split(case.seq_lens), y.split(case.seq_lens), strict=True):
        for region, to in zip(sequence.split(case.split, 1), into.split(case.split, 1), strict=True):
            to.copy_(torch.nn.functional.max_pool3d(region.float()[None, None], 3, 1, 1)[0, 0])
    return y


def window_support(case: Case, x: Tensor) -> Tensor:
    """The support of FTA's output: positions inside the support of any of the five frames of a window."""
    kept = [s.float()[None, None] for s in x.split(case.seq_lens) if len(s) >= 3]
    pooled = [torch.nn.functional.max_pool3d(s, (5, 1, 1), (3, 1, 1), (1, 0, 0))[0, 0] for s in kept]
    return torch.cat(pooled).to(torch.uint8)


def blank_support(case: Case) -> Tensor:
    """A support that half of the positions never belong to, and the other half in half of their frames."""
    ever = torch.cat([random_support(1, case.h, case.w, share=0.5, seed=n) for n in range(len(case.seq_lens))])
    lens = torch.tensor(case.seq_lens)
    return ever.repeat_interleave(lens, 0) * random_support(case.frames, case.h, case.w, share=0.5, seed=99)


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
    """Results of a convolution whose input and gradient are NaN outside their supports, where they count as 0."""
    outside_x, outside_y = support.x[..., None] == 0, support.y[..., None] == 0
    inputs = {**trial.inputs, "x": trial.inputs["x"].masked_fill(outside_x, math.nan)}
    dirty = replace(trial, inputs=inputs, gradient=trial.gradient.masked_fill(outside_y, math.nan))
    results = arme_native(case, dirty, threads=threads, algorithm=algorithm, support=support)
    assert (results["y"].masked_select(outside_y) == 0).all()
    assert (results["gx"].masked_select(outside_x) == 0).all()
    return results


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
    parameters = (address(proj), address(p), workspace)
    cpu.astp_forward(address(y), address(x), *parameters, address(support), case.seq_lens, *sizes[1:], *last)
    of_maxima = memory.output(*y.shape, dtype=dtype)
    cpu.astp_forward(address(of_maxima), address(maximum), *parameters, 0, [1] * n, *sizes[1:], *last)
    assert torch.equal(y, of_maxima)
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


def fta_native(case: Case, trial: Trial, threads: int = 2, support: Tensor | None = None) -> Results:
    (x, w, b), gy = trial.inputs.values(), trial.gradient
    sizes = (case.seq_lens, case.split, case.w, case.c_in)
    last, dtype = (x.dtype.itemsize, threads), x.dtype
    memory = Buffers()
    workspace = memory.workspace(cpu.fta_workspace(*sizes, *last))
    y, gx, gw, gb = (memory.output(*t.shape, dtype=dtype) for t in (gy, x, w, b))
    z = memory.output(gy.shape[0], len(case.split), case.c_in, dtype=dtype)
    weights = (address(w), address(b), workspace)
    cpu.fta_forward(address(y), address(z), address(x), *weights, *sizes, *last, address(support), 0)
    gradients = (address(gx), address(gw), address(gb), address(gy))
    cpu.fta_backward(*gradients, address(x), address(z), *weights, *sizes, *last, address(support))
    memory.check()
    return {"y": y, "gx": gx, "gw": gw, "gb": gb, "z": z}


def maxima(y: Tensor, lens: Sequence[int]) -> Tensor:
    """The maximum of `y` over the frames of each sequence."""
    return torch.stack([s.amax(0) for s in y.split(list(lens))])


def fta_torch(case: Case) -> Callable[..., Tensor]:
    """The definition without sequences of fewer than 3 frames, which have no output and which the reference refuses."""

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
