"""Explanations of names: margin, agreement by part, level and region, in words and as data."""

import json

import numpy as np
import pytest
import torch

from hstl_fast import PRESETS
from hstl_fast.evaluation import part_distances
from hstl_fast.models.levels import levels, part_spans
from hstl_fast.recognition.explaining import agreements, distances_of_parts, explain
from tests.helpers.tiny import TINY

P, C = TINY.parts, 3


def planted(nearer: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A probe, and two people: the parts `nearer` are 1 from the first and 3 from the second, the others 2 and 1."""
    probe = np.zeros((P, C), np.float32)
    first, second = probe.copy(), probe.copy()
    first[:, 0], second[:, 0] = 2, 1
    first[nearer, 0], second[nearer, 0] = 1, 3
    return probe, first, second


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_distances_of_parts_are_those_whose_mean_is_searched_by(metric: str) -> None:
    random = np.random.default_rng(0)
    probe, others = (random.normal(size=shape).astype(np.float32) for shape in ((5, 7), (4, 5, 7)))
    others[2, 1] = 0
    found = distances_of_parts(probe, others, metric)
    wide = torch.from_numpy(others).double()
    expected = part_distances(torch.from_numpy(probe)[None].double(), wide, metric)[0]
    np.testing.assert_allclose(found.mean(1), expected.numpy(), rtol=1e-12)
    for part in range(5):
        alone = part_distances(torch.from_numpy(probe)[None, [part]].double(), wide[:, [part]], metric)[0]
        np.testing.assert_allclose(found[:, part], alone.numpy(), rtol=1e-9, atol=1e-12)


def test_margin_and_agreement() -> None:
    nearer = list(range(P - 3))
    found = explain(*planted(nearer))
    assert found.distance == pytest.approx(((P - 3) * 1 + 3 * 2) / P)
    assert found.margin == pytest.approx(((P - 3) * 3 + 3 * 1) / P - found.distance)
    assert found.agreement == (P - 3) / P
    assert found.parts.dtype == np.float32
    assert found.parts.tolist() == [1.0] * (P - 3) + [2.0] * 3
    assert found.levels == ()


def test_levels_and_regions_in_words_and_as_data() -> None:
    # TINY: stage 1 has part 0; stage 2 parts 1, 2 of 40 and 24 rows, FTA 3, 4; stage 3 parts 5 to 7; strips 8 to 11.
    nearer = [part for part in range(P) if part not in (2, 8, 9, 11)]
    found = explain(*planted(nearer), config=TINY)
    assert [(level.title, level.agreeing, len(level.regions)) for level in found.levels] == [
        ("Stage 1", 1, 1),
        ("Stage 2", 1, 2),
        ("Stage 2, FTA", 2, 2),
        ("Stage 3", 3, 3),
        ("Strips", 1, 4),
    ]
    against = found.levels[1].regions[1]
    assert (against.part, against.top, against.bottom) == (2, 40 / 64, 1.0)
    assert (against.distance, against.second, against.agrees) == (2.0, 1.0, False)
    sentences = found.words("ann", "ben")
    assert sentences[0].startswith("ann: distance 1.333; ben is 1 (75 %) farther.")
    assert sentences[1:] == [
        "8 of 12 parts are nearer to ann (Stage 1: 1 of 1, Stage 2: 1 of 2, Stage 2, FTA: 2 of 2, Stage 3: 3 of 3, "
        "Strips: 1 of 4).",
        "Nearer to ben, of the height from the top: 0 to 50 %, 75 to 100 %.",
    ]
    document = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert document["agreement"] == 8 / 12
    assert document["levels"][1]["regions"][1]["agrees"] is False
    assert [region["part"] for level in document["levels"] for region in level["regions"]] == list(range(P))


def test_words_without_levels_or_a_second_person() -> None:
    probe, first, second = planted(list(range(P)))
    assert explain(probe, first, second).words("ann") == [
        "ann: distance 1; the next person is 2 (200 %) farther.",
        "12 of 12 parts are nearer to ann.",
    ]
    alone = explain(probe, first)
    assert alone.margin is alone.agreement is None
    assert alone.words("ann") == ["ann: distance 1; nobody else to compare with."]
    assert explain(probe, probe, second).words("ann", "ben")[0] == "ann: distance 0; ben is 3 farther."


def test_many_stretches_are_cut_short() -> None:
    config = PRESETS["casia-b"]
    probe = np.zeros((config.parts, 1), np.float32)
    first, second = probe + 1, probe + 2
    strips = levels(config)[-1].first
    first[[strips, strips + 2, strips + 4, strips + 6, strips + 7]] = 3
    text = explain(probe, first, second, config).words("ann", "ben")[-1]
    assert text == "Nearer to ben, of the height from the top: 0 to 2 %, 3 to 5 %, 9 to 12 % and elsewhere."


def test_agreements_of_several_people() -> None:
    assert P == 12
    probe, first, second = planted([0, 1, 2, 3])
    found = agreements(probe, np.stack([first, second, second]))
    assert found == [4 / P, 8 / P, 8 / P]
    assert found[0] == explain(probe, first, second).agreement
    assert agreements(probe, first[None]) == [None]
    assert agreements(probe, first[:0].reshape(0, P, C)) == []


def test_bad_input() -> None:
    probe, first, second = planted([0])
    with pytest.raises(ValueError, match="the embedding has 12 parts; the network of config has 73"):
        explain(probe, first, second, PRESETS["casia-b"])
    with pytest.raises(ValueError, match=r"with the same parts and channels; got \[12, 3\] and \[1, 11, 3\]"):
        explain(probe, first[1:])
    with pytest.raises(ValueError, match="metric must be one of"):
        agreements(probe, first[None], "manhattan")
    first[0, 0] = np.inf
    with pytest.raises(ValueError, match="others must be finite; got NaN or infinity"):
        explain(probe, first)


@pytest.mark.parametrize("preset", PRESETS)
def test_levels_are_the_networks(preset: str) -> None:
    config = PRESETS[preset]
    found = levels(config)
    assert [part for level in found for part in level.parts] == list(range(config.parts))
    assert [level.split for level in found[:-1]] == [split for _, _, split in config.pools]
    assert all(level.spans[0][0] == 0 and level.spans[-1][1] == 1 for level in found)
    assert len(part_spans(config)) == config.parts
