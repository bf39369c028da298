"""Gradients that go back through LeakyReLU in place, where they are nobody else's, before ARME's own two."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch._C._dynamo.eval_frame import set_eval_frame

from hstl_fast import HSTL, functional, reference, use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.losses import cross_entropy, triplet_loss
from tests.networks import narrow_model, walkers
from tests.ops.cases import CASES, OPERATORS, Case
from tests.ops.holders import HOLDERS

SLOPE = 0.01
CASE = CASES[3]
each_case = pytest.mark.parametrize("case", CASES, ids=str)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An entry for every gradient changed in place; by the binary, because a dispatch mode would hold gradients."""
    changed: list[int] = []
    binary = library.require_cpu()
    change = binary.leaky_backward

    def noted(*arguments: Any) -> None:
        changed.append(arguments[0])
        change(*arguments)

    monkeypatch.setattr(binary, "leaky_backward", noted)
    with use_backend("cpu"):
        yield changed


def leaves(case: Case = CASE, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x, weights = (value.to(dtype) for value in OPERATORS[0].inputs(case))
    return x.contiguous(memory_format=torch.channels_last_3d).requires_grad_(), weights.requires_grad_()


def native(x: Tensor, weights: Tensor, case: Case = CASE, **options: Any) -> Tensor:
    return functional.arme(x, weights, case.split, seq_lens=case.lens if case.packed else None, **options)


def plain(x: Tensor, weights: Tensor, case: Case = CASE) -> Tensor:
    return reference.arme(x, weights, case.split, negative_slope=SLOPE, seq_lens=case.lens if case.packed else None)


def loss(y: Tensor) -> Tensor:
    return (3 * y).sin().sum()


def gradient_of_loss(y: Tensor) -> Tensor:
    return 3 * (3 * y.detach()).cos()


def assert_close(found: Any, expected: Any, tolerance: float = 1e-10) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= tolerance * other.norm()


# ---- the operator


@both_dtypes
@pytest.mark.parametrize("sparse", [False, True], ids=["everywhere", "support"])
@each_case
def test_operator(case: Case, sparse: bool, dtype: torch.dtype) -> None:
    y = native(*leaves(case, dtype), case, backend="cpu").detach()
    gradient = torch.randn_like(y)
    within = torch.rand(y.shape[0], *y.shape[2:], generator=torch.Generator().manual_seed(0)) < 0.6
    support = within if sparse else None
    if sparse:
        y = y.where(within[:, None], torch.nan)
    expected = gradient.where(y > 0, SLOPE * gradient)
    if sparse:
        expected = expected.where(within[:, None], gradient)
    torch.ops.hstl_fast.leaky_backward_(gradient, y, support, SLOPE, "cpu")
    assert torch.equal(gradient, expected)


def test_operator_says_what_it_changes_and_what_it_takes() -> None:
    y = native(*leaves(), backend="cpu").detach()
    operator = torch.ops.hstl_fast.leaky_backward_
    torch.library.opcheck(operator.default, (y.clone(), y, None, SLOPE, "cpu"))
    for wrong in (y.contiguous(), y.bfloat16()):
        with pytest.raises(ValueError, match="grad must be a dense float32 or float64 map"):
            operator(wrong, y, None, SLOPE, "cpu")


# ---- when it is used


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=["float32", "float64"]
)
@each_case
def test_gradients(case: Case, dtype: torch.dtype, tolerance: float, in_place: list[int]) -> None:
    """Mapped from the same outputs, so that no sign near zero differs."""
    inputs = leaves(case, dtype)
    y = native(*inputs, case)
    found = torch.autograd.grad(loss(y), inputs)
    assert len(in_place) == 1
    exact = [value.detach().double().requires_grad_() for value in inputs]
    unbent = reference.arme(*exact, case.split, negative_slope=1.0, seq_lens=case.lens if case.packed else None)
    arriving = gradient_of_loss(y).double()
    arriving = arriving.where(y > 0, SLOPE * arriving)
    assert_close(found, torch.autograd.grad(unbent, exact, arriving), tolerance)


