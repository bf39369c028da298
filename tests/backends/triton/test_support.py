"""Triton's kernels with supports: how these grow, and what stands outside counts as zero.

On a GPU if there is one, else in Triton's interpreter.
"""

import math

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import functional, reference
from tests.backends.triton.helpers import BATCH, DEVICE, PACKED, SMALL, assert_near, each_operator, results
from tests.helpers.bounds import distance, inherent, of_exponent
from tests.helpers.cases import Case, Operator

pytestmark = pytest.mark.usefixtures("exact_kernels")


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("lens", [[4, 3, 7], []], ids=["packed", "batch"])
def test_supports_grow(lens: list[int], share: float, kernels: str) -> None:
    support = (torch.rand(1 if lens else 2, 14, 8, 9, generator=torch.Generator().manual_seed(1)) < share).to(DEVICE)
    ops = torch.ops.hstl_fast
    expected = reference.grow_support(support, [4, 1, 3], lens or None)
    assert torch.equal(ops.grow_support(support, [4, 1, 3], lens, kernels), expected)
    windows = [
        nn.functional.max_pool3d(s[:, None], (5, 1, 1), (3, 1, 1), (1, 0, 0))[:, 0]
        for s in support.float().split(lens or [14], 1)
    ]
    assert torch.equal(ops.window_support(support, lens, kernels), torch.cat(windows, 1) > 0)
    assert torch.equal(ops.max_pool_support(support, kernels), nn.functional.max_pool2d(support.float(), 2) > 0)


@pytest.mark.parametrize(
    ("case", "share"),
    [(BATCH, 0.1), (BATCH, 0.6), (PACKED, 0.0), (PACKED, 0.1)]
    if DEVICE == "cuda"
    else [(BATCH, 0.1), (PACKED, 0.0), (SMALL, 0.6)],
    ids=str,
)
@each_operator
def test_what_stands_outside_counts_as_zero(operator: Operator, case: Case, share: float) -> None:
    x, *parameters = [value.float() for value in operator.inputs(case)]
    support = torch.rand(x[:, 0].shape, generator=torch.Generator().manual_seed(2)) < share
    dirty, options = x.where(support[:, None], float("inf")), operator.options(case)

    def exact(*values: Tensor) -> list[Tensor]:
        inputs = [value.double() for value in values]
        return results(operator.definition, inputs, case.split, support=support, signs=signs, **options)

    signs = None
    expected = exact(x, *parameters)
    signs = expected[0]
    found = results(operator.public, [dirty, *parameters], case.split, support=support, signs=signs, **options)
    # With an empty support the outputs of ASTP are 1e-6 whatever p is.
    if share == 0 and operator.name == "astp":
        assert found[3].norm() <= 1e-6 * of_exponent(torch.float32, math.log(1e6)) * found[0].numel()
        found[3] = expected[3]
    least = [4 * moved for moved in inherent(exact, [x, *parameters], torch.float32)]
    assert_near(found, expected, [max(pair) for pair in zip(operator.bounds(case), least, strict=True)])
    if operator.name == "arme":
        grown = reference.grow_support(support, case.split, options["seq_lens"])
        assert not found[0][~grown[:, None].expand_as(found[0])].any()
    assert not found[1][~support[:, None].expand_as(found[1])].any()


def test_background_frames_enter_maxima() -> None:
    x = torch.full((1, 1, 3, 2, 2), -1.0, device=DEVICE)
    # The first frame counts as 0 in spite of its NaN, and 0 is the maximum.
    x[:, :, 0] = float("nan")
    support = torch.ones(1, 3, 2, 2, dtype=torch.bool, device=DEVICE)
    support[:, 0] = False
    proj, p = torch.tensor([[-1.0]], device=DEVICE), torch.ones(1, device=DEVICE)
    pooled = functional.astp(x, proj, p, [2], support=support)
    assert distance(pooled, torch.full_like(pooled, 1e-6)) <= of_exponent(torch.float32, math.log(1e6))
    weights, biases = torch.zeros(1, 2, 1, 1, device=DEVICE), torch.zeros(1, 2, 1, device=DEVICE)
    assert not functional.fta(x, weights, biases, [2], support=support).any()


def test_the_first_of_equal_zeros_takes_the_gradient() -> None:
    x = torch.zeros(1, 1, 4, 1, 1, device=DEVICE, requires_grad=True)
    support = torch.tensor([True, False, True, False], device=DEVICE).view(1, 4, 1, 1)
    weights, biases = torch.zeros(1, 2, 1, 1, device=DEVICE), torch.zeros(1, 2, 1, device=DEVICE)
    for first in (0, 1):
        y = functional.fta(x, weights, biases, [1], support=support.roll(first, 1))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert gradient.flatten().tolist() == ([1.0, 0, 0, 0] if first == 0 else [0.0] * 4)


def test_means_keep_their_denominators() -> None:
    x = torch.full((1, 1, 3, 2, 2), 4.0, device=DEVICE)
    support = torch.zeros(1, 3, 2, 2, dtype=torch.bool, device=DEVICE)
    support[..., 0, 0] = True
    pooled = functional.astp(x, None, torch.ones(1, device=DEVICE), [2], support=support)
    assert distance(pooled, torch.full_like(pooled, 1 + 0.75e-6)) <= of_exponent(torch.float32, math.log(1e6))
    # At the one position inside, the maxima of the short and the long window are 2 and 3.
    x = torch.arange(4.0, device=DEVICE).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)
    weights, biases = torch.tensor([1.0, 0], device=DEVICE).view(1, 2, 1, 1), torch.zeros(1, 2, 1, device=DEVICE)
    share = torch.tensor((2 + 3) / 4).sigmoid().item()
    y = functional.fta(x, weights, biases, [2], support=support[:, :1].expand(1, 4, 2, 2))
    torch.testing.assert_close(y[0, 0, 0, 0, 0].item(), share * 2 + (1 - share) * 3)


def test_any_byte_but_0_is_inside_a_support() -> None:
    from hstl_fast.backends.triton import support as kernels

    inside = torch.rand(1, 4, 6, 5, generator=torch.Generator().manual_seed(0)) < 0.2
    one, x = inside.to(DEVICE), torch.zeros(1, 1, 4, 6, 5, device=DEVICE)
    for byte in (2, 128, 255):
        odd = (inside.to(torch.uint8) * byte).to(DEVICE).view(torch.bool)
        expected, found = (kernels.active_sites(support, x, [4, 2], []) for support in (one, odd))
        assert torch.equal(found.region_starts, expected.region_starts)
        count = int(found.region_starts[-1])
        assert torch.equal(found.sites[:count], expected.sites[:count])
        assert torch.equal(kernels.grow(odd, [4, 2], []), kernels.grow(one, [4, 2], []))
        assert torch.equal(kernels.window(odd, []), kernels.window(one, []))
        assert torch.equal(kernels.max_pool(odd), kernels.max_pool(one))
