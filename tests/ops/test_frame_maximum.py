"""The frame maximum beside its map: its gradient goes into the map's own, where the network owns that."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, func
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from hstl_fast import HSTL, functional, reference, use_backend
from hstl_fast.backends.cpu import library
from hstl_fast.losses import cross_entropy, triplet_loss
from hstl_fast.models.feature_maps import EagerMaps
from hstl_fast.ops.astp import with_frame_maximum
from hstl_fast.ops.support import Support
from tests.helpers.cases import CASES, Case, distinct_map
from tests.helpers.holders import HOLDERS
from tests.helpers.networks import narrow_model, walkers

ADD = "hstl_fast.frame_maximum_backward_add"
WRITE = "hstl_fast.frame_maximum_backward"
MAXIMUM = "hstl_fast.frame_maximum"
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])

pytestmark = pytest.mark.usefixtures("native")


class Calls(TorchDispatchMode):
    """Names of the operators called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(function).rpartition(".")[0])
        return function(*args, **(kwargs or {}))


def leaf(case: Case, dtype: torch.dtype = torch.float64) -> Tensor:
    x = distinct_map(case).to(dtype).contiguous(memory_format=torch.channels_last_3d)
    return x.requires_grad_()


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An entry for every gradient of maxima that is added to its map's own, by the binary."""
    count: list[int] = []
    binary = library.require_cpu()
    add = binary.frame_maximum_backward_add
    monkeypatch.setattr(binary, "frame_maximum_backward_add", lambda *arguments: (count.append(1), add(*arguments)))
    return count


def beside(x: Tensor, case: Case, owns_gradient: bool = False) -> tuple[Tensor, Tensor]:
    n, _, t, h, w = x.shape
    everywhere = Support(torch.ones(n, t, h, w, dtype=torch.bool), owns_gradient=owns_gradient)
    through, maximum = with_frame_maximum(x, everywhere, case.lens if case.packed else [], "cpu")
    return through, maximum


def plain(x: Tensor, case: Case) -> tuple[Tensor, Tensor]:
    return x, reference.frame_maximum(x, case.lens if case.packed else None)[:, :, None]


def made(x: Tensor) -> Tensor:
    """Reads a map as a layer would: its gradient is a fresh map."""
    return 3 * x


def loss(through: Tensor, maximum: Tensor) -> Tensor:
    return made(through).sin().sum() + maximum.cos().sum()


@both_dtypes
@pytest.mark.parametrize("owned", [False, True], ids=["not owned", "owned"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients(case: Case, owned: bool, dtype: torch.dtype, added: list[int]) -> None:
    x = leaf(case, dtype)
    found, expected = beside(2 * x, case, owned), plain(2 * x, case)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    (gradient,) = torch.autograd.grad(loss(*found), x)
    assert len(added) == owned
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(*expected), x)[0])


