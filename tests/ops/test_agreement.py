"""Every operator against its definition: values and gradients, in every type, for every layout."""

import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast import functional, reference, use_algorithm
from tests.helpers.bounds import away_from_kink, distance, distance_of_norms, inherent, of_exponent, rounding
from tests.helpers.cases import CASES, LONG_ENOUGH, OPERATORS, PAIR_NAMES, PAIRS, Case, Operator, distinct_map

Results = list[Tensor]
each_pair = pytest.mark.parametrize(("operator", "case"), PAIRS, ids=PAIR_NAMES)
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)


def run(
    function: Callable[..., Tensor], inputs: list[Tensor], split: list[int], signs: Tensor | None = None, **options: Any
) -> Results:
    """The output and the gradient of every input, along a fixed direction, in float64.

    The direction is 0 where rounding may decide the sign of an output: where `signs`, if given, is near zero.
    """
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    y = function(*leaves, split, **options)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    direction = (direction if signs is None else away_from_kink(direction, signs, 1e-4)).to(y.dtype)
    return [value.detach().double() for value in (y, *torch.autograd.grad(y, leaves, direction))]


def errors(results: Results, expected: Results) -> list[float]:
    """The norm of each result's error relative to the norm of what is expected."""
    return [distance_of_norms(r, t) for r, t in zip(results, expected, strict=True)]


@each_pair
def test_float64_equals_the_definition(operator: Operator, case: Case, native: str) -> None:
    inputs, options = operator.inputs(case), operator.options(case)
    expected = run(operator.definition, inputs, case.split, **options)
    got = run(operator.public, inputs, case.split, backend=native, **options)
    assert max(errors(got, expected)) < 1e-12


@each_pair
def test_float32_errs_at_most_twice_as_much_as_torch(operator: Operator, case: Case, native: str) -> None:
    """Or twice what the rounding of the inputs makes of the results: torch may be lucky."""
    inputs, options = operator.inputs(case), operator.options(case)
    narrow = [value.float() for value in inputs]
    signs = operator.definition(*(value.double() for value in narrow), case.split, **options)

    def definition(*values: Tensor) -> Results:
        return run(operator.definition, list(values), case.split, signs, **options)

    expected = definition(*(value.double() for value in narrow))
    least = inherent(definition, narrow, torch.float32)
    torchs = errors(definition(*narrow), expected)
    with use_algorithm("direct"):
        ours = errors(run(operator.public, narrow, case.split, signs, backend=native, **options), expected)
    assert all(our <= 2 * max(pair) for our, *pair in zip(ours, torchs, least, strict=True)), (ours, torchs, least)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
@each_operator
def test_narrow_types_compute_in_float32(operator: Operator, dtype: torch.dtype, backend: str) -> None:
    case = LONG_ENOUGH[5]
    narrow = [value.to(dtype) for value in operator.inputs(case)]
    with use_algorithm("direct"):  # Winograd rounds more than this test asks
        y = operator.public(*narrow, case.split, backend=backend)
    expected = operator.definition(*[value.double() for value in narrow], case.split)
    assert y.dtype == (torch.float32 if operator.name == "astp" else dtype)
    assert_rounded_once(operator, case, y, expected)


def assert_rounded_once(operator: Operator, case: Case, y: Tensor, expected: Tensor) -> None:
    """From float32, if the result is of a narrower type: every element is the nearest of its type."""
    once = torch.finfo(y.dtype).eps / 2 if y.dtype.itemsize < 4 else 0
    assert (
        (y.double() - expected).abs() <= once * expected.abs() + operator.bounds(case)[0] * expected.abs().max()
    ).all()


@each_operator
def test_narrow_inputs_take_float32_parameters(operator: Operator, backend: str) -> None:
    case = LONG_ENOUGH[5]
    x, *parameters = operator.inputs(case)
    leaves = [value.float().requires_grad_() for value in parameters]
    y = operator.public(x.bfloat16().requires_grad_(), *leaves, case.split, backend=backend)
    y.float().square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.dtype == torch.float32 for leaf in leaves)
    assert all(leaf.grad.isfinite().all() for leaf in leaves)


