"""Every preset against outputs, losses, gradients and training steps of the released model definitions."""

import itertools
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

import hstl_fast
from hstl_fast import HSTL, losses
from hstl_fast.checkpoints.optimizer_state import BUFFERS
from hstl_fast.models import released
from tests.conftest import skip_without_binary
from tests.golden import recipe
from tests.helpers.networks import narrow_model, walkers

# The bound of float64 against data stored as float32, relative to the largest value.
STORED = 2e-6
SEEDS = range(5)
# Of networks an eighth as wide as the presets, which learn in a second.
MORE_SEEDS = range(9)
LENGTHS = (1, 2, 3, 4, 5, 8)
each_preset = pytest.mark.parametrize("preset", recipe.PRESETS)


class TrainingPass(NamedTuple):
    embeddings: Tensor
    logits: Tensor
    triplet: Tensor
    cross_entropy: Tensor
    model: HSTL


def relative_error(value: Tensor, expected: Tensor | np.ndarray) -> float:
    """The largest difference, relative to the largest expected value."""
    expected = torch.as_tensor(expected).double()
    return float((value.detach().double() - expected).abs().max() / expected.abs().max())


def summed_loss(model: HSTL, preset: str, silhouettes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, logits and both losses of a batch."""
    embeddings, logits = model(silhouettes)
    scale, smoothing = recipe.CE[preset]
    ce = losses.cross_entropy(logits, labels, scale, smoothing)
    return embeddings, logits, losses.triplet_loss(embeddings, labels), ce


def training_pass(preset: str, dtype: torch.dtype) -> TrainingPass:
    model, golden = recipe.model(preset, dtype=dtype), recipe.load(preset)
    batch = torch.tensor(golden["silhouettes"]), torch.tensor(golden["labels"])
    return TrainingPass(*summed_loss(model, preset, *batch), model)


class Float32(NamedTuple):
    """A way to compute in float32, and how far it may be off."""

    backend: str
    algorithm: str
    of_outputs: float
    of_losses: float
    of_gradients: int  # as a multiple of torch's own error


Errors = tuple[float, ...]
DIRECT, WINOGRAD = Float32("cpu", "direct", 1e-5, 1e-4, 2), Float32("cpu", "winograd", 5e-5, 5e-4, 5)


REFERENCE = Float32("reference", "direct", 1e-5, 1e-4, 2)


@pytest.fixture
def way(request: pytest.FixtureRequest, poisoned: None) -> Iterator[Float32]:
    """A way to compute in float32, in force."""
    way: Float32 = request.param
    skip_without_binary(way.backend)
    with hstl_fast.use_backend(way.backend), hstl_fast.use_algorithm(way.algorithm):
        yield way


def ways(is_slow: Callable[[str, Float32], bool]) -> pytest.MarkDecorator:
    """Every preset in every way to compute in float32, some of them slow."""
    pairs = [(preset, way) for preset in recipe.PRESETS for way in (REFERENCE, DIRECT, WINOGRAD)]
    cases = [pytest.param(*pair, marks=pytest.mark.slow if is_slow(*pair) else []) for pair in pairs]
    return pytest.mark.parametrize(("preset", "way"), cases, indirect=["way"], ids=_name)


def _name(value: str | Float32) -> str:
    return value if isinstance(value, str) else f"{value.backend}-{value.algorithm}"


def assert_evaluates(preset: str, dtype: torch.dtype, tolerance: float, lengths: tuple[int, ...]) -> None:
    golden, model = recipe.load(preset), recipe.model(preset, dtype=dtype).eval()
    clip = torch.tensor(golden["silhouettes"][:1])
    for t in lengths:
        with torch.no_grad():
            error = relative_error(model(clip[:, :t]).embeddings, golden[f"eval_embeddings_T{t}"])
        assert error < tolerance, f"T = {t}"


# The evaluations in float64 that run by default.
QUICK = {("casia-b", "cpu", LENGTHS), ("oumvlp", "cpu", LENGTHS), ("gait3d", "reference", LENGTHS)}


@pytest.mark.parametrize(
    ("preset", "backend", "lengths"),
    [
        pytest.param(*case, marks=[] if case in QUICK else pytest.mark.slow)
        for case in itertools.product(recipe.PRESETS, ("reference", "cpu"), (LENGTHS, (30,)))
    ],
    ids=str,
    indirect=["backend"],
)
def test_evaluation_in_float64(preset: str, lengths: tuple[int, ...], backend: str) -> None:
    assert_evaluates(preset, torch.float64, STORED, lengths)


@ways(lambda preset, way: way == REFERENCE and preset != "casia-b")
def test_evaluation_in_float32(preset: str, way: Float32) -> None:
    assert_evaluates(preset, torch.float32, way.of_outputs, LENGTHS if way.backend == "reference" else (*LENGTHS, 30))


@pytest.mark.parametrize(
    ("preset", "backend"),
    [
        pytest.param(preset, backend, marks=[] if (preset, backend) == ("casia-b", "cpu") else pytest.mark.slow)
        for preset in recipe.PRESETS
        for backend in ("cpu", "reference")
    ],
    indirect=["backend"],
)
def test_training_in_float64(preset: str, backend: str) -> None:
    golden, passed = recipe.load(preset), training_pass(preset, torch.float64)
    assert relative_error(passed.embeddings, golden["train_embeddings"]) < STORED
    assert relative_error(passed.logits, golden["train_logits"]) < STORED
    assert passed.triplet.item() == pytest.approx(golden["triplet_loss"].item(), rel=1e-9)
    assert passed.cross_entropy.item() == pytest.approx(golden["ce_loss"].item(), rel=1e-9)

    (passed.triplet + passed.cross_entropy).backward()
    parameters = dict(passed.model.named_parameters())
    slots = {slot.key: slot for slot in released.slots(passed.model.config)}
    assert len(golden["parameter_names"]) == len(slots) - len(BUFFERS)
    for key, norm, projection in zip(golden["parameter_names"], golden["grad_norm"], golden["grad_probe"]):
        slot = slots[key]
        gradient = parameters[slot.name].grad[slot.index].reshape(slot.shape)
        assert abs(gradient.norm().item() - norm) < 1e-6 * norm, key
        assert abs((gradient * recipe.probe(key, slot.shape)).sum().item() - projection) < 1e-6 * norm, key


@ways(lambda preset, way: way == REFERENCE or (way == DIRECT and preset != "casia-b"))
def test_training_in_float32(preset: str, way: Float32) -> None:
    golden = recipe.load(preset)
    with torch.no_grad():
        passed = training_pass(preset, torch.float32)
    assert relative_error(passed.embeddings, golden["train_embeddings"]) < way.of_outputs
    assert relative_error(passed.logits, golden["train_logits"]) < way.of_outputs
    assert passed.triplet.item() == pytest.approx(golden["triplet_loss"].item(), rel=way.of_losses)
    assert passed.cross_entropy.item() == pytest.approx(golden["ce_loss"].item(), rel=way.of_losses)


@each_preset
def test_released_names(preset: str) -> None:
    model = recipe.model(preset, dtype=torch.float32)
    expected = recipe.weights(preset, dtype=torch.float32)
    written = model.official_state_dict()
    assert {key: tuple(value.shape) for key, value in written.items()} == recipe.keys(preset)
    assert list(written) == list(recipe.keys(preset))
    assert all(torch.equal(written[key], expected[key]) for key in expected)


def trained(model: HSTL, silhouettes: Tensor, labels: Tensor, frames: int, eps: float = 1e-8) -> tuple[Tensor, Tensor]:
    """The losses `[6, 2]` of six Adam steps, step s on frames s to s + frames - 1, and sequence 0's embedding then."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, eps=eps, weight_decay=5e-4)
    history = []
    for s in range(6):
        optimizer.zero_grad()
        *_, triplet, ce = summed_loss(model.train(), "casia-b", silhouettes[:, s : s + frames], labels)
        (triplet + ce).backward()
        optimizer.step()
        history.append([triplet.item(), ce.item()])
    with torch.no_grad():
        return torch.tensor(history, dtype=torch.float64), model.eval()(silhouettes[:1]).embeddings


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("backend", ["cpu"], indirect=True)
def test_trajectory_in_float64(backend: str) -> None:
    golden = recipe.load("casia-b.trajectory")
    batch = torch.tensor(golden["silhouettes"]), torch.tensor(golden["labels"])
    history, final = trained(recipe.model("casia-b"), *batch, frames=7)
    assert relative_error(history, golden["losses"]) < STORED
    assert relative_error(final, golden["final_eval_embeddings"]) < STORED


@pytest.mark.parametrize(
    ("preset", "narrow"),
    [
        pytest.param(preset, narrow, marks=[] if (preset, narrow) == ("casia-b", True) else pytest.mark.slow)
        for preset in recipe.PRESETS
        for narrow in (True, False)
    ],
    ids=lambda value: {True: "narrow", False: "whole"}.get(value, value),
)
def test_float32_gradients_err_little_more_than_torchs(preset: str, narrow: bool) -> None:
    skip_without_binary("cpu")
    assert_errs_little_more([_gradient_errors(preset, seed, narrow) for seed in SEEDS])


@pytest.mark.slow
def test_float32_trajectory_errs_little_more_than_torchs() -> None:
    skip_without_binary("cpu")
    assert_errs_little_more([_trajectory_errors(seed) for seed in MORE_SEEDS])


def assert_errs_little_more(of_seeds: list[list[Errors]]) -> None:
    """The medians over the seeds of torch's, the direct and the Winograd convolution's errors."""
    torchs, *ours = ([median(errors) for errors in zip(*of_seed)] for of_seed in zip(*of_seeds))
    for way, medians in zip((DIRECT, WINOGRAD), ours, strict=True):
        for of_torch, of_ours in zip(torchs, medians, strict=True):
            assert of_ours <= way.of_gradients * of_torch, (way.algorithm, medians, torchs)


WAYS = [("reference", "auto"), ("cpu", "direct"), ("cpu", "winograd")]


def _gradient_errors(preset: str, seed: int, narrow: bool) -> list[Errors]:
    """Errors of torch's and our float32 gradients: of the worst parameter, and of all parameters together.

    Those of the losses come first, then those of a direction: the losses' hinges answer the last bit with jumps, a
    direction shows the operators alone.
    """
    # The operators of both agree in float64 to 1e-9 of each gradient, and only the reference takes a minute.
    truth = "reference" if narrow else "cpu"
    in_float64 = _gradients(preset, seed, narrow, torch.float64, truth, "auto")
    errors = []
    for backend, algorithm in WAYS:
        of_way: list[float] = []
        for gradients, exact in zip(_gradients(preset, seed, narrow, torch.float32, backend, algorithm), in_float64):
            difference = {k: g - exact[k] for k, g in gradients.items()}
            of_way.append(max(float(d.norm() / exact[k].norm()) for k, d in difference.items()))
            of_way.append(_norm(difference) / _norm(exact))
        errors.append(tuple(of_way))
    return errors


def _gradients(
    preset: str, seed: int, narrow: bool, dtype: torch.dtype, backend: str, algorithm: str
) -> list[dict[str, Tensor]]:
    """Gradients of the losses, and of a random direction of embeddings and logits, for three clips of 4 frames.

    The weights are some that float32 holds exactly.
    """
    model = (narrow_model(preset, seed) if narrow else recipe.model(preset, seed, torch.float32)).to(dtype)
    clips = torch.stack([walkers(4, 10 * seed + i) for i in range(3)])
    generator = torch.Generator().manual_seed(seed)
    with hstl_fast.use_backend(backend), hstl_fast.use_algorithm(algorithm):
        embeddings, logits, triplet, ce = summed_loss(model, preset, clips, torch.tensor([0, 0, 1]))
        outputs = [embeddings, logits]
        directions = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(dtype) for y in outputs]
        names, leaves = zip(*model.named_parameters())
        of_losses = torch.autograd.grad(triplet + ce, leaves, retain_graph=True)
        of_direction = torch.autograd.grad(outputs, leaves, directions)
    return [dict(zip(names, (g.double() for g in gradients))) for gradients in (of_losses, of_direction)]


def _norm(tensors: dict[str, Tensor]) -> float:
    return sum(float(t.square().sum()) for t in tensors.values()) ** 0.5


def _trajectory_errors(seed: int) -> list[Errors]:
    """Errors of torch's and our float32 training of a narrow network: of its losses, and of its last embedding."""
    losses_64, final_64 = _trajectory(seed, torch.float64, "reference", "auto")
    errors = []
    for backend, algorithm in WAYS:
        history, final = _trajectory(seed, torch.float32, backend, algorithm)
        errors.append((relative_error(history, losses_64), relative_error(final, final_64)))
    return errors


def _trajectory(seed: int, dtype: torch.dtype, backend: str, algorithm: str) -> tuple[Tensor, Tensor]:
    model = narrow_model("casia-b", seed, divisor=8).to(dtype)
    clips = torch.stack([walkers(10, 10 * seed + i) for i in range(4)])
    with hstl_fast.use_backend(backend), hstl_fast.use_algorithm(algorithm):
        # With Adam's usual eps the first step is as long for a gradient that is nothing but rounding as for any other.
        return trained(model, clips, torch.tensor([0, 0, 1, 1]), frames=5, eps=1e-2)
