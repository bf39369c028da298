"""Hostile input to the operators: supports of other maps, numbers that are none, too little memory.

What is wrong is refused by name; what has a documented result has that result; nothing else changes.
"""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast import functional as F
from hstl_fast.backends.cpu import library
from tests.helpers.processes import run_python

if library.cpu() is None:
    pytest.skip(library.cpu_error(), allow_module_level=True)
cpu = library.require_cpu()

SPLIT, LENS = [9, 4], [11, 3]
RANDOM = torch.Generator().manual_seed(3)
X = torch.randn(1, 16, 14, 13, 12, generator=RANDOM)
W = torch.randn(2, 24, 16, 3, 3, 3, generator=RANDOM) / 20
GRADIENT = torch.randn(1, 24, 14, 13, 12, generator=RANDOM)
SUPPORT = torch.rand(1, 14, 13, 12, generator=RANDOM) > 0.8
SUPPORT[:, :, :4] = False

each_algorithm = pytest.mark.parametrize("algorithm", ["direct", "winograd"])


def arme(x: Tensor = X, weights: Tensor = W, **options: Any) -> Tensor:
    return F.arme(x, weights, SPLIT, seq_lens=LENS, backend="cpu", **options)


def with_gradients(x: Tensor, weights: Tensor, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y and the gradients of x and of the weights."""
    leaves = x.clone().requires_grad_(), weights.clone().requires_grad_()
    y = arme(*leaves, **options)
    gradients = torch.autograd.grad(y, leaves, GRADIENT)
    return y.detach(), *gradients


def dilated(support: Tensor) -> Tensor:
    """One position more in t, h and w, inside SPLIT and LENS."""
    grown = torch.zeros_like(support)
    for t, frames in zip((0, LENS[0]), LENS, strict=True):
        for row, rows in zip((0, SPLIT[0]), SPLIT, strict=True):
            part = support[:, t : t + frames, row : row + rows].float()[:, None]
            grown[:, t : t + frames, row : row + rows] = torch.nn.functional.max_pool3d(part, 3, 1, 1)[:, 0] > 0
    return grown


# ---- supports that do not belong to their map

WRONG_SUPPORTS = [
    (SUPPORT[:, :13], ValueError, "support must have the shape [1, 14, 13, 12] on cpu, got [1, 13, 13, 12]"),
    (SUPPORT[..., :11], ValueError, "support must have the shape [1, 14, 13, 12] on cpu, got [1, 14, 13, 11]"),
    (SUPPORT[0], ValueError, "support must have the shape [1, 14, 13, 12] on cpu, got [14, 13, 12]"),
    (SUPPORT[:, None], ValueError, "support must have the shape [1, 14, 13, 12] on cpu, got [1, 1, 14, 13, 12]"),
    (SUPPORT[:0], ValueError, "support must have the shape [1, 14, 13, 12] on cpu, got [0, 14, 13, 12]"),
    (SUPPORT.to("meta"), ValueError, "on cpu, got [1, 14, 13, 12] on meta"),
    (SUPPORT.byte(), TypeError, "support must be None or a bool tensor [n, t, h, w], got torch.uint8"),
    (SUPPORT.float(), TypeError, "support must be None or a bool tensor [n, t, h, w], got torch.float32"),
    (SUPPORT.tolist(), TypeError, "support must be None or a bool tensor [n, t, h, w], got list"),
    (True, TypeError, "support must be None or a bool tensor [n, t, h, w], got bool"),
]


@pytest.mark.parametrize(("support", "error", "sentence"), WRONG_SUPPORTS, ids=[row[2] for row in WRONG_SUPPORTS])
def test_a_support_of_another_map(support: Any, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        arme(support=support)


@each_algorithm
def test_a_support_with_any_strides(algorithm: str) -> None:
    strided = SUPPORT.transpose(1, 3).contiguous().transpose(1, 3)
    spread = SUPPORT.repeat_interleave(2, 3)[..., ::2]
    expected = arme(support=SUPPORT, algorithm=algorithm)
    assert torch.equal(arme(support=strided, algorithm=algorithm), expected)
    assert torch.equal(arme(support=spread, algorithm=algorithm), expected)


@each_algorithm
def test_a_support_changed_after_forward_is_noticed_by_backward(algorithm: str) -> None:
    support, w = SUPPORT.clone(), W.clone().requires_grad_()
    y = arme(weights=w, support=support, algorithm=algorithm)
    support.fill_(False)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward(GRADIENT)


# ---- algorithms that cannot run


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"algorithm": "winogard"}, ValueError, "got 'winogard'; did you mean 'winograd'?"),
        ({"algorithm": "fft"}, ValueError, "algorithm"),
        ({"algorithm": "winograd", "backend": "reference"}, RuntimeError, "the reference backend has no Winograd"),
        ({"algorithm": "winograd", "x": X.double(), "weights": W.double()}, RuntimeError, "too much for float64"),
    ],
)
def test_an_algorithm_that_cannot_run(arguments: dict[str, Any], error: type[Exception], sentence: str) -> None:
    given = {"x": X, "weights": W, "backend": "cpu", **arguments}
    with pytest.raises(error, match=re.escape(sentence)):
        F.arme(given.pop("x"), given.pop("weights"), SPLIT, seq_lens=LENS, **given)


def test_an_algorithm_by_environment_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "fastest")
    with pytest.raises(ValueError, match="HSTL_FAST_ALGORITHM"):
        arme()


@pytest.mark.parametrize(("algorithm", "itemsize"), [(1, 4), (3, 4), (6, 4), (-1, 4), (2, 8), (4, 8), (5, 8)])
def test_the_native_functions_know_their_algorithms(algorithm: int, itemsize: int) -> None:
    sizes = ([1], 1, 1, 1, algorithm, itemsize, 1)
    calls: list[Callable[[], object]] = [
        lambda: cpu.arme_prepacked_size([1], 1, 1, algorithm, False, itemsize),
        lambda: cpu.arme_prepack(0, 0, [1], 1, 1, algorithm, False, itemsize, 1),
        lambda: cpu.arme_workspace([1], *sizes, False),
        lambda: cpu.arme_forward(0, 0, 0, 0, 0, 0, [1], *sizes[:4], 1.0, *sizes[4:], 0, 0, 0, 0),
        lambda: cpu.arme_dgrad(0, 0, 0, 0, 0, 0, 0, [1], *sizes[:4], 1.0, *sizes[4:], 0),
        lambda: cpu.arme_wgrad(0, 0, 0, 0, 0, 0, 0, [1], *sizes[:4], 1.0, *sizes[4:]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"algorithm: expected 0 .* got {algorithm}$"):
            call()


@pytest.mark.parametrize("split", [[1] * 13, [13]])
@pytest.mark.parametrize("lens", [[1] * 14, [14], [2] * 7, [13, 1]])
def test_winograd_takes_regions_and_sequences_smaller_than_its_tiles(split: list[int], lens: list[int]) -> None:
    weights = W[:1].expand(len(split), *W.shape[1:])
    direct, winograd = (
        F.arme(X, weights, split, seq_lens=lens, backend="cpu", algorithm=algorithm)
        for algorithm in ("direct", "winograd")
    )
    assert (winograd - direct).abs().max() <= 1e-5 * direct.abs().max()


# ---- NaN and infinity


@each_algorithm
@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, 3e38])
def test_what_stands_outside_the_support_counts_as_zero(rubbish: float, algorithm: str) -> None:
    dirty = X.where(SUPPORT[:, None], rubbish)
    clean = X.where(SUPPORT[:, None], 0)
    results = with_gradients(dirty, W, support=SUPPORT, algorithm=algorithm)
    for got, expected in zip(results, with_gradients(clean, W, support=SUPPORT, algorithm=algorithm), strict=True):
        assert torch.equal(got, expected)
    y, gx, _ = results
    assert (y.where(~dilated(SUPPORT)[:, None], 0) == 0).all()
    assert (gx.where(~SUPPORT[:, None], 0) == 0).all()


@each_algorithm
def test_gradients_outside_the_support_count_as_zero(algorithm: str) -> None:
    grown = dilated(SUPPORT)[:, None]

    def gradients(outside: float) -> tuple[Tensor, ...]:
        leaves = X.clone().requires_grad_(), W.clone().requires_grad_()
        y = arme(*leaves, support=SUPPORT, algorithm=algorithm)
        return torch.autograd.grad(y, leaves, GRADIENT.where(grown, outside))

    for got, expected in zip(gradients(math.nan), gradients(0.0), strict=True):
        assert torch.equal(got, expected)


@each_algorithm
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_weight_that_is_no_number(value: float, algorithm: str) -> None:
    """It reaches its own output channel of its own region, and there only the support grown by one position."""
    weights = W.clone()
    weights[0, 7, 3, 1, 1, 1] = value
    grown = dilated(SUPPORT)
    y, clean = (arme(weights=w, support=SUPPORT, algorithm=algorithm) for w in (weights, W))
    reached = torch.zeros_like(y, dtype=torch.bool)
    reached[:, 7, :, : SPLIT[0]] = grown[:, :, : SPLIT[0]]
    assert torch.equal(y[~reached], clean[~reached])
    at = SUPPORT[:, :, : SPLIT[0]]
    assert not y[:, 7, :, : SPLIT[0]][at].isfinite().any()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_number_reaches_no_further_than_a_tile(value: float) -> None:
    """Directly one position in every direction; by Winograd the tiles of 4 x 4 positions and 5 frames that read it."""
    x = X.clone()
    t, row, column = 5, 6, 5
    x[0, 2, t, row, column] = value
    spread = {}
    for algorithm in ("direct", "winograd"):
        y, clean = arme(x, algorithm=algorithm), arme(algorithm=algorithm)
        wrong = ~(y == clean).all(1)[0]
        assert not y[0, :, t, row, column].isfinite().any()
        spread[algorithm] = [(int(at.min()), int(at.max())) for at in wrong.nonzero().T]
    assert spread["direct"] == [(t - 1, t + 1), (row - 1, row + 1), (column - 1, column + 1)]
    for (low, high), at, tile in zip(spread["winograd"], (t, row, column), (5, 4, 4), strict=True):
        assert at - 1 - tile < low
        assert high < at + 1 + tile


# ---- memory

STARVED = """
import resource, sys, torch, hstl_fast
from hstl_fast import functional as F

def used():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()

torch.set_num_threads(2)
torch.manual_seed(0)
x, w = torch.randn(1, 32, 40, 44, 40), torch.randn(2, 32, 32, 3, 3, 3, requires_grad=True)
support = torch.rand(1, 40, 44, 40) > 0.5

def step():
    y = F.arme(x, w, [20, 24], support=support, backend="cpu", algorithm=sys.argv[1])
    return y, *torch.autograd.grad(y.sum(), w)

small = F.arme(x[:, :, :4], w, [20, 24], backend="cpu")  # the threads exist from here on
hard, refused = resource.getrlimit(resource.RLIMIT_AS)[1], set()
for spare in range(0, 400, 5):
    resource.setrlimit(resource.RLIMIT_AS, (used() + (spare << 20), hard))
    try:
        starved = step()
        break
    except (RuntimeError, MemoryError) as error:
        assert isinstance(error, MemoryError) or "memory" in str(error), error
        refused.add(spare)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
assert len(refused) > 3, refused
assert torch.equal(F.arme(x[:, :, :4], w, [20, 24], backend="cpu"), small)
assert all(torch.equal(a, b) for a, b in zip(step(), starved, strict=True))
print("refused", len(refused))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's limit of the address space")
@pytest.mark.parametrize("algorithm", [pytest.param("direct", marks=pytest.mark.slow), "winograd"])
def test_an_address_space_too_small_for_the_buffers(algorithm: str, environment: dict[str, str]) -> None:
    """Every allocation of a forward and backward pass fails once; afterwards the results are as ever."""
    assert "refused" in run_python(STARVED, algorithm, environment)
