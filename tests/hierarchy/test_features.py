"""Features of strips: each is what its formula says, whatever is empty, and in whatever order the data come."""

import copy
import itertools

import numpy as np
import pytest
import torch

import hstl_fast
from hstl_fast import HSTL
from hstl_fast.data import DataError
from hstl_fast.data.sequences import Item, Sequences
from hstl_fast.hierarchy import FEATURES, StripFeatures, body_hierarchy, bootstrap, feature_sets, strip_features
from hstl_fast.hierarchy import network_rows as network_rows_module
from hstl_fast.hierarchy.feature_sets import coherence, motion, series_of, shape
from hstl_fast.hierarchy.measuring import UNREADABLE
from hstl_fast.hierarchy.network_rows import NetworkRows
from hstl_fast.silhouettes.io import Reading
from tests.helpers.networks import narrow_model
from tests.helpers.networks import walkers as clip_of_walker
from tests.helpers.sequences import Drawn

SILHOUETTE_FEATURES = ("motion", "shape", "coherence")


class InMemory(Sequences):
    """Clips by name."""

    def __init__(self, clips: dict[str, np.ndarray]) -> None:
        super().__init__([Item(name.split("/")[0], "", "", name) for name in clips], "memory", "folders")
        self._clips = list(clips.values())

    def reading(self, index: int) -> Reading:
        return Reading(self._clips[index])


def clip(*frames: int) -> np.ndarray:
    """Silhouettes of a walker, `[T, 64, 64]`."""
    return np.pad(clip_of_walker(*frames).numpy(), ((0, 0), (0, 0), (10, 10)))


@pytest.fixture(scope="module")
def walk() -> np.ndarray:
    return clip_of_walker(40).numpy()


def test_series_are_what_they_are_called(walk: np.ndarray) -> None:
    clip = walk[:4].copy()
    clip[1, 16:24] = 0
    series, x = series_of(clip, 8), clip / 255
    for t, s in itertools.product(range(4), range(8)):
        strip = x[t, 8 * s : 8 * s + 8]
        assert series.mass[t, s] == pytest.approx(strip.mean())
        places = [np.flatnonzero(row >= 0.5) for row in strip]
        widths = [found[-1] - found[0] + 1 if len(found) else 0 for found in places]
        assert series.width[t, s] == pytest.approx(np.mean(widths) / 44)
        if strip.any():
            centre = (strip.sum(axis=0) * np.arange(44)).sum() / strip.sum()
            assert series.centre[t, s] == pytest.approx((centre - 21.5) / 44)
    assert series.mass[1, 2] == series.width[1, 2] == 0
    assert series.centre[1, 2] == pytest.approx(series.centre[[0, 2, 3], 2].mean())
    for t, s in itertools.product(range(3), range(8)):
        expected = np.abs(x[t + 1] - x[t])[8 * s : 8 * s + 8].mean()
        assert series.change[t, s] == pytest.approx(expected)


