"""The definition against the formulas of the paper written out position by position, and its derivatives."""

import math
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from hstl_fast import reference
from tests.helpers.bounds import distance, of_exponent, rounding

SPLIT = [2, 3]
LENS = [3, 1, 4]
LONG = [3, 5]
generator = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def support_of(x: Tensor) -> Tensor:
    return torch.rand(x[:, 0].shape, generator=generator) > 0.6


def segment_of(position: int, sizes: list[int]) -> int:
    """Which of the consecutive segments of these sizes holds the position."""
    return next(i for i in range(len(sizes)) if position < sum(sizes[: i + 1]))


def pieces(lens: list[int]) -> list[range]:
    return [range(sum(lens[:i]), sum(lens[: i + 1])) for i in range(len(lens))]


def test_arme_is_a_sum_over_neighbours_of_the_same_region_and_sequence() -> None:
    x, weights = normal(1, 2, sum(LENS), 5, 3), normal(2, 3, 2, 3, 3, 3)
    expected = torch.zeros(1, 3, sum(LENS), 5, 3, dtype=torch.float64)
    for t, h, w, dt, dh, dw in product(range(8), range(5), range(3), *[range(-1, 2)] * 3):
        inside = 0 <= t + dt < 8 and 0 <= h + dh < 5 and 0 <= w + dw < 3
        if not inside or segment_of(h, SPLIT) != segment_of(h + dh, SPLIT):
            continue
        if segment_of(t, LENS) == segment_of(t + dt, LENS):
            weight = weights[segment_of(h, SPLIT), :, :, dt + 1, dh + 1, dw + 1]
            expected[0, :, t, h, w] += weight @ x[0, :, t + dt, h + dh, w + dw]
    plain = reference.arme(x, weights, SPLIT, negative_slope=None, seq_lens=LENS)
    torch.testing.assert_close(plain, expected)
    leaky = reference.arme(x, list(weights), SPLIT, seq_lens=LENS)
    torch.testing.assert_close(leaky, expected.where(expected > 0, 0.01 * expected))


def test_astp_is_the_generalised_mean_of_the_projected_maximum() -> None:
    x, proj, p = normal(1, 2, sum(LENS), 5, 3), normal(4, 2), 6.5 + normal(2)
    pooled = reference.astp(x, proj, p, SPLIT, seq_lens=LENS)
    strips = reference.strip_pool(x, p[:1], 5, seq_lens=LENS)
    for i, frames in enumerate(pieces(LENS)):
        maximum = x[0, :, list(frames)].amax(1)
        projected = torch.einsum("oc,chw->ohw", proj, maximum).clamp(min=1e-6)
        for r, rows in enumerate(pieces(SPLIT)):
            mean = (projected[:, list(rows)] ** p[r]).mean((1, 2)) ** (1 / p[r])
            torch.testing.assert_close(pooled[i, :, r], mean)
        torch.testing.assert_close(strips[i], (maximum.clamp(min=1e-6) ** p[0]).mean(2) ** (1 / p[0]))


def test_fta_mixes_windows_of_three_and_five() -> None:
    x, weights, biases = normal(1, 2, sum(LONG), 5, 3), normal(2, 2, 2, 2), normal(2, 2, 2)
    y = reference.fta(x, weights, biases, SPLIT, seq_lens=LONG)
    assert y.shape[2] == sum(reference.fta_lengths(LONG)) == 2
    expected = torch.zeros_like(y)
    starts = [(frames, t) for frames in pieces(LONG) for t in range(frames.start, frames.stop - 2, 3)]
    for i, (frames, t) in enumerate(starts):
        a = x[0, :, t : t + 3].amax(1)
        b = x[0, :, max(t - 1, frames.start) : min(t + 4, frames.stop)].amax(1)
        for r, rows in enumerate(pieces(SPLIT)):
            z = (a + b)[:, list(rows)].mean((1, 2))
            share = torch.softmax(weights[r] @ z + biases[r], 0)[:, :, None, None]
            expected[0, :, i, list(rows)] = share[0] * a[:, list(rows)] + share[1] * b[:, list(rows)]
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("lens", [None, [3, 5]], ids=["batch", "packed"])
@pytest.mark.parametrize("supported", [False, True], ids=["dense", "support"])
def test_gradients(lens: list[int] | None, supported: bool, one_thread: None) -> None:
    x, p = normal(1, 2, 8, 3, 2).requires_grad_(), (6.5 + normal(2)).requires_grad_()
    kernel, proj = normal(2, 2, 2, 3, 3, 3).requires_grad_(), normal(3, 2).requires_grad_()
    gate, bias = normal(2, 2, 2, 2).requires_grad_(), normal(2, 2, 2).requires_grad_()
    support = support_of(x) if supported else None

    def with_options(function: Callable[..., Tensor], last: object) -> Callable[..., Tensor]:
        return lambda *tensors: function(*tensors, last, seq_lens=lens, support=support)

    arguments = [
        (with_options(reference.arme, [1, 2]), (x, kernel)),
        (with_options(reference.astp, [1, 2]), (x, proj, p)),
        (with_options(reference.strip_pool, 3), (x, p[:1].detach().requires_grad_())),
        (with_options(reference.fta, [1, 2]), (x, gate, bias)),
    ]
    for function, tensors in arguments:
        assert gradcheck(function, tensors)
        assert gradgradcheck(function, tensors, fast_mode=True)