@pytest.mark.parametrize("case", [CASES[5], CASES[7]], ids=str)
@pytest.mark.parametrize(
    "reader", [lambda through, _: made(through), lambda _, maximum: maximum], ids=["map", "maximum"]
)
def test_one_reader(case: Case, reader: Callable[..., Tensor]) -> None:
    x = leaf(case)
    gradients = [torch.autograd.grad(reader(*of(2 * x, case)).sin().sum(), x)[0] for of in (beside, plain)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("look", HOLDERS)
def test_gradients_kept_by_hooks_are_not_changed(look: Callable[..., None]) -> None:
    case = CASES[5]
    x = leaf(case)
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(gradient: Tensor) -> None:
        kept.append((gradient, gradient.clone()))

    through, maximum = beside(2 * x, case)
    look(through, keep)
    (gradient,) = torch.autograd.grad(loss(through, maximum), x)
    ((found, as_seen),) = kept
    assert torch.equal(found, as_seen)
    torch.testing.assert_close(gradient, torch.autograd.grad(loss(*plain(2 * x, case)), x)[0])


def _captured(x: Tensor, through: Tensor, maximum: Tensor) -> Tensor:
    return torch.autograd.grad(loss(through, maximum), [through, x])[0]


def _retained(x: Tensor, through: Tensor, maximum: Tensor) -> Tensor:
    through.retain_grad()
    loss(through, maximum).backward()
    assert through.grad is not None
    return through.grad


def _given(x: Tensor, through: Tensor, maximum: Tensor) -> Tensor:
    given = (3 * (3 * through).cos()).detach()
    torch.autograd.backward([through, maximum], [given, -maximum.detach().sin()])
    return given


@pytest.mark.parametrize("gradient_of", [_captured, _retained, _given])
def test_gradients_that_others_have_are_not_changed(gradient_of: Callable[..., Tensor]) -> None:
    x = leaf(CASES[5])
    through, maximum = beside(2 * x, CASES[5])
    found = gradient_of(x, through, maximum)
    torch.testing.assert_close(found, 3 * (6 * x.detach()).cos())


@pytest.mark.parametrize("first", [False, True], ids=["other map later", "other map first"])
def test_one_gradient_of_two_maps(first: bool) -> None:
    """The gradient of a sum is one tensor for both terms."""
    case = CASES[5]
    x = leaf(case)

    def gradients(of: Callable[..., tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
        other = 5 * x if first else None
        through, maximum = of(2 * x, case)
        other = 5 * x if other is None else other
        return torch.autograd.grad(loss(through + other, maximum), [x, other])

    for found, expected in zip(gradients(beside), gradients(plain), strict=True):
        torch.testing.assert_close(found, expected)


def test_gradients_of_other_layouts() -> None:
    case = CASES[5]
    x = leaf(case)
    readers: list[Callable[[Tensor], Tensor]] = [
        lambda y: y.sum(),  # one number, expanded
        lambda y: y.contiguous().flatten().sin().sum(),  # channels first
        lambda y: y.transpose(1, 2).flatten(0, 1).sin().sum(),  # a view
    ]
    for reader in readers:
        results = []
        for of in (beside, plain):
            through, maximum = of(2 * x, case)
            results.append(torch.autograd.grad(reader(through) + maximum.sin().sum(), x)[0])
        torch.testing.assert_close(*results)


def test_half_precision() -> None:
    case = CASES[5]
    x = leaf(case, torch.bfloat16)
    through, maximum = beside(2 * x, case)
    assert (through.dtype, maximum.dtype) == (torch.bfloat16, torch.bfloat16)
    (found,) = torch.autograd.grad(loss(through.float(), maximum.float()), x)
    (expected,) = torch.autograd.grad(loss(*(y.float() for y in plain(2 * x, case))), x)
    torch.testing.assert_close(found, expected)


def test_second_derivatives_are_refused() -> None:
    x = leaf(CASES[5])
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.grad(loss(*beside(2 * x, CASES[5])), x, create_graph=True)


def test_many_gradients_at_once() -> None:
    case = CASES[5]
    x = leaf(case)
    y = torch.stack([value.sin().sum() for value in beside(2 * x, case)])
    found = torch.autograd.grad(y, x, torch.eye(2, dtype=x.dtype), retain_graph=True, is_grads_batched=True)[0]
    each = [torch.autograd.grad(value, x, retain_graph=True)[0] for value in y]
    torch.testing.assert_close(found, torch.stack(each))


def test_the_operator_says_what_it_changes() -> None:
    maximum, index = torch.ops.hstl_fast.frame_maximum(leaf(CASES[7]).detach(), None, CASES[7].lens, "cpu")
    gx = torch.zeros_like(leaf(CASES[7])).detach()
    arguments = (gx, maximum, index, CASES[7].lens, "cpu")
    torch.library.opcheck(torch.ops.hstl_fast.frame_maximum_backward_add.default, arguments)
    with pytest.raises(ValueError, match="gx must be a dense float32 or float64 map"):
        torch.ops.hstl_fast.frame_maximum_backward_add(gx.contiguous(), maximum, index, CASES[7].lens, "cpu")


def _fta(x: Tensor, case: Case) -> Tensor:
    m, c = len(case.split), case.c_in
    weights, biases = torch.zeros(m, 2, c, c, dtype=x.dtype), torch.zeros(m, 2, c, dtype=x.dtype)
    return functional.fta(x, weights, biases, case.split)


def _arme(x: Tensor, case: Case) -> Tensor:
    weights = torch.full((len(case.split), 2, case.c_in, 3, 3, 3), 0.1, dtype=x.dtype)
    return functional.arme(x, weights, case.split)


@pytest.mark.parametrize("reader", [_fta, _arme], ids=["fta", "arme"])
def test_gradients_of_operators_are_added_to(reader: Callable[..., Tensor], added: list[int]) -> None:
    case = CASES[5]
    x = leaf(case)

    def gradient(of: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
        options = {"owns_gradient": True} if of is beside else {}
        through, maximum = of(2 * x, case, **options)
        with use_backend("cpu"):
            return torch.autograd.grad(reader(through, case).sin().sum() + maximum.sin().sum(), x)[0]

    found = gradient(beside)
    assert len(added) == 1
    torch.testing.assert_close(found, gradient(plain))


# ---- networks


@contextmanager
def maps_read_apart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(EagerMaps, "_has_other_readers", lambda self: False)
        yield


def step(model: HSTL, lens: list[int] | None) -> dict[str, Tensor]:
    """Output and gradients of one training step."""
    clips = torch.stack([walkers(8, seed) for seed in range(4)]) if lens is None else walkers(sum(lens))[None]
    labels = torch.tensor([0, 0, 1, 1])
    out = model(clips, lens)
    total = triplet_loss(out.embeddings, labels) + cross_entropy(out.logits, labels)
    names = dict(model.named_parameters())
    gradients = torch.autograd.grad(total, list(names.values()))
    return {"embeddings": out.embeddings.detach(), **dict(zip(names, gradients, strict=True))}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        assert (found[name] - value).norm() <= 1e-10 * value.norm(), name


@pytest.mark.parametrize("lens", [None, [3, 9, 1, 6]], ids=["fixed", "ragged"])
@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_networks(preset: str, lens: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model(preset, dtype=torch.float64, divisor=16)
    with use_backend("cpu"):
        found = step(model, lens)
        with maps_read_apart(monkeypatch):
            assert_same(found, step(model, lens))


def test_networks_add_into_gradients(added: list[int]) -> None:
    """Three maps are pooled and read on; the last is pooled twice, by its frame maximum."""
    model = narrow_model("casia-b", divisor=16)
    with use_backend("cpu"):
        step(model, None)
    assert len(added) == 3


def test_observed_networks_write_every_gradient() -> None:
    model = narrow_model("casia-b", divisor=16)
    with use_backend("cpu"), Calls() as calls:
        step(model, None)
    assert [calls.names.count(name) for name in (MAXIMUM, ADD, WRITE)] == [4, 0, 4]


def test_hooked_pools_get_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model("casia-b", divisor=16)
    shapes: list[torch.Size] = []
    model.pools[0].register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape))
    with use_backend("cpu"):
        step(model, None)
    assert shapes == [torch.Size((4, 2, 8, 64, 44))]


@pytest.mark.parametrize("use_reentrant", [False, True], ids=["not reentrant", "reentrant"])
def test_checkpointed_networks(use_reentrant: bool) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16).eval()
    clips = torch.stack([walkers(6, seed) for seed in range(2)])
    parameters = list(model.parameters())

    def gradients(out: Tensor) -> list[Tensor | None]:
        model.zero_grad()
        out.sin().sum().backward()
        return [parameter.grad for parameter in parameters]

    def run(trigger: Tensor) -> Tensor:
        return model(clips).logits + 0 * trigger

    trigger = torch.zeros((), dtype=torch.float64, requires_grad=True)
    with use_backend("cpu"):
        expected = gradients(run(trigger))
        found = gradients(checkpoint(run, trigger, use_reentrant=use_reentrant))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_anomaly_mode_and_function_transforms() -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=16).eval()
    clips, parameters = walkers(6)[None], dict(model.named_parameters())

    def total(parameters: dict[str, Tensor]) -> Tensor:
        logits: Tensor = func.functional_call(model, parameters, (clips,)).logits
        return logits.sin().sum()

    with use_backend("cpu"):
        transformed = func.grad(total)(parameters)
        with torch.autograd.detect_anomaly(check_nan=True):
            gradients = torch.autograd.grad(total(parameters), list(parameters.values()))
    assert_same(dict(zip(parameters, gradients, strict=True)), transformed)


def test_pools_that_nothing_follows_give_the_same_result(native: str) -> None:
    """They do not look for the frames of the maxima."""
    x, proj, p = torch.randn(1, 5, 9, 6, 4), torch.randn(7, 5), torch.tensor([6.5, 3.0])
    for pool in (
        lambda: functional.astp(x, proj.requires_grad_(), p, [2, 4], seq_lens=[4, 5], backend=native),
        lambda: functional.strip_pool(x, p[:1].requires_grad_(), 3, seq_lens=[4, 5], backend=native),
    ):
        followed = pool()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            alone = pool()
        assert followed.requires_grad
        assert torch.equal(alone, followed)
        assert alone.is_contiguous()
        with FlopCounterMode(display=False) as expected:
            pool()
        assert counter.get_total_flops() == expected.get_total_flops()
