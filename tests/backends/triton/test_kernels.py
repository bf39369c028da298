"""Every Triton kernel against the definition: values, gradients, types and layouts.

On a GPU if there is one, else in Triton's interpreter.
"""

import copy
import math
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from hstl_fast import HSTL, functional, reference, use_backend
from hstl_fast.backends.triton import available
from tests.backends.triton.helpers import BATCH, DEVICE, NEAR_ZERO, PACKED, SMALL, assert_near, each_operator, results
from tests.helpers.bounds import (
    NETWORK,
    away_from_kink,
    distance,
    distance_of_norms,
    inherent,
    of_exponent,
    rounding,
)
from tests.helpers.cases import OPERATORS, PAIRS, Case, Operator, distinct_map
from tests.helpers.networks import narrow_model, walkers

pytestmark = pytest.mark.usefixtures("exact_kernels")
# Kernels add in float32; they round to a narrow type what they return and what one of them hands to the next.
NARROW_ROUNDINGS = 16
# Larger maps take too long in the interpreter.
MOST_POSITIONS = 1000


def _positions(case: Case) -> int:
    return sum(case.lens) * sum(case.split) * case.w


FEASIBLE = [pair for pair in PAIRS if DEVICE == "cuda" or _positions(pair[1]) <= MOST_POSITIONS]
FEASIBLE += [(operator, case) for operator in OPERATORS for case in (BATCH, PACKED)]
each_pair = pytest.mark.parametrize(
    ("operator", "case"), FEASIBLE, ids=[f"{operator.name}-{case}" for operator, case in FEASIBLE]
)


def assert_float32(operator: Operator, case: Case, inputs: list[Tensor], **options: Any) -> None:
    """Assert that values and gradients are those of the definition but for rounding."""

    def exact(*values: Tensor) -> list[Tensor]:
        return results(operator.definition, [value.double() for value in values], case.split, signs=signs, **options)

    signs = None
    expected = exact(*inputs)
    signs = expected[0]
    found = results(operator.public, inputs, case.split, signs=signs, **options)
    least = [4 * moved for moved in inherent(exact, inputs, torch.float32)]
    assert_near(found, expected, [max(pair) for pair in zip(operator.bounds(case), least, strict=True)])


def _skip_products_of_bfloat16(operator: Operator, dtype: torch.dtype) -> None:
    if available.is_interpreted() and DEVICE == "cpu" and operator.name == "arme" and dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as integers")