@pytest.mark.parametrize("operator", OPERATORS[1:], ids=lambda operator: operator.name)
def test_parameters_are_not_rounded_to_a_narrow_input(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator, where the reference computes in the input's own type."""
    monkeypatch.setattr(sys.modules[operator.public.__module__], "reference_dtype", lambda x: x.dtype)
    case = LONG_ENOUGH[5]
    x, *parameters = operator.inputs(case)
    narrow, parameters = x.bfloat16(), [value.float() for value in parameters]
    y = operator.public(narrow, *parameters, case.split, backend="reference")
    expected = operator.definition(narrow.double(), *[value.double() for value in parameters], case.split)
    assert_rounded_once(operator, case, y, expected)


@each_operator
def test_autocast_decides_the_type(operator: Operator, backend: str) -> None:
    case = LONG_ENOUGH[5]
    inputs = [value.float() for value in operator.inputs(case)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = operator.public(*inputs, case.split, backend=backend)
    expected = operator.public(inputs[0].bfloat16(), *inputs[1:], case.split, backend=backend)
    assert y.dtype == (torch.float32 if operator.name == "astp" else torch.bfloat16)
    torch.testing.assert_close(y, expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        wide = operator.public(*operator.inputs(case), case.split, backend=backend)
    assert wide.dtype == torch.float64


@each_operator
def test_packed_sequences_do_not_meet(operator: Operator, native: str) -> None:
    case = LONG_ENOUGH[6]._replace(lens=[3, 14, 5, 90, 4], packed=True)
    inputs = operator.inputs(case)
    packed = operator.public(*inputs, case.split, seq_lens=case.lens, backend=native)
    alone = [operator.public(x, *inputs[1:], case.split, backend=native) for x in inputs[0].split(case.lens, dim=2)]
    joined = torch.cat(alone, dim=0 if operator.name == "astp" else 2)
    torch.testing.assert_close(packed, joined, rtol=0, atol=0)


@each_operator
def test_lengths_may_be_a_tensor(operator: Operator, backend: str) -> None:
    case = LONG_ENOUGH[7]
    inputs = operator.inputs(case)
    as_list = operator.public(*inputs, case.split, seq_lens=case.lens, backend=backend)
    as_tensor = operator.public(*inputs, case.split, seq_lens=torch.tensor(case.lens), backend=backend)
    torch.testing.assert_close(as_tensor, as_list, rtol=0, atol=0)


@each_operator
def test_strides_do_not_matter(operator: Operator, native: str) -> None:
    case = LONG_ENOUGH[5]
    x, *parameters = operator.inputs(case)
    plain = run(operator.public, [x, *parameters], case.split, backend=native)
    mirrored = x.flip(4).transpose(0, 1).contiguous().transpose(0, 1).flip(4)
    transposed = [value.transpose(0, -1).contiguous().transpose(0, -1) for value in parameters]
    for got, expected in zip(
        run(operator.public, [mirrored, *transposed], case.split, backend=native), plain, strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_feature_maps_come_out_channels_last(backend: str) -> None:
    case = LONG_ENOUGH[5]
    for operator in (OPERATORS[0], OPERATORS[2]):
        y = operator.public(*operator.inputs(case), case.split, backend=backend)
        assert y.is_contiguous(memory_format=torch.channels_last_3d)


@each_operator
def test_threads_do_not_change_the_values(operator: Operator, native: str) -> None:
    case = CASES[7]._replace(lens=[7, 5, 9])
    inputs = [value.float() for value in operator.inputs(case)]
    outputs = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 5):
            torch.set_num_threads(threads)
            outputs.append(operator.public(*inputs, case.split, seq_lens=case.lens, backend=native))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(outputs[0], other) for other in outputs[1:])


@each_operator
def test_runs_repeat_bit_for_bit(operator: Operator, native: str) -> None:
    case = LONG_ENOUGH[5]
    inputs = [value.float() for value in operator.inputs(case)]
    first = run(operator.public, inputs, case.split, backend=native)
    for _ in range(3):
        again = run(operator.public, inputs, case.split, backend=native)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("operator", OPERATORS[1:], ids=lambda operator: operator.name)
def test_the_first_of_equal_maxima_takes_the_gradient(operator: Operator, native: str) -> None:
    case = LONG_ENOUGH[5]._replace(lens=[11, 11])
    x, *parameters = operator.inputs(case)
    tied = (x * 2).round() / 2
    expected = run(operator.definition, [tied, *parameters], case.split)
    assert max(errors(run(operator.public, [tied, *parameters], case.split, backend=native), expected)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("level", [0.0, -1.0, 1e-9, 1e-6, 1e4])
@pytest.mark.parametrize("p", [0.5, 1.0, 6.5, 40.0])
def test_constant_maps_pool_to_their_level(level: float, p: float, dtype: torch.dtype, backend: str) -> None:
    x = torch.full((1, 3, 4, 6, 5), level, dtype=dtype, requires_grad=True)
    powers = torch.full((2,), p, dtype=dtype, requires_grad=True)
    pooled = functional.astp(x, None, powers, [4, 2], backend=backend)
    exponent = abs(math.log(max(level, 1e-6))) * max(p, 1)
    bound = (of_exponent(dtype, exponent) + rounding(dtype, 20)) / min(p, 1)
    assert distance(pooled, torch.full_like(pooled, max(level, 1e-6))) <= bound
    gx, gp = torch.autograd.grad(pooled.sum(), (x, powers))
    assert gx.isfinite().all()
    assert gp.isfinite().all()
    assert bool(gx.any()) == (level > 1e-6 or level == pytest.approx(1e-6))


def test_lone_bright_position_does_not_underflow(native: str) -> None:
    """1e-6 ^ 6.5 is subnormal in float32; relative to the region's maximum nothing depends on it."""
    x = torch.zeros(1, 1, 1, 8, 8)
    x[..., 3, 3] = 0.5
    pooled = functional.astp(x, None, torch.tensor([6.5]), [8], backend=native)
    expected = torch.full_like(pooled, 0.5 * (1 / 64) ** (1 / 6.5))
    assert distance(pooled, expected) <= rounding(torch.float32, 64)


def test_strip_pool_is_astp_over_equal_strips(backend: str) -> None:
    x, p = distinct_map(CASES[5]), torch.tensor([5.0], dtype=torch.float64, requires_grad=True)
    strips = functional.strip_pool(x, p, 4, backend=backend)
    torch.testing.assert_close(strips, reference.strip_pool(x, p, 4), rtol=1e-12, atol=0)
    (got,) = torch.autograd.grad(strips.square().sum(), p)
    (expected,) = torch.autograd.grad(reference.strip_pool(x, p, 4).square().sum(), p)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=0)


def test_three_frames_are_one_window(native: str) -> None:
    """Both windows of FTA see all three frames, so the gate has nothing to choose."""
    case = LONG_ENOUGH[5]._replace(lens=[3, 3])
    x, weights, biases = OPERATORS[2].inputs(case)
    y = functional.fta(x, weights, biases, case.split, backend=native)
    torch.testing.assert_close(y, x.amax(2, keepdim=True), rtol=1e-14, atol=0)


def test_weights_may_be_a_list(backend: str) -> None:
    case = CASES[5]
    x, stacked = OPERATORS[0].inputs(case)
    weights = [weight.clone().requires_grad_() for weight in stacked]
    y = functional.arme(x, weights, case.split, backend=backend)
    torch.testing.assert_close(y, functional.arme(x, stacked, case.split, backend=backend), rtol=0, atol=0)
    y.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights)


@pytest.mark.parametrize("slope", [None, 0.0, 0.3])
def test_slope_of_the_activation(slope: float | None, native: str) -> None:
    case = CASES[5]
    inputs = OPERATORS[0].inputs(case)
    expected = run(reference.arme, inputs, case.split, negative_slope=slope)
    got = run(functional.arme, inputs, case.split, negative_slope=slope, backend=native)
    assert max(errors(got, expected)) < 1e-12


def test_support_writes_zeros_outside_and_keeps_parameter_gradients() -> None:
    generator = torch.Generator().manual_seed(3)
    support = torch.rand(2, 5, 8, 9, generator=generator) < 0.05
    x = torch.rand(2, 4, 5, 8, 9, generator=generator, dtype=torch.float64) * support[:, None]
    weights = torch.randn(2, 6, 4, 3, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    dense = functional.arme(x, weights, [5, 3], backend="reference")
    skipped = functional.arme(x, weights, [5, 3], backend="reference", support=support)
    grown = reference.grow_support(support, [5, 3])
    assert not skipped.detach()[~grown[:, None].expand_as(skipped)].any()
    assert 0 < grown.sum() < grown.numel()
    torch.testing.assert_close(skipped, dense, rtol=0, atol=0)
    direction = torch.randn(dense.shape, generator=generator, dtype=torch.float64)
    gradients = [torch.autograd.grad(y, weights, direction)[0] for y in (dense, skipped)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0, atol=1e-12)


@each_operator
def test_gradcheck(operator: Operator, backend: str) -> None:
    case = Case(2, 3, [2, 1], 3, [4, 3], True)
    inputs = [value.requires_grad_() for value in operator.inputs(case)]
    assert torch.autograd.gradcheck(
        lambda *leaves: operator.public(*leaves, case.split, seq_lens=case.lens, backend=backend), inputs
    )


@each_operator
def test_only_the_wanted_gradients(operator: Operator, native: str) -> None:
    case = LONG_ENOUGH[5]
    inputs = operator.inputs(case)
    expected = run(operator.definition, inputs, case.split)
    for i, value in enumerate(inputs):
        leaves = [v.detach() for v in inputs]
        leaves[i] = value.clone().requires_grad_()
        y = operator.public(*leaves, case.split, backend=native)
        direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        (gradient,) = torch.autograd.grad(y, leaves[i], direction)
        assert errors([gradient], [expected[1 + i]])[0] < 1e-12
