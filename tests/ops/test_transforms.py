"""The operators under the transforms of torch.func and under forward-mode differentiation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad

from hstl_fast import use_backend
from tests.helpers.cases import LONG_ENOUGH, OPERATORS, Operator

CASE = LONG_ENOUGH[2]
PACKED = LONG_ENOUGH[8]
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)


def scalar(operator: Operator, backend: str) -> Callable[..., Tensor]:
    """A number made of all of the operator's result."""
    return lambda *inputs: operator.public(*inputs, CASE.split, backend=backend).sin().sum()


def every(inputs: list[Tensor]) -> tuple[int, ...]:
    return tuple(range(len(inputs)))


def under_both(native: str, compute: Callable[[], Any]) -> list[Any]:
    """What `compute` gives on the native backend and on the reference."""
    results = []
    for name in (native, "reference"):
        with use_backend(name):
            results.append(compute())
    return results


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@each_operator
def test_gradients_are_those_of_autograd(operator: Operator, backend: str) -> None:
    inputs = operator.inputs(CASE)
    f = scalar(operator, backend)
    leaves = [value.clone().requires_grad_() for value in inputs]
    expected = torch.autograd.grad(f(*leaves), leaves)
    assert_same(func.grad(f, every(inputs))(*inputs), expected)
    assert_same(func.vjp(f, *inputs)[1](torch.ones((), dtype=torch.float64)), expected)
    assert_same(func.grad(f, 1)(*inputs), expected[1])


@each_operator
def test_gradients_of_packed_sequences(operator: Operator, native: str) -> None:
    inputs = operator.inputs(PACKED)

    def total(*values: Tensor) -> Tensor:
        return operator.public(*values, PACKED.split, seq_lens=PACKED.lens).sum()

    assert_same(*under_both(native, lambda: func.grad(total)(*inputs)))


@each_operator
def test_jacobians(operator: Operator, native: str) -> None:
    inputs = operator.inputs(CASE)
    jacobian = func.jacrev(lambda *values: operator.public(*values, CASE.split), 1)
    assert_same(*under_both(native, lambda: jacobian(*inputs)))


@each_operator
def test_vmap_is_a_loop(operator: Operator, backend: str) -> None:
    inputs = operator.inputs(CASE)
    batch = [torch.stack([value, 1.25 * value], 1) for value in inputs]

    def call(*values: Tensor) -> Tensor:
        return operator.public(*values, CASE.split, backend=backend)

    expected = torch.stack([call(*inputs), call(*(1.25 * value for value in inputs))])
    assert_same(func.vmap(call, in_dims=1)(*batch), expected)
    only_maps = func.vmap(call, in_dims=(1, *(None for _ in inputs[1:])))(batch[0], *inputs[1:])
    assert_same(only_maps, torch.stack([call(*inputs), call(1.25 * inputs[0], *inputs[1:])]))


@each_operator
def test_gradients_of_every_sequence_by_itself(operator: Operator, backend: str) -> None:
    x, weights, *others = operator.inputs(CASE)

    def loss(weights: Tensor, sequence: Tensor) -> Tensor:
        return scalar(operator, backend)(sequence[None], weights, *others)

    each = func.vmap(func.grad(loss), in_dims=(None, 0))(weights, x)
    assert_same(each, torch.stack([func.grad(loss)(weights, sequence) for sequence in x]))
    together = func.grad(lambda w: func.vmap(loss, in_dims=(None, 0))(w, x).sum())(weights)
    assert_same(together, each.sum(0))


@each_operator
def test_many_gradients_at_once(operator: Operator, native: str) -> None:
    leaves = [value.requires_grad_() for value in operator.inputs(CASE)]
    y = operator.public(*leaves, CASE.split, backend=native)
    directions = torch.stack([y.detach(), y.detach().cos()])
    found = torch.autograd.grad(y, leaves, directions, retain_graph=True, is_grads_batched=True)
    each = [torch.autograd.grad(y, leaves, direction, retain_graph=True) for direction in directions]
    assert_same(found, tuple(torch.stack(pair) for pair in zip(*each, strict=True)))


def test_a_projection_may_be_absent(native: str) -> None:
    operator = OPERATORS[1]
    x, _, p = operator.inputs(CASE)
    gradients = func.grad(lambda x, p: operator.public(x, None, p, CASE.split).sum(), (0, 1))
    assert_same(*under_both(native, lambda: gradients(x, p)))


