"""A support changes nothing: outputs and gradients of parameters with and without one."""

import copy
import math
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL, functional, reference, use_algorithm, use_backend
from hstl_fast.models import feature_maps, hstl
from hstl_fast.models.eligibility import is_made_of_own_layers
from hstl_fast.nn import ARME
from hstl_fast.ops import _dispatch
from tests.helpers.bounds import NETWORK, away_from_kink, distance, distance_of_norms, of_exponent, rounding
from tests.helpers.cases import CASES, LONG_ENOUGH, OPERATORS, Case
from tests.helpers.networks import narrow_model, walkers

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed (extra [test])")
st = hypothesis.strategies
NO_BINARY = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
pytestmark = pytest.mark.skipif(NO_BINARY is not None, reason=str(NO_BINARY))
any_silhouettes = hypothesis.settings(max_examples=25, deadline=None, derandomize=True)


class Sample(NamedTuple):
    """Frames `[t, h, w]` of bool, and how many each of its sequences has."""

    body: np.ndarray
    lens: list[int]


def _bodies(t: int, h: int, w: int) -> "st.SearchStrategy[np.ndarray]":
    """Blank and full clips, single positions, boxes that may touch any border and move, noise; some frames blank."""
    frames, rows, columns = st.integers(0, t - 1), st.integers(0, h - 1), st.integers(0, w - 1)

    def dots(places: list[tuple[int, int, int]]) -> np.ndarray:
        body = np.zeros((t, h, w), bool)
        for place in places:
            body[place] = True
        return body

    def box(top: int, bottom: int, left: int, right: int, step: int) -> np.ndarray:
        body = np.zeros((t, h, w), bool)
        for frame in range(t):
            moved = np.arange(min(left, right), max(left, right) + 1) + frame * step
            body[frame, min(top, bottom) : max(top, bottom) + 1, moved.clip(0, w - 1)] = True
        return body

    def noise(seed: int, share: float) -> np.ndarray:
        return np.random.default_rng(seed).random((t, h, w)) < share

    clips = st.one_of(
        st.builds(dots, st.lists(st.tuples(frames, rows, columns), max_size=3)),
        st.builds(box, rows, rows, columns, columns, st.integers(-2, 2)),
        st.builds(noise, st.integers(0, 99), st.sampled_from([0.01, 0.3, 1.0])),
    )

    def without(body: np.ndarray, blank: set[int]) -> np.ndarray:
        body[list(blank)] = False
        return body

    return st.builds(without, clips, st.sets(frames, max_size=t - 1))


@st.composite
def samples(draw: Any, h: int, w: int) -> Sample:
    lens = draw(st.lists(st.integers(3, 7), min_size=1, max_size=3))
    return Sample(np.concatenate([draw(_bodies(t, h, w)) for t in lens]), lens)


def inside(case: Case, body: np.ndarray) -> Tensor:
    """A support of the case's map; `body` covers the frames of all sequences."""
    t = sum(case.lens) if case.packed else case.lens[0]
    return torch.tensor(body).view(-1, t, sum(case.split), case.w)


