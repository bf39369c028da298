"""A packed ragged batch gives every sequence what it would get alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from hstl_fast import HSTL, use_algorithm
from tests.golden import recipe
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

each_preset = pytest.mark.parametrize("preset", recipe.PRESETS)


def random_lengths(seed: int) -> list[int]:
    """Lengths from 1 to 90 in random order, the shortest and the longest among them."""
    random = np.random.default_rng(seed)
    lengths = [1, 2, 3, 90, *random.integers(4, 60, 2)]
    return [int(length) for length in random.permutation(lengths)]


def run(model: HSTL, batches: list[Tensor], lens: list[int] | None) -> tuple[list[Tensor], list[Tensor]]:
    """Embeddings and logits of all batches, and the gradients of the sum of a fixed direction through them."""
    outs = [model(batch, lens) for batch in batches]
    embeddings, logits = torch.cat([o.embeddings for o in outs]), torch.cat([o.logits for o in outs])
    loss = sum(
        (torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(y) * y).sum()
        for y in (embeddings, logits)
    )
    return [embeddings.detach(), logits.detach()], list(torch.autograd.grad(loss, list(model.parameters())))


DIRECT_64, DIRECT_32 = (torch.float64, "auto", 1e-9, 1e-9), (torch.float32, "direct", 1e-6, 1e-5)
WINOGRAD = (torch.float32, "auto", 5e-5, 1e-4)  # what it is held to everywhere
RUNS = [(preset, "cpu", *way) for preset in recipe.PRESETS for way in (DIRECT_64, DIRECT_32, WINOGRAD)]


@pytest.mark.parametrize(
    ("preset", "backend", "dtype", "algorithm", "of_outputs", "of_gradients"),
    [
        *(pytest.param(*run, marks=[] if run[0] == "gait3d" else pytest.mark.slow) for run in RUNS),
        *(pytest.param("gait3d", "reference", *way, marks=pytest.mark.slow) for way in (DIRECT_64, DIRECT_32)),
    ],
    ids=str,
    indirect=["backend"],
)
def test_ragged_equals_one_by_one(
    preset: str, backend: str, dtype: torch.dtype, algorithm: str, of_outputs: float, of_gradients: float
) -> None:
    lens = random_lengths(recipe.PRESETS.index(preset))
    model = narrow_model(preset, dtype=dtype, divisor=8).eval()
    clips = [walkers(length, i) for i, length in enumerate(lens)]
    with use_algorithm(algorithm):
        together, gradients = run(model, [torch.cat(clips)[None]], lens)
        alone, their_gradients = run(model, [clip[None] for clip in clips], None)
    for got, expected in zip(together, alone):
        assert (got - expected).abs().max() <= of_outputs * expected.abs().max()
    for got, expected in zip(gradients, their_gradients):
        assert (got - expected).norm() <= of_gradients * expected.norm()


@each_preset
@pytest.mark.parametrize("backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)], indirect=True)
def test_a_whole_preset_ragged(preset: str, backend: str) -> None:
    lens = [4, 1, 2, 3, 8]
    model = recipe.model(preset, dtype=torch.float32).eval()
    clips = [walkers(length, i) for i, length in enumerate(lens)]
    with torch.no_grad():
        together = model(torch.cat(clips)[None], lens)
        alone = [model(clip[None]) for clip in clips]
    for got, expected in zip(together, (torch.cat(values) for values in zip(*alone))):
        assert distance(got, expected) <= rounding(torch.float32, NETWORK)


def test_neighbours_do_not_matter(backend: str) -> None:
    model, clip = narrow_model("gait3d", dtype=torch.float64).eval(), walkers(5, 1)
    embeddings = []
    for before, after in [(walkers(4, 2), walkers(7, 3)), (walkers(4, 4) // 2, 255 - walkers(7, 5))]:
        with torch.no_grad():
            embeddings.append(model(torch.cat([before, clip, after])[None], [4, 5, 7]).embeddings)
    assert torch.equal(embeddings[0][1], embeddings[1][1])
    assert not torch.equal(embeddings[0][0], embeddings[1][0])
    assert not torch.equal(embeddings[0][2], embeddings[1][2])


def test_training_statistics_see_the_whole_packed_batch(backend: str) -> None:
    packed, stacked = narrow_model("gait3d", dtype=torch.float64), narrow_model("gait3d", dtype=torch.float64)
    clips = torch.stack([walkers(4, 1), walkers(4, 2), walkers(4, 3)])
    first = packed(clips.flatten(0, 1)[None], [4, 4, 4])
    second = stacked(clips)
    torch.testing.assert_close(first.embeddings, second.embeddings, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(packed.norm.running_var, stacked.norm.running_var, rtol=1e-9, atol=1e-9)