@each_pair
def test_float32(operator: Operator, case: Case) -> None:
    assert_float32(operator, case, [value.float() for value in operator.inputs(case)], **operator.options(case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", [BATCH, PACKED], ids=str)
@each_operator
def test_narrow_types(operator: Operator, case: Case, dtype: torch.dtype) -> None:
    _skip_products_of_bfloat16(operator, dtype)
    inputs, options = [value.to(dtype) for value in operator.inputs(case)], operator.options(case)
    expected = results(operator.definition, [value.double() for value in inputs], case.split, **options)
    found = results(operator.public, inputs, case.split, signs=expected[0], **options)
    assert [value.dtype for value in found[1:]] == [dtype] * len(inputs)
    assert found[0].dtype == (torch.float32 if operator.name == "astp" else dtype)
    assert_near(found, expected, [rounding(dtype, NARROW_ROUNDINGS)] * len(found))


@each_operator
def test_narrow_inputs_take_float32_parameters(operator: Operator) -> None:
    x, *parameters = [value.half() for value in operator.inputs(BATCH)]
    mixed = [x, *(value.float() for value in parameters)]
    expected = results(operator.definition, [value.double() for value in mixed], BATCH.split)
    found = results(operator.public, mixed, BATCH.split, signs=expected[0])
    assert [value.dtype for value in found[1:]] == [torch.float16] + [torch.float32] * len(parameters)
    assert_near(found, expected, [rounding(torch.float16, NARROW_ROUNDINGS)] * len(found))


@each_operator
def test_packed_sequences_do_not_meet(operator: Operator) -> None:
    case = SMALL._replace(lens=[3, 8, 5, 4], packed=True)
    inputs = [value.to(DEVICE, torch.float32) for value in operator.inputs(case)]
    packed = operator.public(*inputs, case.split, seq_lens=case.lens)
    alone = [operator.public(x, *inputs[1:], case.split) for x in inputs[0].split(case.lens, dim=2)]
    joined = torch.cat(alone, dim=0 if operator.name == "astp" else 2)
    # A frame stands elsewhere in a tile in each of the two, and its sums are added in another order.
    assert distance(packed, joined) <= 2 * operator.bounds(case)[0]


@each_operator
def test_strides_do_not_matter(operator: Operator) -> None:
    case = SMALL._replace(lens=[3, 3])
    x, *parameters = [value.float() for value in operator.inputs(case)]
    plain = results(operator.public, [x, *parameters], case.split)
    mirrored = x.flip(4).transpose(0, 1).contiguous().transpose(0, 1).flip(4)
    transposed = [value.transpose(0, -1).contiguous().transpose(0, -1) for value in parameters]
    for found, expected in zip(results(operator.public, [mirrored, *transposed], case.split), plain, strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("operator", OPERATORS[1:], ids=lambda operator: operator.name)
def test_the_first_of_equal_maxima_takes_the_gradient(operator: Operator) -> None:
    case = BATCH._replace(lens=[11, 11])
    x, *parameters = [value.float() for value in operator.inputs(case)]
    assert_float32(operator, case, [(x * 2).round() / 2, *parameters])


@pytest.mark.parametrize("level", [0.0, -1.0, 1e-9, 1e4])
@pytest.mark.parametrize("p", [0.5, 6.5, 40.0])
def test_constant_maps_pool_to_their_level(level: float, p: float) -> None:
    x = torch.full((1, 3, 4, 6, 5), level, device=DEVICE, requires_grad=True)
    powers = torch.full((2,), p, device=DEVICE, requires_grad=True)
    pooled = functional.astp(x, None, powers, [4, 2])
    exponent = abs(math.log(max(level, 1e-6))) * max(p, 1)
    bound = (of_exponent(torch.float32, exponent) + rounding(torch.float32, 20)) / min(p, 1)
    assert distance(pooled, torch.full_like(pooled, max(level, 1e-6))) <= bound
    gx, gp = torch.autograd.grad(pooled.sum(), (x, powers))
    assert gx.isfinite().all()
    assert gp.isfinite().all()
    assert bool(gx.any()) == (level > 1e-6)


def test_strip_pool() -> None:
    x, p = distinct_map(BATCH).float(), torch.tensor([5.0])
    expected = results(reference.strip_pool, [x.double(), p.double()], 4)
    # The bounds are those of ASTP with larger regions.
    bounds = OPERATORS[1].bounds(BATCH)[:3]
    assert_near(results(functional.strip_pool, [x, p], 4, signs=expected[0]), expected, bounds)


@pytest.mark.parametrize("slope", [None, 0.0, 0.3])
def test_slope_of_the_activation(slope: float | None) -> None:
    inputs = [value.float() for value in OPERATORS[0].inputs(SMALL)]
    split = SMALL.split
    expected = results(reference.arme, [value.double() for value in inputs], split, negative_slope=slope)
    found = results(functional.arme, inputs, split, signs=expected[0], negative_slope=slope)
    assert_near(found, expected, OPERATORS[0].bounds(SMALL))


@pytest.mark.parametrize("wanted", [0, 1])
def test_only_the_wanted_gradient(wanted: int) -> None:
    case = SMALL
    inputs = [value.to(DEVICE, torch.float32) for value in OPERATORS[0].inputs(case)]
    expected = results(OPERATORS[0].definition, [value.double() for value in inputs], case.split)
    inputs[wanted].requires_grad_()
    y = functional.arme(*inputs, case.split)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(y, inputs[wanted], away_from_kink(direction, expected[0], NEAR_ZERO).to(y))
    assert_near([gradient.cpu()], [expected[1 + wanted]], [OPERATORS[0].bounds(case)[1 + wanted]])


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "case", [BATCH._replace(split=[4, 2], lens=[4]), PACKED._replace(split=[6], lens=[3, 2])], ids=str
)
def test_patches_feed_the_same_products(case: Case, sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.triton import arme as kernels

    fed = []

    def patches(*arguments: Any) -> None:
        fed.append(1)
        kernels.conv_patches(*arguments)

    x, weights = [value.float() for value in OPERATORS[0].inputs(case)]
    support = torch.rand(x[:, 0].shape, generator=torch.Generator().manual_seed(2)) < 0.2 if sparse else None
    options = {**OPERATORS[0].options(case), "support": support}
    expected = results(reference.arme, [x.double(), weights.double()], case.split, **options)
    monkeypatch.setattr(kernels, "conv_sites", patches)
    found = results(functional.arme, [x, weights], case.split, signs=expected[0], **options)
    assert_near(found, expected, OPERATORS[0].bounds(case))
    assert len(fed) == 2


def test_bulk_copies_are_for_wide_maps_without_a_support() -> None:
    from hstl_fast.backends.triton.arme import feeds_patches

    assert feeds_patches(64, torch.bfloat16, [40, 24], 44, False, (9, 0))
    for other in (
        (64, torch.bfloat16, [40, 24], 44, True, (9, 0)),
        (64, torch.bfloat16, [40, 24], 44, False, (8, 9)),
        (32, torch.bfloat16, [40, 24], 44, False, (9, 0)),
        (65, torch.bfloat16, [40, 24], 44, False, (9, 0)),
        (64, torch.bfloat16, [3, 1], 44, False, (9, 0)),
        (64, torch.bfloat16, [40, 24], 33, False, (9, 0)),
    ):
        assert not feeds_patches(*other)


def test_maps_of_more_positions_than_32_bits_count() -> None:
    from hstl_fast.backends.triton.support import active_sites, grow

    many = torch.empty((1, 2**31 // (64 * 44) + 1, 64, 44), dtype=torch.bool, device="meta")
    with pytest.raises(ValueError, match=r"x must have at most 2147482624 positions .* take fewer sequences at once"):
        active_sites(None, many[:, None], [64], [])
    with pytest.raises(ValueError, match="x must have at most 2147482624 positions"):
        grow(many, [64], [])


def test_maps_of_more_elements_than_32_bits_count() -> None:
    """Only the last frame is not zero, and it begins beyond the element number 2^31."""
    if DEVICE == "cpu":
        pytest.skip("takes 5 GiB and the interpreter hours")
    x = torch.zeros(1, 100, 2880, 64, 120, dtype=torch.float16, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    x[:, :, -1] = torch.rand(100, 64, 120).to(x)
    pooled = functional.astp(x, None, torch.ones(1, device=DEVICE), [64])
    torch.testing.assert_close(pooled[0, :, 0], x[0, :, -1].float().mean((1, 2)), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"] if DEVICE == "cuda" else ["gait3d"])
@pytest.mark.parametrize("lens", [[4, 3], []] if DEVICE == "cuda" else [[4, 3]], ids=str)
def test_a_network_with_and_without_gradients(preset: str, lens: list[int]) -> None:
    model: HSTL = narrow_model(preset, divisor=16).to(DEVICE)
    clips = [walkers(t, seed) for seed, t in enumerate(lens or [4, 4])]
    silhouettes = (torch.cat(clips)[None] if lens else torch.stack(clips)).to(DEVICE)
    found = _losses(copy.deepcopy(model), silhouettes, lens)
    with use_backend("reference"):
        expected = _losses(copy.deepcopy(model).double(), silhouettes, lens)
    for ours, right in zip(found[:2], expected[:2], strict=True):
        assert distance(ours, right) <= rounding(torch.float32, NETWORK)
    with use_backend("reference"):
        torchs = _losses(copy.deepcopy(model), silhouettes, lens)
    ours, theirs = (_joined_distance(results[2:], expected[2:]) for results in (found, torchs))
    assert ours <= max(2 * theirs, rounding(torch.float32, NETWORK)), (ours, theirs)


def _joined_distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """The distance of all gradients together, since rounding may be all that is left of a single one."""
    return distance_of_norms(*(torch.cat([g.double().flatten() for g in gradients]) for gradients in (found, expected)))


def _losses(model: HSTL, silhouettes: Tensor, lens: list[int]) -> list[Tensor]:
    """The embeddings in evaluation and in training mode, and the gradients of the parameters in training mode."""
    model.eval()
    with torch.no_grad():
        still = model(silhouettes, lens or None).embeddings
    model.train()
    model.zero_grad()
    moving = model(silhouettes, lens or None).embeddings
    direction = torch.randn(moving.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    (moving * direction.to(moving)).sum().backward()
    gradients = [p.grad.detach().clone() for p in model.parameters() if p.grad is not None]
    return [still, moving.detach(), *gradients]


@each_operator
@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_type_does_not_matter(operator: Operator, default: torch.dtype) -> None:
    inputs = [value.float() for value in operator.inputs(SMALL)]
    expected = results(operator.public, inputs, SMALL.split)
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        found = results(operator.public, inputs, SMALL.split)
    finally:
        torch.set_default_dtype(before)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_allocator_of_others_comes_back() -> None:
    import triton
    from triton.runtime import _allocation

    from hstl_fast.backends.triton.launch import descriptor_memory

    def theirs(size: int, alignment: int, stream: int | None) -> Tensor:
        raise AssertionError

    def current() -> Callable[..., Any]:
        held = _allocation._allocator
        return held.get() if hasattr(held, "get") else held

    triton.set_allocator(theirs)
    try:
        with descriptor_memory(torch.device(DEVICE)):
            assert current()(64, 16, None).nbytes == 64
        assert current() is theirs
    finally:
        triton.set_allocator(_allocation.NullAllocator())


def test_precision_is_what_convolutions_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.gpu import precision

    for allowed, name in ((True, "tf32"), (False, "ieee")):
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
        assert precision(torch.device(DEVICE)) == name


def test_kernels_are_launched_only_on_gpus_that_can_run_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.triton import launch

    def why_not(device: torch.device) -> str | None:
        return "it is old" if device.index == 1 else None

    monkeypatch.setattr(launch, "_why_not_on", why_not)
    x = Mock(device=torch.device("cuda", 1))
    with pytest.raises(RuntimeError, match="backend 'triton' cannot run on cuda:1: it is old"):
        launch.on_device_of(x)
    x.device = torch.device("cuda", 0)
    assert launch.on_device_of(x).idx == 0