def test_only_where_the_gradient_of_the_input_is_wanted(in_place: list[int]) -> None:
    inputs = leaves()
    for wanted, changes in (([inputs[0]], 1), ([inputs[1]], 0)):
        in_place.clear()
        found = torch.autograd.grad(loss(native(*(v if v is wanted[0] else v.detach() for v in inputs))), wanted)
        assert len(in_place) == changes
        assert_close(found, torch.autograd.grad(loss(plain(*inputs)), wanted))


def test_not_without_activation(in_place: list[int]) -> None:
    inputs = leaves()
    torch.autograd.grad(loss(native(*inputs, negative_slope=None)), inputs)
    assert not in_place


def test_not_in_half_precision(in_place: list[int]) -> None:
    x, weights = (value.detach().bfloat16().requires_grad_() for value in leaves())
    torch.autograd.grad(native(x, weights).float().sin().sum(), (x, weights))
    assert not in_place


def test_gradients_of_other_layouts(in_place: list[int]) -> None:
    readers: list[Callable[[Tensor], Tensor]] = [
        lambda y: y.sum(),  # one number, expanded
        lambda y: y.contiguous().flatten().sin().sum(),  # channels first
    ]
    inputs = leaves()
    for reader in readers:
        found, expected = (torch.autograd.grad(reader(of(*inputs)), inputs) for of in (native, plain))
        assert_close(found, expected)
    assert not in_place


# ---- gradients that somebody else holds


@pytest.mark.parametrize("look", HOLDERS)
def test_gradients_kept_by_hooks_are_not_changed(look: Callable[..., None], in_place: list[int]) -> None:
    kept: list[tuple[Tensor, Tensor]] = []
    inputs = leaves()
    y = native(*inputs)
    look(y, lambda gradient: kept.append((gradient, gradient.clone())))
    found = torch.autograd.grad(loss(y), inputs)
    ((gradient, as_seen),) = kept
    assert torch.equal(gradient, as_seen)
    assert not in_place
    assert_close(found, torch.autograd.grad(loss(plain(*inputs)), inputs))


def test_captured_gradients_are_not_changed(in_place: list[int]) -> None:
    inputs = leaves()
    y = native(*inputs)
    found, *_ = torch.autograd.grad(loss(y), [y, *inputs])
    torch.testing.assert_close(found, gradient_of_loss(y))
    assert not in_place


def test_retained_gradients_are_not_changed(in_place: list[int]) -> None:
    y = native(*leaves())
    y.retain_grad()
    loss(y).backward()
    assert y.grad is not None
    torch.testing.assert_close(y.grad, gradient_of_loss(y))


def test_given_gradients_are_not_changed(in_place: list[int]) -> None:
    y = native(*leaves())
    given = gradient_of_loss(y)
    y.backward(given)
    torch.testing.assert_close(given, gradient_of_loss(y))
    assert not in_place