@pytest.mark.parametrize("frames", [1, 7, 39, 40])
def test_a_long_clip_is_measured_block_by_block(frames: int, walk: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = series_of(walk, 8)
    monkeypatch.setattr(feature_sets, "FRAMES_OF_A_BLOCK", frames)
    for values, expected in zip(series_of(walk, 8), whole, strict=True):
        assert values.shape == expected.shape
        assert np.allclose(values, expected, rtol=1e-12, atol=1e-15)


def test_shape_is_the_strips_row_of_the_average_silhouette(walk: np.ndarray) -> None:
    average = walk.mean(axis=0) / 255
    for s, k in itertools.product(range(16), range(11)):
        assert shape(walk, 16)[s, k] == pytest.approx(average[4 * s : 4 * s + 4, 4 * k : 4 * k + 4].mean())


def moving(t: int, *, legs: float = 6.0, period: float = 12.0, arms: float = 0.0) -> np.ndarray:
    """A bar of 64 rows whose lowest quarter widens and narrows, and whose third quarter moves as a whole."""
    x = np.zeros((t, 64, 44), np.uint8)
    columns = np.arange(44)
    for i in range(t):
        wave = np.sin(2 * np.pi * i / period)
        x[i, :48] = 255 * (abs(columns - 21.5) < 6)
        x[i, 32:48] = 255 * (abs(columns - 21.5 - arms * wave) < 6)
        x[i, 48:] = 255 * (abs(columns - 21.5) < 10 + legs * wave)
    return x


def test_motion_finds_the_strips_that_move() -> None:
    features = motion(moving(60), 8)
    assert features.shape == (8, 6)
    moves = features[6:].min(axis=0) > features[:6].max(axis=0) + 1
    # The legs stay in the middle, so that the centre of mass moves nowhere.
    assert moves.tolist() == [True, True, False, True, True, True]
    assert np.allclose(features.mean(axis=0), 0)
    assert np.allclose(features[:, moves].std(axis=0), 1)
    swaying = motion(moving(60, legs=0, arms=5), 8)
    assert (swaying[4:6, 2].min() > swaying[[0, 1, 2, 3, 6, 7], 2].max() + 1).all()


def test_motion_tells_a_rhythm_from_noise() -> None:
    regular = moving(60, period=12)
    noise = moving(60, period=12)
    order = np.random.default_rng(0).permutation(60)
    noise[:, :48] = regular[:, :48]
    noise[:, 16:24] = regular[order][:, 48:56]
    rhythm = motion(noise, 8)[:, 5]
    assert rhythm[6:].min() > rhythm[2] + 1
    assert motion(noise, 8)[2, 1] == pytest.approx(motion(noise, 8)[6, 1], abs=1e-9)


def test_the_time_for_a_clip_grows_with_its_length_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    lags, lagged = [], feature_sets._lagged
    monkeypatch.setattr(feature_sets, "_lagged", lambda width, lag: (lags.append(lag), lagged(width, lag))[1])
    assert np.isfinite(motion(np.tile(moving(60), (4, 1, 1)), 8)).all()
    assert lags == list(range(4, 65))
    lags.clear()
    motion(moving(20), 8)
    assert lags == list(range(4, 11))


def test_coherence_is_the_mean_of_three_correlations(walk: np.ndarray) -> None:
    series = series_of(walk, 8)[:3]
    found = coherence(walk, 8)
    for a, b in itertools.combinations(range(8), 2):
        pairs = [(values[:, a], values[:, b]) for values in series]
        expected = [np.corrcoef(*pair)[0, 1] if pair[0].std() > 0 < pair[1].std() else 0 for pair in pairs]
        assert found[a, b] == pytest.approx(np.mean(expected), abs=1e-9)
        assert found[a, b] == found[b, a]
    assert np.diagonal(found).tolist() == [1.0] * 8


@pytest.mark.parametrize("measure", [motion, shape, coherence])
def test_what_is_empty_or_still_is_finite(measure: object) -> None:
    assert callable(measure)
    empty = np.zeros((9, 64, 44), np.uint8)
    still, one_strip = empty + 255, empty.copy()
    one_strip[3:, 20, 7] = 255
    for clip in (empty, still, one_strip, moving(8), moving(8, legs=0)):
        for strips in (2, 8, 64):
            assert np.isfinite(measure(clip, strips)).all()


def test_alike_strips_have_alike_features() -> None:
    """The planted motion of the legs is found as a region."""
    data = InMemory({f"{i}/a": np.pad(moving(40, period=10 + i), ((0, 0), (0, 0), (10, 10))) for i in range(4)})
    for features in ("motion", "shape", "coherence"):
        tree = body_hierarchy(strip_features(data, features), "average", clusters=[2])
        assert tree.splits() == [[6, 2]], features
        assert (tree.features, tree.sequences, tree.frames) == (features, 4, 160)


@pytest.fixture(scope="module")
def model() -> HSTL:
    return narrow_model("oumvlp", divisor=8)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_network_compares_the_rows_of_the_map_that_the_network_computes(model: HSTL, stage: int) -> None:
    silhouettes, maps, model = clip_of_walker(20), [], copy.deepcopy(model).double()
    layer = (model.stages[stage - 1] if stage else model.stem)[-1]
    hook = layer.register_forward_hook(lambda _, __, output: maps.append(output))
    with torch.no_grad(), hstl_fast.use_backend("reference"):
        model(silhouettes[None])
    hook.remove()
    ((y,),) = maps  # c t h w
    strips = y.numpy().reshape(*y.shape[:2], 8, y.shape[2] // 8, y.shape[3])
    rows = strips.mean(axis=(3, 4))
    z = (rows - rows.mean(axis=(1, 2), keepdims=True)) / rows.std(axis=(1, 2), keepdims=True)
    vectors = z.transpose(2, 0, 1).reshape(8, -1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = NetworkRows(model, stage)(silhouettes.numpy(), 8)
    assert np.allclose(found, vectors @ vectors.T, rtol=0, atol=1e-9)
    assert np.allclose(np.diagonal(found), 1)


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 11])
def test_network_has_a_map_of_every_stage(model: HSTL, stage: int, frames: int) -> None:
    found = NetworkRows(model, stage)(clip_of_walker(frames).numpy(), 8)
    assert found.shape == (8, 8)
    assert np.isfinite(found).all()
    assert np.allclose(found, found.T)
    assert np.allclose(np.diagonal(found), 1)


def test_network_computes_a_long_clip_in_pieces(model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    compute = NetworkRows._activations
    monkeypatch.setattr(network_rows_module, "FRAMES_OF_A_PIECE", 10)
    monkeypatch.setattr(
        NetworkRows,
        "_activations",
        lambda self, piece, strips: (seen.append(len(piece)), compute(self, piece, strips))[1],
    )
    assert NetworkRows(model)(clip_of_walker(23).numpy(), 8).shape == (8, 8)
    assert seen == [8, 8, 7]


@pytest.mark.parametrize("features", FEATURES)
def test_the_order_of_sequences_does_not_matter(features: str, model: HSTL) -> None:
    data = InMemory({f"{i}/a": clip(9 + i, i) for i in range(6)})
    network = model if features == "network" else None
    found = strip_features(data, features, model=network)
    turned = strip_features(data.subset([5, 3, 0, 1, 4, 2]), features, model=network)
    assert np.allclose(found.mean, turned.mean, rtol=1e-12, atol=1e-12)
    assert np.allclose(found.average, turned.average, rtol=1e-12)
    trees = [body_hierarchy(each, clusters=[2, 4]) for each in (found, turned)]
    assert trees[0].splits() == trees[1].splits()
    assert found.values.shape == (6, 8, found.values.shape[2])
    assert (found.sequences, found.frames) == (6, sum(range(9, 15)))


def test_what_cannot_be_measured_is_left_out_and_counted() -> None:
    dark = clip(12).copy()
    dark[3:6] = 0
    outside = np.zeros((12, 64, 64), np.uint8)
    outside[:, :, :10] = 255
    steps: list[tuple[str, int, int]] = []
    data = InMemory({"a": clip(12), "b": dark, "c": clip(7), "d": outside, "e": clip(9)})
    found = strip_features(data, "motion", progress=lambda *step: steps.append(step))
    assert [(each.where, each.reason, each.detail) for each in found.left_out] == [
        ("b", "frame without a body", "3 of 12"),
        ("c", "too few frames with a body", "7, expected at least 8"),
        ("d", "frame without a body", "12 of 12"),
        ("d", "too few frames with a body", "0, expected at least 8"),
    ]
    assert found.labels == ("a", "b", "e")
    seen = [each[:, :, 10:54].mean(axis=0) / 255 for each in (clip(12), dark[[0, 1, 2, *range(6, 12)]], clip(9))]
    assert np.allclose(found.average, np.mean(seen, axis=0))
    assert (found.sequences, found.frames) == (3, 12 + 9 + 9)
    assert steps == [("measuring strips", i, 5) for i in range(1, 6)]
    assert strip_features(data, "shape").sequences == 4


def test_a_network_that_computes_nan_finds_nothing(model: HSTL) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.stem[0].weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="got none; the last, a: features that are not finite"):
        strip_features(InMemory({"a": clip(9)}), "network", model=broken)


def test_unreadable_sequences_are_named() -> None:
    found = strip_features(Drawn(4, unreadable=[1]), "shape")
    assert [each.where for each in found.left_out if each.reason == UNREADABLE] == ["000/nm-01/090"]
    assert found.sequences == 3
    with pytest.raises(DataError, match=r"memory: expected sequences to measure strips on, got none; the last, .*read"):
        strip_features(Drawn(2, unreadable=[0, 1]), "shape")
    with pytest.raises(DataError, match="got none; the data set is empty"):
        strip_features(InMemory({}), "shape")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": "moton"}, "features must be one of motion, shape, coherence, network, got 'moton'; did you mean"),
        ({"strips": 7}, "strips must be at least 2 and a divisor of 64 rows, got 7"),
        ({"strips": 1}, "got 1"),
        ({"strips": 8.0}, "got 8.0"),
        ({"features": "network"}, "model must be a network to measure the features 'network', got None"),
        ({"model": "ours"}, "model is for the features 'network', got it with 'motion'"),
        ({"features": "network", "model": "ours", "stage": 4}, r"stage must be 0 \(the stem\) to 3, got 4"),
        (
            {"features": "network", "model": "ours", "stage": 1, "strips": 64},
            "strips must divide the 32 rows of stage 1",
        ),
    ],
)
def test_what_is_refused(changes: dict[str, object], message: str, model: HSTL) -> None:
    arguments = {**changes, **({"model": model} if "model" in changes else {})}
    with pytest.raises(ValueError, match=message):
        strip_features(InMemory({"a": clip(9)}), **arguments)


