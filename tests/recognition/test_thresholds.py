"""Thresholds chosen from a gallery: against leaving out by hand, planted galleries, near-copies, small galleries."""

import json
from typing import Any

import numpy as np
import pytest

from hstl_fast.evaluation import comparison
from hstl_fast.evaluation.search import top
from hstl_fast.recognition import thresholds
from hstl_fast.recognition.thresholds import from_gallery, smallest_rate, videos_of


def gallery(people: int, each: int, spread: float, seed: int = 0, channels: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    places = random.normal(size=(people, 1, 2, channels))
    vectors = places + spread * random.normal(size=(people, each, 2, channels))
    return vectors.reshape(-1, 2, channels).astype(np.float32), np.repeat(np.arange(people), each)


def by_hand(vectors: np.ndarray, people: np.ndarray, videos: Any) -> tuple[list[float], list[float], list[int]]:
    """Distances to the nearest of one's own, of anybody else's, and the people of the probes, one by one."""
    own, other = [], []
    wide = vectors.astype(np.float64)
    for i, probe in enumerate(wide):
        far = [float(np.linalg.norm(probe - each, axis=1).mean()) for each in wide]
        mine = [j for j in range(len(wide)) if people[j] == people[i] and videos[j] != videos[i]]
        own.append(min((far[j] for j in mine), default=np.inf))
        other.append(min(far[j] for j in range(len(wide)) if people[j] != people[i]))
    return own, other, people.tolist()


@pytest.mark.parametrize("videos", [None, [i // 2 for i in range(48)]])
def test_rates_are_those_of_leaving_out_by_hand(videos: list[int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "BLOCK_BYTES", 1 << 11)
    monkeypatch.setattr(thresholds, "_DISTANCES_AT_ONCE", 100)
    vectors, people = gallery(12, 4, spread=1.0)
    found = from_gallery(vectors, people, 0.1, sources=videos)
    own, other, _ = (np.array(each) for each in by_hand(vectors, people, videos or range(48)))
    reached = found.distance * (1 - 1e-12)  # whoever's rounding computed the distance of the next
    named = np.count_nonzero(other <= reached)
    # Two people who are each other's nearest are equally far both ways, so one or two more would be too many.
    assert named <= 0.1 * 49 - 1 < np.count_nonzero(other <= found.distance * (1 + 1e-12))
    assert found.false_accept_rate == (named + 1) / 49
    assert found.true_accept_rate == np.mean((own < other) & (own <= reached))
    assert (found.strangers, found.genuine, found.people, found.recordings) == (48, 48, 12, 48)
    assert found.false_accept_interval.low <= found.false_accept_rate <= found.false_accept_interval.high


def test_strangers_get_names_as_often_as_is_said() -> None:
    # Recordings of 400 strangers are searched in the gallery of 60 that the threshold was chosen from.
    vectors, people = gallery(460, 6, spread=0.9, seed=1)
    enrolled = people < 60
    found = from_gallery(vectors[enrolled], people[enrolled], 0.1)
    (_, distances) = top(vectors[~enrolled], vectors[enrolled], 1)
    low, high = found.false_accept_interval
    assert low <= np.mean(distances <= found.distance) <= high
    assert high < 0.25


def test_a_lower_rate_gives_a_smaller_distance_and_fewer_true_accepts() -> None:
    vectors, people = gallery(40, 5, spread=0.8)
    found = [from_gallery(vectors, people, rate) for rate in (0.005, 0.01, 0.05, 0.2)]
    assert [each.distance for each in found] == sorted(each.distance for each in found)
    assert [each.true_accept_rate for each in found] == sorted(each.true_accept_rate for each in found)
    assert found[0].true_accept_rate < found[-1].true_accept_rate
    assert all(each.false_accept_rate <= each.asked for each in found)


def test_near_copies_of_one_video_are_left_out_by_their_sources() -> None:
    # Each person walked twice, and each walk was cut into four windows that hardly differ.
    walks, people = gallery(20, 2, spread=1.0)
    random = np.random.default_rng(0)
    windows = np.repeat(walks, 4, axis=0)
    windows = (windows + 0.01 * random.normal(size=windows.shape)).astype(np.float32)
    owners, videos = np.repeat(people, 4), [f"{i // 4}.mp4" for i in range(len(windows))]
    flattered, honest = from_gallery(windows, owners, 0.1), from_gallery(windows, owners, 0.1, sources=videos)
    assert flattered.true_accept_rate == 1
    assert honest.true_accept_rate < 0.8
    assert honest.distance == flattered.distance  # a stranger has no near-copy


def test_a_large_gallery_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, people = gallery(50, 6, spread=0.8)
    whole = from_gallery(vectors, people, 0.1)
    monkeypatch.setattr(thresholds, "PROBES", 120)
    some, again = from_gallery(vectors, people, 0.1), from_gallery(vectors, people, 0.1)
    assert some == again
    assert (some.strangers, some.recordings) == (120, 300)
    assert some.remarks == ("Of 300 recordings a random sample of 120 was tried.",)
    # Shares below a threshold of 120 drawn of 300 differ by at most sqrt(log(2 / alpha) / 2 n) (Hoeffding).
    assert abs(some.true_accept_rate - whole.true_accept_rate) < np.sqrt(np.log(2e6) / 240) + 0.1


def test_a_memory_map_and_progress(tmp_path: Any) -> None:
    vectors, people = gallery(10, 3, spread=0.5)
    np.save(tmp_path / "vectors.npy", vectors)
    told: list[tuple[str, int, int]] = []
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    found = from_gallery(mapped, people.tolist(), 0.2, progress=lambda *each: told.append(each))
    assert found == from_gallery(vectors, people, 0.2)
    assert told[-1] == ("comparing", 30, 30)
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["distance"] == found.distance


def test_a_gallery_too_small_says_what_it_can_tell() -> None:
    vectors, people = gallery(8, 5, spread=0.1)
    with pytest.raises(
        ValueError, match=r"0\.1 % cannot be told from 40 recordings of 8 people: the smallest is 2\.5 %"
    ):
        from_gallery(vectors, people, 0.001)
    found = from_gallery(vectors, people, smallest_rate(40))
    assert found.false_accept_rate == smallest_rate(40) == 1 / 41
    assert found.false_accept_interval == pytest.approx((0, 1 - 0.025 ** (1 / 8)))
    assert found.true_accept_interval == pytest.approx((0.025 ** (1 / 8), 1))
    assert "less than one of the 8 people" in found.remarks[0]
    assert "fewer than 20 people are too narrow: these are from 8" in found.remarks[1]


def test_one_recording_each_tells_nothing_of_true_accepts() -> None:
    vectors, people = gallery(30, 1, spread=1.0)
    found = from_gallery(vectors, people, 0.1)
    assert found.true_accept_rate is found.true_accept_interval is None
    assert found.genuine == 0
    assert "Nobody has recordings of two walks" in found.remarks[-1]
    copies = from_gallery(np.repeat(vectors, 2, axis=0), np.repeat(people, 2), 0.1, sources=["street.mp4"] * 60)
    assert copies.true_accept_rate is None
    assert copies.strangers == 60


def test_bad_input() -> None:
    vectors, people = gallery(4, 3, spread=0.1)
    for rate in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="false-accept rate must be more than 0 and less than 1"):
            from_gallery(vectors, people, rate)
    with pytest.raises(
        ValueError, match="needs a gallery of 2 people or more, to compare them; this one holds 1 person"
    ):
        from_gallery(vectors, np.zeros(12, int), 0.1)
    with pytest.raises(ValueError, match="this one is empty"):
        from_gallery(vectors[:0], [], 0.1)
    with pytest.raises(ValueError, match=r"people must be integers \[12\], one for each recording; got int64 \[11\]"):
        from_gallery(vectors, people[1:], 0.1)
    with pytest.raises(ValueError, match=r"people must be integers \[12\], one for each recording; got float64 \[12\]"):
        from_gallery(vectors, people * 1.0, 0.1)
    with pytest.raises(ValueError, match=r"sources must be \[12\], one for each recording; got 2"):
        from_gallery(vectors, people, 0.1, sources=["a", "b"])
    vectors[5, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"must be finite; got NaN or infinity in gallery\[5\]"):
        from_gallery(vectors, people, 0.1)


def test_tracks_of_one_video_are_told_from_walks_of_one_name() -> None:
    sources = ["door.mp4-track01", "w", "day-2/door-track12/frames", "door.mp4-track2", "w", "day-2/door/track03"]
    assert videos_of(sources) == ["door.mp4", 1, "day-2/door", "door.mp4", 4, "day-2/door"]
    assert videos_of(["walks/nm-01/090", "soundtrack01.mp4"]) == [0, 1]


def test_walks_that_count_as_one_are_said() -> None:
    vectors, people = gallery(30, 2, spread=1.0)
    apart = from_gallery(vectors, people, 0.1, sources=videos_of(["w"] * 60))
    assert apart == from_gallery(vectors, people, 0.1)
    tracks = ["a-track1", "a-track2"] + ["b-track1"] * 58
    said = from_gallery(vectors, people, 0.1, sources=videos_of(tracks)).remarks[-1]
    assert said == "The 60 recordings count as 30 walks: those cut from a video of one name are one."


def test_a_rate_just_below_one_lets_in_everybody_who_was_tried() -> None:
    vectors, people = gallery(4, 2, spread=1.0)
    assert from_gallery(vectors, people, 1 - 1e-12).distance == from_gallery(vectors, people, 0.99).distance