def test_the_first_maximum_takes_the_gradient() -> None:
    x = torch.zeros(1, 1, 6, 1, 1, dtype=torch.float64)
    x[0, 0, [1, 2, 4]] = 1.0
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(reference.frame_maximum(x).sum(), x)
    assert gradient.flatten().tolist() == [0, 1, 0, 0, 0, 0]
    gate, bias = torch.zeros(1, 2, 1, 1, dtype=torch.float64), torch.zeros(1, 2, 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(reference.fta(x, gate, bias, [1]).sum(), x)
    assert gradient.flatten().tolist() == [0, 1, 0.5, 0, 0.5, 0]


def masked(x: Tensor, support: Tensor) -> Tensor:
    return x * support[:, None]


@pytest.mark.parametrize("lens", [None, [3, 5]], ids=["batch", "packed"])
def test_support_changes_no_output_and_no_parameter_gradient(lens: list[int] | None) -> None:
    support = support_of(normal(1, 2, 8, 5, 3))
    x = masked(normal(1, 2, 8, 5, 3), support)
    first, second = normal(2, 3, 2, 3, 3, 3).requires_grad_(), normal(2, 2, 3, 3, 3, 3).requires_grad_()
    gate, bias = normal(2, 2, 2, 2).requires_grad_(), normal(2, 2, 2).requires_grad_()
    proj, p = normal(4, 2).requires_grad_(), (6.5 + normal(2)).requires_grad_()
    leaves = [first, second, gate, bias, proj, p]

    def network(support: Tensor | None) -> list[Tensor]:
        grown = None if support is None else reference.grow_support(support, SPLIT, lens)
        grown_twice = None if grown is None else reference.grow_support(grown, SPLIT, lens)
        y = reference.arme(x, first, SPLIT, seq_lens=lens, support=support)
        y = reference.arme(y, second, SPLIT, seq_lens=lens, support=grown)
        pooled = reference.astp(y, proj, p, SPLIT, seq_lens=lens, support=grown_twice)
        z = reference.fta(y, gate, bias, SPLIT, seq_lens=lens, support=grown_twice)
        loss = pooled.sin().sum() + z.sin().sum()
        return [pooled, z, *torch.autograd.grad(loss, leaves)]

    for with_support, without in zip(network(support), network(None)):
        torch.testing.assert_close(with_support, without, rtol=1e-13, atol=1e-13)


def test_grown_support_stops_at_regions_and_sequences() -> None:
    support = torch.zeros(1, 8, 5, 4, dtype=torch.bool)
    support[0, 2, 1, 0] = True
    grown = reference.grow_support(support, SPLIT, [3, 5])
    expected = torch.zeros_like(support)
    expected[0, 1:3, 0:2, 0:2] = True
    assert torch.equal(grown, expected)


def test_outside_the_support_counts_as_zero() -> None:
    x = normal(1, 2, 8, 5, 3).requires_grad_()
    support = support_of(x)
    kernel, proj, p = normal(2, 3, 2, 3, 3, 3), normal(4, 2), 6.5 + normal(2)
    gate, bias = normal(2, 2, 2, 2), normal(2, 2, 2)
    calls: list[Callable[..., Tensor]] = [
        lambda x, **support: reference.arme(x, kernel, SPLIT, **support),
        lambda x, **support: reference.astp(x, proj, p, SPLIT, **support),
        lambda x, **support: reference.strip_pool(x, p[:1], 5, **support),
        lambda x, **support: reference.fta(x, gate, bias, SPLIT, **support),
    ]
    for call in calls:
        y = call(x, support=support)
        torch.testing.assert_close(y, call(masked(x, support)))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.where(~support[:, None], 0).count_nonzero() == 0
    outside = ~reference.grow_support(support, SPLIT)
    assert reference.arme(x, kernel, SPLIT, support=support).where(outside[:, None], 0).count_nonzero() == 0


@pytest.fixture
def flushed_denormals() -> object:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormal numbers to zero")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-7, 1e-6, 1e-3, 1.0, 1e4], ids=str)
def test_the_generalised_mean_survives_every_scale(scale: float, dtype: torch.dtype, flushed_denormals: object) -> None:
    x = (scale * normal(3, 4, 10)).to(dtype).requires_grad_()
    p = torch.tensor(6.5, requires_grad=True)
    y = reference.generalised_mean(x, p)
    assert y.dtype == torch.float32
    y.sum().backward()

    exact_x, exact_p = x.detach().double().requires_grad_(), p.detach().double().requires_grad_()
    exact = (exact_x.clamp(min=1e-6) ** exact_p).mean(-1) ** (1 / exact_p)
    exact.sum().backward()
    # Powers of values that are up to 1e6 times smaller than the largest.
    power = of_exponent(torch.float32, 6.5 * math.log(1e6))
    assert distance(y, exact) <= power / 6.5 + rounding(torch.float32, 10)
    if scale > 1e-6:
        assert distance(p.grad, exact_p.grad) <= 1e-4  # a difference of logarithms
    assert distance(x.grad, exact_x.grad) <= power + rounding(dtype, 10)


def test_all_negative_inputs_pool_to_the_clamp_without_gradient() -> None:
    x = (-1 - torch.rand(2, 3, 4, 6, 5, generator=generator)).requires_grad_()
    p = torch.full((2,), 6.5, requires_grad=True)
    pooled = reference.astp(x, None, p, [2, 4])
    assert torch.equal(pooled, torch.full_like(pooled, 1e-6))
    pooled.sum().backward()
    assert p.grad.tolist() == [0, 0]
    assert x.grad.count_nonzero() == 0