def values(
    function: Callable[..., Tensor], x: Tensor, *parameters: Tensor, signs: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The output, the gradient of x and those of the parameters, along a fixed direction.

    The direction is 0 where rounding may decide the sign of an output: where `signs`, if given, is near zero.
    """
    leaves = [value.clone().requires_grad_() for value in (x, *parameters)]
    y = function(*leaves)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(y.dtype)
    if signs is not None:
        direction = away_from_kink(direction, signs, 1e-4)
    return tuple(value.detach() for value in (y, *torch.autograd.grad(y, leaves, direction)))


def assert_near(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """The norm of the difference, relative to the norm."""
    assert (found - expected).norm() <= tolerance * expected.norm()


SMALL = Case(3, 5, [4, 1, 3], 9, [1], True)


@pytest.mark.parametrize(
    ("dtype", "algorithm"), [(torch.float64, "direct"), (torch.float32, "direct"), (torch.float32, "winograd")], ids=str
)
@any_silhouettes
@hypothesis.given(sample=samples(8, 9))
def test_convolutions_of_any_body(dtype: torch.dtype, algorithm: str, sample: Sample) -> None:
    """Against the definition of a support, with values outside that count as 0, NaN among them."""
    case = SMALL._replace(lens=sample.lens)
    x, w = (value.to(dtype) for value in OPERATORS[0].inputs(case))
    support = inside(case, sample.body)
    options = {"seq_lens": case.lens, "support": support}

    def ours(x: Tensor, w: Tensor) -> Tensor:
        return functional.arme(x, w, case.split, algorithm=algorithm, backend="cpu", **options)

    def definition(x: Tensor, w: Tensor) -> Tensor:
        return reference.arme(x, w, case.split, **options)

    signs = definition(x.double(), w.double())
    expected = values(definition, x, w, signs=signs)
    found = values(ours, x.where(support[:, None], float("nan")), w, signs=signs)
    tolerance = 1e-4 if algorithm == "winograd" else 2 * max(OPERATORS[0].bounds(case, dtype))  # both round
    for ours_, right in zip(found, expected, strict=True):
        assert_near(ours_, right, tolerance)
    grown = reference.grow_support(support, case.split, case.lens)
    assert not found[0][~grown[:, None].expand_as(found[0])].any()
    assert not found[1][~support[:, None].expand_as(found[1])].any()


@any_silhouettes
@hypothesis.given(sample=samples(8, 9))
def test_supports_of_any_body(sample: Sample) -> None:
    ops, support = torch.ops.hstl_fast, torch.tensor(sample.body)[None]
    for lens in (sample.lens, []):
        grown = ops.grow_support(support, [4, 1, 3], lens, "cpu")
        assert torch.equal(grown, reference.grow_support(support, [4, 1, 3], lens or None))
        sequences = support.float().split(lens or [support.shape[1]], 1)
        windows = [nn.functional.max_pool3d(s[:, None], (5, 1, 1), (3, 1, 1), (1, 0, 0))[:, 0] for s in sequences]
        assert torch.equal(ops.window_support(support, lens, "cpu"), torch.cat(windows, 1) > 0)
    assert torch.equal(ops.max_pool_support(support, "cpu"), nn.functional.max_pool2d(support.float(), 2) > 0)


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("case", [LONG_ENOUGH[5], LONG_ENOUGH[7]], ids=str)
def test_what_stands_outside_counts_as_zero(case: Case, backend: str) -> None:
    """For every operator, in values and gradients."""
    lens = case.lens if case.packed else None
    for operator in OPERATORS:
        x, *parameters = operator.inputs(case)
        support = torch.rand(x[:, 0].shape, generator=torch.Generator().manual_seed(2)) > 0.6
        dirty = x.where(support[:, None], float("inf"))

        def within(x: Tensor, *parameters: Tensor, operator: Any = operator, support: Tensor = support) -> Tensor:
            return operator.public(x, *parameters, case.split, seq_lens=lens, support=support)

        def definition(x: Tensor, *parameters: Tensor, operator: Any = operator, support: Tensor = support) -> Tensor:
            return operator.definition(x.where(support[:, None], 0), *parameters, case.split, seq_lens=lens)

        found, expected = values(within, dirty, *parameters), list(values(definition, x, *parameters))
        if operator.name == "arme":
            grown = reference.grow_support(support, case.split, lens)
            expected[0] = expected[0].where(grown[:, None], 0)
        for ours, right in zip(found, expected, strict=True):
            assert_near(ours, right, 1e-11)


def test_strips_of_what_stands_outside(backend: str) -> None:
    x, p = torch.rand(1, 2, 4, 6, 5), torch.tensor([5.0])
    support = torch.rand(1, 4, 6, 5) > 0.5
    clean = functional.strip_pool(x.where(support[:, None], 0), p, 3)
    assert torch.equal(functional.strip_pool(x.where(support[:, None], float("nan")), p, 3, support=support), clean)


def test_a_support_may_have_any_strides() -> None:
    case = CASES[5]
    x, w = OPERATORS[0].inputs(case)
    support = torch.rand(x[:, 0].shape) > 0.5
    turned = support.transpose(1, 3).contiguous().transpose(1, 3)
    assert not turned.is_contiguous()
    found = functional.arme(x, w, case.split, support=turned, backend="cpu")
    assert torch.equal(found, functional.arme(x, w, case.split, support=support, backend="cpu"))


class TestTraps:
    """What a careless reading of "the background is zero" gets wrong."""

    def test_background_frames_enter_maxima(self, backend: str) -> None:
        x = torch.full((1, 1, 3, 2, 2), -1.0)
        x[:, :, 0] = float("nan")  # counts as 0, and 0 is the maximum
        support = torch.ones(1, 3, 2, 2, dtype=torch.bool)
        support[:, 0] = False
        pooled = functional.astp(x, torch.tensor([[-1.0]]), torch.tensor([1.0]), [2], support=support)
        assert distance(pooled, torch.full_like(pooled, 1e-6)) <= of_exponent(torch.float32, math.log(1e6))
        weights, biases = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1)
        assert not functional.fta(x, weights, biases, [2], support=support).any()

    def test_the_first_of_equal_zeros_takes_the_gradient(self, backend: str) -> None:
        x = torch.zeros(1, 1, 4, 1, 1, requires_grad=True)
        support = torch.tensor([True, False, True, False]).view(1, 4, 1, 1)
        for first in (0, 1):
            shown = support.roll(first, 1)
            weights, biases = torch.zeros(1, 2, 1, 1), torch.zeros(1, 2, 1)
            y = functional.fta(x, weights, biases, [1], support=shown)
            (gradient,) = torch.autograd.grad(y.sum(), x)
            assert gradient.flatten().tolist() == ([1.0, 0, 0, 0] if first == 0 else [0.0] * 4)

    def test_means_keep_their_denominators(self, backend: str) -> None:
        x = torch.full((1, 1, 3, 2, 2), 4.0)
        support = torch.zeros(1, 3, 2, 2, dtype=torch.bool)
        support[..., 0, 0] = True
        pooled = functional.astp(x, None, torch.tensor([1.0]), [2], support=support)
        assert distance(pooled, torch.full_like(pooled, 1 + 0.75e-6)) <= of_exponent(torch.float32, math.log(1e6))
        x = torch.arange(4.0).view(1, 1, 4, 1, 1).expand(1, 1, 4, 2, 2)  # a = 2, b = 3 at the one position
        weights, biases = torch.tensor([1.0, 0]).view(1, 2, 1, 1), torch.zeros(1, 2, 1)
        support = support[:, :1].expand(1, 4, 2, 2)
        share = torch.tensor((2 + 3) / 4).sigmoid().item()
        y = functional.fta(x, weights, biases, [2], support=support)
        torch.testing.assert_close(y[0, 0, 0, 0, 0].item(), share * 2 + (1 - share) * 3)

    def test_gradients_of_maps_end_at_the_support_and_those_of_weights_do_not(self) -> None:
        case = Case(3, 4, [5, 3], 7, [4], False)
        x, w = OPERATORS[0].inputs(case)
        support = torch.zeros(x[:, 0].shape, dtype=torch.bool)
        support[:, 1:3, 2:4, 2:4] = True
        x = x.where(support[:, None], 0)
        _, gx, gw = values(lambda x, w: functional.arme(x, w, case.split, backend="cpu"), x, w)
        _, gx_within, gw_within = values(
            lambda x, w: functional.arme(x, w, case.split, backend="cpu", support=support), x, w
        )
        assert_near(gw_within, gw, 1e-13)
        assert gx[~support[:, None].expand_as(gx)].any()
        assert torch.equal(gx_within, gx.where(support[:, None], 0))

    def test_gradients_of_silhouettes_are_those_of_the_whole_map(self) -> None:
        model = narrow_model("casia-b", dtype=torch.float64, divisor=16).eval()
        gradients = []
        for name in ("cpu", "reference"):
            silhouettes = (walkers(3)[None] / 255).double().requires_grad_()
            with use_backend(name):
                model(silhouettes).embeddings.sin().sum().backward()
            gradients.append(silhouettes.grad)
        assert gradients[1][silhouettes == 0].any()
        assert_near(gradients[0], gradients[1], 1e-9)


NETWORKS = {name: narrow_model(name, dtype=torch.float64, divisor=16).train() for name in ("casia-b", "gait3d")}


def network_values(model: HSTL, silhouettes: Tensor, lens: list[int]) -> list[Tensor]:
    """Embeddings, logits and the gradient of every parameter."""
    out = model(silhouettes, lens)
    generator = torch.Generator().manual_seed(6)
    directions = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in out]
    gradients = torch.autograd.grad(list(out), list(model.parameters()), directions)
    return [value.detach() for value in (*out, *gradients)]


def with_and_without(compute: Callable[[], Any]) -> list[Any]:
    """What `compute` gives with supports and without; the first is made sure to be with."""
    seen: list[int] = []
    right = feature_maps.grown

    def noting(*arguments: Any) -> Any:
        seen.append(1)
        return right(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_maps, "grown", noting)
        patch.setenv("HSTL_FAST_DEBUG", "1")
        results = [compute()]
        assert seen
        patch.setattr(feature_maps, "backend_with_support", lambda network: "reference")
        patch.setattr(hstl, "backend_with_support", lambda network: "reference")
        seen.clear()
        results.append(compute())
        assert not seen
    return results


def silhouettes_of(sample: Sample, seed: int = 0) -> Tensor:
    """Of uint8, packed, with grey values inside the body."""
    grey = np.random.default_rng(seed).integers(1, 256, sample.body.shape)
    return torch.tensor((grey * sample.body).astype(np.uint8))[None]


@pytest.mark.parametrize("preset", NETWORKS)
@hypothesis.settings(max_examples=8, deadline=None, derandomize=True)
@hypothesis.given(sample=samples(64, 44))
def test_networks_on_any_silhouettes(preset: str, sample: Sample) -> None:
    silhouettes = silhouettes_of(sample)
    results = with_and_without(lambda: network_values(NETWORKS[preset], silhouettes, sample.lens))
    for within, everywhere in zip(*results, strict=True):
        assert_near(within, everywhere, 1e-11)


@pytest.mark.parametrize("preset", NETWORKS)
def test_networks_on_walkers_in_the_winograd_domain(preset: str) -> None:
    lens, errors = [7, 12, 4], []
    for seed in range(3):
        model = narrow_model(preset, seed, divisor=8).train()
        silhouettes = torch.cat([walkers(t, seed + t) for t in lens])[None]
        in_float64 = network_values(copy.deepcopy(model).double(), silhouettes, lens)
        with use_algorithm("winograd"):
            results = with_and_without(lambda: network_values(model, silhouettes, lens))  # noqa: B023
        for within, everywhere in zip(results[0][:2], results[1][:2], strict=True):
            assert distance(within, everywhere) <= 5e-5
        errors.append([_joined_distance(values[2:], in_float64[2:]) for values in results])
    within, everywhere = (median(of_way) for of_way in zip(*errors))
    assert within <= 2 * everywhere, errors


def _joined_distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Of all gradients together."""
    return distance_of_norms(*(torch.cat([g.flatten() for g in gradients]) for gradients in (found, expected)))


def test_bytes_and_fractions_have_one_support() -> None:
    model = narrow_model("gait3d", divisor=8).eval()
    silhouettes = walkers(4)[None]
    for given in (silhouettes, silhouettes / 255, silhouettes.double() / 255):
        within, everywhere = with_and_without(lambda given=given: model(given).embeddings)
        assert distance(within, everywhere) <= rounding(torch.float32, NETWORK)


class Biased(ARME):
    """A layer that is not 0 where its input is."""

    def forward(self, *arguments: Any) -> Tensor:
        return super().forward(*arguments) + 0.5


def replace_a_layer(model: HSTL) -> None:
    model.stages[0][0] = Biased(4, 4, model.stages[0][0].split).double()


def hook(model: HSTL) -> None:
    model.stem[0].register_forward_hook(lambda module, inputs, y: y + 0.5)


def hook_before(model: HSTL) -> None:
    model.fta.register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.5, *inputs[1:]))