def test_parameters_that_need_gradients_themselves(native: str) -> None:
    operator = OPERATORS[0]
    x, weights = operator.inputs(CASE)
    weights.requires_grad_()
    inner = func.grad(scalar(operator, native))(x, weights)
    assert inner.requires_grad
    with pytest.raises(RuntimeError, match=r'first derivatives only .* use backend="reference"'):
        inner.sum().backward()


FORWARD_MODE = r'no forward-mode derivatives .* use backend="reference"'
SECOND = r'first derivatives only .* use backend="reference"'


def _dual(f: Callable[..., Tensor], inputs: list[Tensor]) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(*(forward_ad.make_dual(value, value) for value in inputs))).tangent


UNSUPPORTED: list[tuple[str, str, Callable[[Callable[..., Tensor], list[Tensor]], Any]]] = [
    ("jvp", FORWARD_MODE, lambda f, inputs: func.jvp(f, tuple(inputs), tuple(inputs))[1]),
    ("jacfwd", FORWARD_MODE, lambda f, inputs: func.jacfwd(f, 1)(*inputs)),
    ("dual numbers", FORWARD_MODE, _dual),
    ("dual numbers without gradients", FORWARD_MODE, torch.no_grad()(_dual)),
    ("gradient of gradient", SECOND, lambda f, inputs: func.grad(lambda *v: func.grad(f)(*v).sum(), 1)(*inputs)),
    ("jacobian of gradient", SECOND, lambda f, inputs: func.jacrev(func.grad(f, 1))(*inputs)),
    ("functionalize", 'functionalize; use backend="reference"', lambda f, inputs: func.functionalize(f)(*inputs)),
]


@pytest.mark.parametrize(
    ("message", "transform"), [entry[1:] for entry in UNSUPPORTED], ids=[e[0] for e in UNSUPPORTED]
)
@each_operator
def test_what_the_native_operators_refuse(
    operator: Operator, message: str, transform: Callable[..., Any], native: str
) -> None:
    inputs = operator.inputs(CASE)
    with pytest.raises(RuntimeError, match=message):
        transform(scalar(operator, native), inputs)
    result = transform(scalar(operator, "reference"), inputs)
    assert result.isfinite().all()
    assert result.abs().sum() > 0


@each_operator
def test_forward_mode_of_the_reference_is_its_gradient(operator: Operator) -> None:
    inputs = operator.inputs(CASE)
    f = scalar(operator, "reference")
    slopes = func.grad(f, every(inputs))(*inputs)
    expected = sum((slope * value).sum() for slope, value in zip(slopes, inputs, strict=True))
    assert_same(func.jvp(f, tuple(inputs), tuple(inputs))[1], expected)


def test_dual_numbers_elsewhere_do_not_disturb(native: str) -> None:
    operator = OPERATORS[0]
    inputs = operator.inputs(CASE)
    leaves = [value.clone().requires_grad_() for value in inputs]
    with forward_ad.dual_level():
        found = torch.autograd.grad(scalar(operator, native)(*leaves), leaves)
    assert_same(found, func.grad(scalar(operator, native), every(inputs))(*inputs))


@pytest.mark.parametrize(
    "transform", [func.grad, lambda f: lambda x, w: func.jvp(f, (x, w), (x, w))], ids=["grad", "jvp"]
)
def test_compiled_transforms_are_refused(transform: Callable[..., Any], native: str) -> None:
    torch._dynamo.reset()
    inputs = OPERATORS[0].inputs(CASE)
    compiled = torch.compile(transform(scalar(OPERATORS[0], native)), backend="eager")
    with pytest.raises(Exception, match=r'torch\.compile cannot follow torch\.func .* use backend="reference"'):
        compiled(*inputs)


def test_transforms_of_auto_use_the_backend_of_ordinary_calls(native: str) -> None:
    operator = OPERATORS[2]
    inputs = operator.inputs(CASE)
    with use_backend(native):
        expected = func.grad(scalar(operator, native))(*inputs)
    assert torch.equal(func.grad(lambda *v: operator.public(*v, CASE.split).sin().sum())(*inputs), expected)
