"""People of a street found again: the first half of every track of a video is enrolled, the second half is searched.

    python -m benchmarks.recognition.street VIDEO --output FILE.json [--checkpoint WEIGHTS.pt]

A track counts as a person of his own, so that a person who gives several tracks is wrong as another of his own tracks,
and a stranger may be somebody who is enrolled. Clothes, light, direction and distance are the same in both halves: the
figures say what the first steps with one's own video show, and nothing about recognition on another day.

Thresholds come from the gallery, which leaves one recording out, and beside them from the strangers themselves, whom a
user does not have. Beside the network stands the gait-energy image, the mean silhouette.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.core import machine
from hstl_fast.evaluation import part_distances
from hstl_fast.models.config import SIDE
from hstl_fast.network import Network
from hstl_fast.recognition import Clip, Fingerprint, Gallery
from hstl_fast.recognition.thresholds import Threshold, from_gallery, smallest_rate
from hstl_fast.silhouettes import Track, extract

# False-accept rates of the thresholds.
RATES = (0.01, 0.1)
# Divisions of the tracks, at random, into enrolled ones and strangers.
DIVISIONS, SEED = 200, 2023


class Halves(NamedTuple):
    """Both halves of the tracks, as vectors.

    Attributes:
        known: Of the first halves, `[n, P, C]` float32.
        probe: Of the second halves.
    """

    known: NDArray[np.float32]
    probe: NDArray[np.float32]


def split(tracks: Sequence[Track]) -> tuple[list[Clip], list[Clip]]:
    """Cut every track in its middle."""
    firsts, seconds = [], []
    for track in tracks:
        middle = len(track.silhouettes) // 2
        firsts.append(Clip(track.name, track.silhouettes[:middle], track.fps))
        seconds.append(Clip(track.name, track.silhouettes[middle:], track.fps))
    return firsts, seconds


def energy(clips: Sequence[Clip]) -> NDArray[np.float32]:
    """Compute gait-energy images `[n, 1, 64 * 44]`."""
    images = [clip.silhouettes[:, :, SIDE:-SIDE].mean(axis=0, dtype=np.float32) / 255 for clip in clips]
    return np.stack(images).reshape(len(images), 1, -1)


def of_gallery(network: Network, firsts: Sequence[Clip], seconds: Sequence[Clip]) -> Halves:
    """Enrol and search by a gallery, and compare its names with those of the vectors."""
    with tempfile.TemporaryDirectory() as folder, Gallery(Path(folder) / "people.db", network=network) as gallery:
        for clip in firsts:
            gallery.enroll(clip.source, [clip])
        names = [answer.name for answer in gallery.identify(seconds)]
        stored = gallery.vectors()
        rows = {stored.names[person]: row for row, person in enumerate(stored.people)}
        halves = Halves(
            np.array(stored.vectors[[rows[clip.source] for clip in firsts]]),
            network.model.embed(clip.silhouettes for clip in seconds).float().numpy(),
        )
    if names != [firsts[row].source for row in distances_of(halves).argmin(axis=1)]:
        raise SystemExit("the gallery gives other names than the distances of the vectors")
    return halves


def distances_of(halves: Halves) -> NDArray[np.float64]:
    """Compute the distances of all second halves to all first halves, `[n, n]`."""
    probe, known = (torch.from_numpy(each).double() for each in (halves.probe, halves.known))
    return part_distances(probe, known).numpy()


def threshold_of(known: NDArray[np.float32], rate: float) -> Threshold | str:
    """Choose the threshold from a gallery with a recording of each person, or say why it cannot be told."""
    try:
        return from_gallery(known, np.arange(len(known)), rate)
    except ValueError as error:
        return str(error)


def closed_set(halves: Halves) -> dict[str, Any]:
    """Search with everybody enrolled."""
    distances = distances_of(halves)
    count = len(distances)
    right = distances.argmin(axis=1) == np.arange(count)
    ranks = (distances < distances.diagonal()[:, None]).sum(axis=1)
    thresholds = []
    for rate in (*RATES, smallest_rate(count)):
        threshold = threshold_of(halves.known, rate)
        if isinstance(threshold, str):
            thresholds.append({"asked": rate, "reason": threshold})
            continue
        named = distances.min(axis=1) <= threshold.distance
        found = {"distance": threshold.distance, "named_right": named & right, "named_wrong": named & ~right}
        counts = {name: int(each.sum()) if isinstance(each, np.ndarray) else each for name, each in found.items()}
        thresholds.append({"asked": rate, **counts, "nobody": int((~named).sum())})
    return {
        "tracks": count,
        "rank_1": int(right.sum()),
        "rank_5": int((ranks < 5).sum()),
        "chance_of_rank_1": 1 / count,
        "thresholds": thresholds,
    }


class Searched(NamedTuple):
    """One division of the tracks: `enrolled` ones, and for every second half, `[n]`, its nearest enrolled track.

    Attributes:
        enrolled: Whether each track is enrolled, bool.
        right: Whether the nearest track is the right one, bool.
        nearest: The distance to it.
        known: First halves of the enrolled tracks.
    """

    enrolled: NDArray[np.bool_]
    right: NDArray[np.bool_]
    nearest: NDArray[np.float64]
    known: NDArray[np.float32]


def open_set(halves: Halves) -> dict[str, Any]:
    """Search with a half of the tracks unknown; shares are means over the divisions."""
    distances, rng = distances_of(halves), np.random.default_rng(SEED)
    count = len(distances)
    searches = []
    for _ in range(DIVISIONS):
        chosen = np.sort(rng.permutation(count)[: count // 2])
        right = chosen[distances[:, chosen].argmin(axis=1)] == np.arange(count)
        enrolled = np.isin(np.arange(count), chosen)
        searches.append(Searched(enrolled, right, distances[:, chosen].min(axis=1), halves.known[chosen]))
    rates = (*RATES, smallest_rate(count // 2))
    strangers = np.concatenate([each.nearest[~each.enrolled] for each in searches])
    return {
        "by_the_gallery": [_by_gallery(searches, rate) for rate in rates],
        "by_the_strangers": [
            {"asked": rate, **_shares(searches, np.full(len(searches), _limit(strangers, rate)))} for rate in RATES
        ],
    }


def _limit(strangers: NDArray[np.float64], rate: float) -> float:
    """The greatest threshold that at most this share of strangers is within."""
    return float(np.nextafter(np.sort(strangers)[int(rate * len(strangers))], -np.inf))


def _by_gallery(searches: Sequence[Searched], rate: float) -> dict[str, Any]:
    """Rates at the thresholds that each gallery tells."""
    thresholds = [threshold_of(each.known, rate) for each in searches]
    reasons = [each for each in thresholds if isinstance(each, str)]
    if reasons:
        return {"asked": rate, "reason": reasons[0]}
    limits = np.array([each.distance for each in thresholds if isinstance(each, Threshold)])
    return {"asked": rate, **_shares(searches, limits)}


def _shares(searches: Sequence[Searched], limits: NDArray[np.float64]) -> dict[str, float]:
    """Shares of strangers and of known people who are named, at one threshold for each division."""
    found = []
    for each, limit in zip(searches, limits, strict=True):
        named, known = each.nearest <= limit, each.enrolled
        outcomes = (named & each.right, named & ~each.right, ~named)
        found.append([named[~known].mean(), *(outcome[known].mean() for outcome in outcomes)])
    names = ("strangers_named", "known_named_right", "known_named_wrong", "known_nobody")
    return dict(zip(names, np.mean(found, axis=0).round(4).tolist(), strict=True))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, help="footage of a camera that stands still")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.json")
    parser.add_argument("--checkpoint", type=Path, help="weights to measure beside those that come along")
    parser.add_argument("--min-frames", type=int, default=30, help="shortest track, in frames (30)")
    options = parser.parse_args()
    tracks = extract(options.video, min_frames=options.min_frames)
    firsts, seconds = split(tracks)
    networks = {"walkers": Network.shipped()}
    if options.checkpoint is not None:
        networks[options.checkpoint.name] = Network.from_checkpoint(options.checkpoint)
    methods = {}
    for name, network in networks.items():
        halves = of_gallery(network, firsts, seconds)
        of_network = {"fingerprint": Fingerprint.of(network)._asdict()}
        methods[name] = {**of_network, "all_enrolled": closed_set(halves), "half_unknown": open_set(halves)}
    image = Halves(energy(firsts), energy(seconds))
    methods["gait-energy image"] = {"all_enrolled": closed_set(image), "half_unknown": open_set(image)}
    result = {
        "video": options.video.name,
        "frames_of_halves": sorted(len(clip.silhouettes) for clip in firsts),
        "fps": tracks[0].fps,
        "divisions": DIVISIONS,
        "seed": SEED,
        "methods": methods,
        "machine": machine.description(),
    }
    options.output.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    for name, found in methods.items():
        _print(name, found)


def _print(name: str, found: dict[str, Any]) -> None:
    closed, unknown = found["all_enrolled"], found["half_unknown"]
    print(f"{name}: rank-1 {closed['rank_1']} of {closed['tracks']} (chance {closed['chance_of_rank_1']:.1%})")
    for title, rows in (
        ("all enrolled, threshold from the gallery", closed["thresholds"]),
        ("half unknown, threshold from the gallery", unknown["by_the_gallery"]),
        ("half unknown, threshold from the strangers", unknown["by_the_strangers"]),
    ):
        print(f"  {title}")
        for row in rows:
            facts = ", ".join(f"{fact.replace('_', ' ')} {value:.4g}" for fact, value in row.items() if fact in _FACTS)
            print(f"    false-accept rate {row['asked']:.1%}: {row.get('reason') or facts}")


_FACTS = (
    *("distance", "named_right", "named_wrong", "nobody"),
    *("strangers_named", "known_named_right", "known_named_wrong", "known_nobody"),
)


if __name__ == "__main__":
    main()