def replace_a_forward(model: HSTL) -> None:
    layer = model.stages[0][1]
    layer.forward = lambda *arguments: ARME.forward(layer, *arguments) + 0.5


def parametrize(model: HSTL) -> None:
    nn.utils.parametrizations.weight_norm(model.stages[0][0], dim=1)


def hook_everything(model: HSTL) -> None:
    nn.modules.module.register_module_forward_hook(lambda module, _, y: y + 0.5 if isinstance(module, ARME) else y)


@pytest.mark.parametrize(
    "change", [replace_a_layer, hook, hook_before, replace_a_forward, parametrize, hook_everything]
)
def test_changed_layers_compute_what_they_now_are(change: Callable[[HSTL], None]) -> None:
    model = narrow_model("casia-b", dtype=torch.float64, divisor=8).eval()
    assert is_made_of_own_layers(model)
    before = nn.modules.module._global_forward_hooks.copy()
    try:
        change(model)
        assert not is_made_of_own_layers(model)
        found = network_values(model, walkers(5)[None], [5])
        with use_backend("reference"):
            expected = network_values(model, walkers(5)[None], [5])
    finally:
        nn.modules.module._global_forward_hooks.clear()
        nn.modules.module._global_forward_hooks.update(before)
    for ours, right in zip(found, expected, strict=True):
        assert_near(ours, right, 1e-9)


def test_the_debug_switch_looks_outside(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = narrow_model("gait3d", divisor=16).eval()
    monkeypatch.setattr(feature_maps, "max_pool", lambda x, *_: nn.functional.max_pool3d(x, (1, 2, 2)) + 0.1)
    monkeypatch.setenv("HSTL_FAST_DEBUG", "0")
    model(walkers(3)[None])
    monkeypatch.setenv("HSTL_FAST_DEBUG", "1")
    with pytest.raises(AssertionError, match=r"is not 0 outside its support, first at \[0, 0, 0"):
        model(walkers(3)[None])
