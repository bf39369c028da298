"""Only `HSTL` overwrites gradients, and only in its own chain of layers; callers may change outputs in place."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn
from torch.autograd.graph import GradientEdge
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from hstl_fast import HSTL, functional, reference, use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.losses import cross_entropy, triplet_loss
from hstl_fast.ops import _ownership, arme_maximum
from hstl_fast.ops._versions import VersionProbe
from tests.helpers.cases import CASES, OPERATORS, Case
from tests.helpers.holders import HOLDERS
from tests.helpers.networks import narrow_model, walkers

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
    change, through_activation = binary.leaky_backward, arme_maximum._through_activation

    def noted(*arguments: Any) -> None:
        changed.append(arguments[0])
        change(*arguments)

    def in_a_copy(*arguments: Any) -> Tensor:
        before = len(changed)
        copy = through_activation(*arguments)
        del changed[before:]
        return copy

    monkeypatch.setattr(binary, "leaky_backward", noted)
    monkeypatch.setattr(arme_maximum, "_through_activation", in_a_copy)
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


@pytest.mark.parametrize("keep", HOLDERS, ids=lambda holder: holder.__name__)
def test_gradients_that_a_hook_keeps_stay_as_they_are(keep: Callable[..., None], in_place: list[int]) -> None:
    inputs = leaves()
    y = native(*inputs)
    kept: list[Tensor] = []
    keep(y, kept.append)
    found = torch.autograd.grad(loss(y), inputs)
    assert torch.equal(kept[0], gradient_of_loss(y))
    assert_close(found, torch.autograd.grad(loss(plain(*inputs)), inputs))
    assert not in_place


def test_the_caller_s_own_gradient_stays_as_it_is(in_place: list[int]) -> None:
    inputs = leaves()
    y = native(*inputs)
    gradient = gradient_of_loss(y)
    before = gradient.clone()
    torch.autograd.grad(y, inputs, gradient)
    assert torch.equal(gradient, before)
    assert not in_place


@pytest.mark.parametrize("transform", ["vmap", "grad"])
def test_transforms(transform: str, in_place: list[int]) -> None:
    inputs = leaves()
    if transform == "grad":
        found = func.grad(lambda x: loss(native(x, inputs[1])))(inputs[0].detach())
        assert_close([found], torch.autograd.grad(loss(plain(*inputs)), inputs[:1]))
    else:
        y = native(*inputs)
        directions = torch.stack([torch.randn_like(y) for _ in range(2)])
        batched = torch.autograd.grad(y, inputs, directions, retain_graph=True, is_grads_batched=True)
        for i, direction in enumerate(directions):
            assert_close([each[i] for each in batched], torch.autograd.grad(y, inputs, direction, retain_graph=True))
    assert not in_place


def _zeroed(y: Tensor) -> Tensor:
    """`y` with a part of it set to 0 through a view."""
    y.select(-1, 0).zero_()
    return y


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "add_": lambda y: y.add_(1),
    "mul_": lambda y: y.mul_(-2),
    "leaky_relu_": lambda y: nn.functional.leaky_relu_(y, 0.2),
    "through a view": _zeroed,
}


def _inputs(operator: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    x = normal(1, 4, 7, 6, 5)
    powers = (6 + torch.rand(2, generator=generator, dtype=torch.float64)).requires_grad_()
    return {
        "arme": [x, normal(2, 8, 4, 3, 3, 3)],
        "arme without activation": [x, normal(2, 8, 4, 3, 3, 3)],
        "astp": [x, normal(8, 4), powers],
        "strip_pool": [x, powers.detach()[:1].clone().requires_grad_()],
        "fta": [x, normal(2, 2, 4, 4), normal(2, 2, 4)],
    }[operator]


def _called(operator: str, inputs: list[Tensor], backend: str) -> Tensor:
    if operator == "strip_pool":
        return functional.strip_pool(*inputs, 3, seq_lens=[3, 4], backend=backend)
    options: dict[str, Any] = {"negative_slope": None} if operator == "arme without activation" else {}
    function = getattr(functional, operator.split()[0])
    result: Tensor = function(*inputs, [4, 2], seq_lens=[3, 4], backend=backend, **options)
    return result


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("operator", ["arme", "arme without activation", "astp", "strip_pool", "fta"])
def test_an_output_may_be_changed_in_place(operator: str, change: str) -> None:
    inputs = _inputs(operator)
    found = torch.autograd.grad(loss(CHANGES[change](_called(operator, inputs, "cpu"))), inputs)
    expected = torch.autograd.grad(loss(CHANGES[change](_called(operator, inputs, "reference"))), inputs)
    assert_close(found, expected)


def test_an_input_may_not_be_changed_in_place() -> None:
    x, weights = leaves()
    given = x * 1
    y = native(given, weights)
    given.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss(y).backward()


def test_a_probe_follows_the_tensor_and_keeps_none_of_its_memory() -> None:
    x = torch.zeros(1000)
    probe = VersionProbe(x)
    assert not probe.is_changed()
    assert probe._follower.untyped_storage().nbytes() == 0
    x[3:5].add_(1)
    assert probe.is_changed()


def test_an_output_is_not_kept_by_its_own_graph() -> None:
    """The graph of an output holds its memory but not the output itself: a cycle would leak it."""
    gc.collect()
    gc.disable()
    try:
        y = native(*leaves())
        output, node = weakref.ref(y), weakref.ref(y.grad_fn)
        del y
        assert output() is None
        assert node() is None
    finally:
        gc.enable()


def test_a_retained_graph_gives_the_same_again() -> None:
    inputs = leaves()
    total = loss(native(*inputs))
    first, second = (torch.autograd.grad(total, inputs, retain_graph=True) for _ in range(2))
    last = torch.autograd.grad(total, inputs)
    for one, two, three in zip(first, second, last, strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


@pytest.mark.parametrize("changed", [False, True])
def test_saved_tensors_kept_elsewhere(changed: bool) -> None:
    inputs = leaves()
    with torch.autograd.graph.save_on_cpu():
        y = native(*inputs)
        y = y.add_(1) if changed else y
    expected = torch.autograd.grad(loss(plain(*inputs) + int(changed)), inputs)
    assert_close(torch.autograd.grad(loss(y), inputs), expected)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_activation_checkpointing(use_reentrant: bool) -> None:
    inputs = leaves()
    y = checkpoint(native, *inputs, use_reentrant=use_reentrant)
    loss(y).backward()
    assert_close([leaf.grad for leaf in inputs], torch.autograd.grad(loss(plain(*inputs)), inputs))


def test_second_derivatives_are_refused(in_place: list[int]) -> None:
    inputs = leaves()
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss(native(*inputs)), inputs, create_graph=True)
    assert not in_place


def total_loss(model: HSTL, lens: list[int] | None) -> Tensor:
    clips = torch.stack([walkers(8, seed) for seed in range(4)]) if lens is None else walkers(sum(lens))[None]
    labels = torch.tensor([0, 0, 1, 1])
    out = model(clips, lens)
    return triplet_loss(out.embeddings, labels) + cross_entropy(out.logits, labels)


def gradients(model: HSTL, total: Tensor, **options: Any) -> tuple[Tensor, ...]:
    return torch.autograd.grad(total, list(model.parameters()), **options)


def layers_of(model: HSTL) -> int:
    return len(model.stem) + sum(len(list(stage.children())) for stage in model.stages)


@pytest.fixture
def nothing_owned(monkeypatch: pytest.MonkeyPatch) -> Callable[[HSTL, list[int] | None], tuple[Tensor, ...]]:
    """A training step whose gradients are never overwritten."""

    def step(model: HSTL, lens: list[int] | None) -> tuple[Tensor, ...]:
        with monkeypatch.context() as patch:
            patch.setattr(_ownership, "_is_ordinary", lambda gradient: False)
            return gradients(model, total_loss(model, lens))

    return step


Step = Callable[[HSTL, list[int] | None], tuple[Tensor, ...]]


@pytest.mark.parametrize("lens", [None, [3, 9, 1, 6]], ids=["fixed", "ragged"])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_a_network_owns_the_gradients_of_its_maps(
    preset: str, lens: list[int] | None, in_place: list[int], nothing_owned: Step
) -> None:
    """They go back through LeakyReLU in place in all layers but two.

    The input of the first wants no gradient; of the last only the frame maximum is kept, whose gradient goes back.
    """
    model = narrow_model(preset, dtype=torch.float64, divisor=16)
    total = total_loss(model, lens)
    first = gradients(model, total, retain_graph=True)
    assert len(in_place) == layers_of(model) - 2
    again = gradients(model, total)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    in_place.clear()
    assert_close(first, nothing_owned(model, lens))
    assert not in_place


CONVOLUTIONS = ("_ArmeBackward", "_ArmeMaximumBackward")


def _nodes(total: Tensor) -> list[Any]:
    """Every node of the graph that is one of ours, found by walking it."""
    pending, found = [total.grad_fn], []
    while pending:
        node = pending.pop()
        if node is None or node in found:
            continue
        found.append(node)
        pending.extend(following for following, _ in node.next_functions)
    names = (*CONVOLUTIONS, "_WithFrameMaximumBackward", "_MaxPoolBackward", "_FtaBackward", "_FrameMaximumBackward")
    return [node for node in found if node.name().startswith(names)]


@pytest.mark.parametrize("register", ["register_hook", "register_prehook"])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_what_a_hook_on_any_node_keeps_stays_as_it_is(preset: str, register: str, nothing_owned: Step) -> None:
    model = narrow_model(preset, dtype=torch.float64, divisor=16)
    count = len(_nodes(total_loss(model, None)))
    assert count > 6
    with use_backend("cpu"):
        for i in range(count):
            total = total_loss(model, None)
            kept: list[tuple[Tensor, Tensor]] = []

            def keep(*given: Any, kept: list[tuple[Tensor, Tensor]] = kept) -> None:
                seen = [g for group in given for g in (group if isinstance(group, tuple) else (group,))]
                kept.extend((g, g.clone()) for g in seen if isinstance(g, Tensor))

            getattr(_nodes(total)[i], register)(keep)
            found = gradients(model, total)
            assert kept
            assert all(torch.equal(now, then) for now, then in kept)
    assert_close(found, nothing_owned(model, None))


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_gradients_asked_for_at_any_node_stay_as_they_are(preset: str, nothing_owned: Step) -> None:
    model = narrow_model(preset, dtype=torch.float64, divisor=16)
    parameters = list(model.parameters())
    count = len(_nodes(total_loss(model, None)))
    with use_backend("cpu"):
        for i in range(count):
            total = total_loss(model, None)
            edge = GradientEdge(_nodes(total)[i], 0)
            alone = torch.autograd.grad(total, edge, retain_graph=True)[0].clone()
            asked, *found = torch.autograd.grad(total, [edge, *parameters])
            assert torch.equal(asked, alone)
    assert_close(found, nothing_owned(model, None))


def test_maps_that_nodes_saved_lead_to_no_owned_gradient(nothing_owned: Step) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    with use_backend("cpu"):
        total = total_loss(model, None)
        nodes = [node for node in _nodes(total) if node.name() in CONVOLUTIONS]
        assert len(nodes) == layers_of(model)
        assert not any(node.saved_tensors[0].requires_grad for node in nodes)
        assert_close(gradients(model, total), nothing_owned(model, None))


class _Functions(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", [_Functions, _Operators])
def test_nothing_is_owned_under_a_mode(mode: type[Any], in_place: list[int]) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    with mode():
        total = total_loss(model, None)
    gradients(model, total)
    assert not in_place


def test_nothing_is_owned_under_a_dispatch_mode_in_the_backward_pass(in_place: list[int]) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    total = total_loss(model, None)
    with _Operators():
        gradients(model, total)
    assert not in_place


def test_nothing_is_owned_where_a_layer_has_a_hook(in_place: list[int]) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16)
    kept: list[Tensor] = []
    model.stages[0][0].register_forward_hook(lambda layer, given, y: y.register_hook(kept.append) and None)
    gradients(model, total_loss(model, None))
    assert kept
    assert not in_place