@pytest.mark.parametrize("first", [False, True], ids=["other map later", "other map first"])
def test_one_gradient_of_two_maps(first: bool, in_place: list[int]) -> None:
    """The gradient of a sum is one tensor for both terms."""
    inputs = leaves()
    z = torch.ones_like(native(*inputs)).detach().requires_grad_()

    def gradients(of: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        other = 5 * z if first else None
        y = of(*inputs)
        other = 5 * z if other is None else other
        return torch.autograd.grad(loss(y + other), [*inputs, z, other])

    assert_close(gradients(native), gradients(plain))


def test_one_map_read_by_two_layers(in_place: list[int]) -> None:
    inputs = leaves(CASE._replace(c_out=CASE.c_in))

    def gradients(of: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        y = of(*inputs)
        return torch.autograd.grad(loss(of(y, inputs[1]) + 2 * of(y, -inputs[1])), inputs)

    assert_close(gradients(native), gradients(plain))
    assert in_place


def test_one_gradient_of_two_layers(in_place: list[int]) -> None:
    """Whichever is second may change it; the first must not."""
    inputs = leaves()

    def gradients(of: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        x, weights = inputs
        return torch.autograd.grad(loss(of(x, weights) + of(x, -weights)), inputs)

    assert_close(gradients(native), gradients(plain))


def test_holders_are_seen_while_a_compiler_looks_at_frames(in_place: list[int]) -> None:
    """Python then counts more references, and no more once the compiler is gone."""
    inputs = leaves()

    def gradients_are_changed(kept: list[Tensor] | None) -> bool:
        in_place.clear()
        y = native(*inputs)
        if kept is not None:
            y.register_hook(kept.append)
        torch.autograd.grad(loss(y), inputs)
        return bool(in_place)

    def check() -> None:
        assert gradients_are_changed(None)
        assert not gradients_are_changed([])

    _alone._counted.cache_clear()
    before = set_eval_frame(False)
    try:
        check()
    finally:
        set_eval_frame(before)
    check()


# ---- graphs


def test_a_retained_graph_gives_the_same_again(in_place: list[int]) -> None:
    inputs = leaves()
    total = loss(native(*inputs))
    first, second = (torch.autograd.grad(total, inputs, retain_graph=True) for _ in range(2))
    last = torch.autograd.grad(total, inputs)
    for one, two, three in zip(first, second, last, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)
    assert len(in_place) == 3
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, inputs)


def test_many_gradients_at_once(in_place: list[int]) -> None:
    inputs = leaves()
    y = native(*inputs)
    values = torch.stack([y.sin().sum(), y.cos().sum()])
    each = [torch.autograd.grad(value, inputs, retain_graph=True) for value in values]
    found = torch.autograd.grad(values, inputs, torch.eye(2, dtype=values.dtype), is_grads_batched=True)
    assert_close(found, [torch.stack(gradients) for gradients in zip(*each, strict=True)])


def test_function_transforms_change_nothing(in_place: list[int]) -> None:
    x, weights = (value.detach() for value in leaves())
    y, pull = func.vjp(native, x, weights)
    given = gradient_of_loss(y)
    found = pull(given)
    torch.testing.assert_close(given, gradient_of_loss(y))
    assert_close(found, func.grad(lambda *inputs: loss(native(*inputs)), (0, 1))(x, weights))
    assert not in_place


def test_saved_tensors_kept_elsewhere(in_place: list[int]) -> None:
    inputs = leaves()
    with torch.autograd.graph.save_on_cpu():
        y = native(*inputs)
    assert_close(torch.autograd.grad(loss(y), inputs), torch.autograd.grad(loss(plain(*inputs)), inputs))


def test_second_derivatives_are_refused(in_place: list[int]) -> None:
    inputs = leaves()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss(native(*inputs)), inputs, create_graph=True)
    assert not in_place


# ---- networks


def step(model: HSTL, lens: list[int] | None) -> tuple[Tensor, ...]:
    """Gradients of one training step."""
    clips = torch.stack([walkers(8, seed) for seed in range(4)]) if lens is None else walkers(sum(lens))[None]
    labels = torch.tensor([0, 0, 1, 1])
    out = model(clips, lens)
    total = triplet_loss(out.embeddings, labels) + cross_entropy(out.logits, labels)
    return torch.autograd.grad(total, list(model.parameters()))


@pytest.mark.parametrize("lens", [None, [3, 9, 1, 6]], ids=["fixed", "ragged"])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_networks(preset: str, lens: list[int] | None, in_place: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """All layers but the first, whose input wants no gradient."""
    model = narrow_model(preset, dtype=torch.float64, divisor=16)
    found = step(model, lens)
    layers = len(model.stem) + sum(len(list(stage.children())) for stage in model.stages)
    assert len(in_place) == layers - 1
    in_place.clear()
    monkeypatch.setattr(_alone, "is_ordinary", lambda gradient: False)
    assert_close(found, step(model, lens))
    assert not in_place


class _FixedGradient(torch.autograd.Function):
    """Gives back memory that NumPy owns, and nobody in Python or torch is seen to hold."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, array: Any) -> Tensor:
        ctx.array = array
        return (y * torch.from_numpy(array)).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.array), None


def test_arrays_of_others_are_not_changed(in_place: list[int]) -> None:
    array = torch.randn(1, 8, 8, 8, 4, generator=torch.Generator().manual_seed(3)).numpy().transpose(0, 4, 1, 2, 3)
    before = array.copy()
    x, weights = torch.randn(1, 4, 8, 8, 8, requires_grad=True), torch.randn(1, 4, 4, 3, 3, 3, requires_grad=True)
    y = _FixedGradient.apply(functional.arme(x, weights, [8]), array)
    first, second = (torch.autograd.grad(y, (x, weights), retain_graph=True) for _ in range(2))
    assert (array == before).all()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not in_place