def resampled(noise: float, people: int = 10, each: int = 2) -> StripFeatures:
    """Features with one boundary, which drown in noise that the sequences of a person share."""
    draw = np.random.default_rng(0)
    base = np.repeat([[0.0], [1.0]], [5, 3], axis=0)
    of_people = base + noise * draw.standard_normal((people, 8, 1))
    values = np.repeat(of_people, each, axis=0).astype(np.float32)
    labels = tuple(str(person) for person in range(people) for _ in range(each))
    return StripFeatures("shape", values, labels, 100, np.zeros((64, 44)))


def test_bootstrap_counts_the_samples_with_the_same_cut() -> None:
    clear, unclear = resampled(0.01), resampled(2.0)
    tree = body_hierarchy(clear, "average", clusters=[1, 2, 4, 8])
    drawn = bootstrap(tree, clear, 50)
    assert (drawn.resamples, drawn.unit) == (50, "sequences")
    assert drawn.shares[0] == drawn.shares[1] == drawn.shares[3] == 1
    assert drawn.shares[2] < 1
    assert bootstrap(tree, clear, 50) == drawn
    blurred = body_hierarchy(unclear, "average", clusters=[2])
    by_sequences, by_people = (bootstrap(blurred, unclear, unit=unit).shares[0] for unit in ("sequences", "people"))
    assert 0 < by_sequences < 1
    assert by_people != by_sequences


@pytest.mark.parametrize(
    ("clusters", "changes", "message"),
    [
        ([], {}, "hierarchy must have cuts to draw samples for"),
        ([2], {"resamples": 0}, "resamples must be at least 1, got 0"),
        ([2], {"unit": "person"}, "unit must be one of sequences, people, got 'person'"),
    ],
)
def test_bootstrap_refuses(clusters: list[int], changes: dict[str, object], message: str) -> None:
    features = resampled(0.1)
    with pytest.raises(ValueError, match=message):
        bootstrap(body_hierarchy(features, "average", clusters=clusters), features, **changes)
