"""Open-set figures on rendered walkers, half of whom are unknown: the shipped network against the gait-energy image.

    python -m benchmarks.recognition.open_set --into benchmarks/results/epyc-zen4-2-cores

The walkers are of a population that the network has not seen (it was trained on another one's). Their numbers are those
of rendered bodies, and say nothing about people. The tables are printed; `--into` gets them as `open-set.md`, with
`open-set.json` and pictures of the curves.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.core import machine
from benchmarks.core.markdown import table
from hstl_fast.data import Sequences
from hstl_fast.demo.training.plan import Plan
from hstl_fast.demo.training.population import Population
from hstl_fast.demo.training.scoring import vectors_of
from hstl_fast.evaluation.error_rates import RATES, Interval
from hstl_fast.evaluation.open_set import OpenSet, open_set
from hstl_fast.evaluation.open_set_pictures import draw_sheet
from hstl_fast.evaluation.search import top
from hstl_fast.files import atomic_file
from hstl_fast.network import Network
from hstl_fast.recognition.thresholds import from_gallery

# The shipped network was trained on the first people of `Plan.population`; these are of another one.
POPULATION = Plan.population + 1
VIEWS = Plan.views
GALLERY = ("nm-01", "nm-02")
PROBES = {"NM": ("nm-05",), "BG": ("bg-01",), "CL": ("cl-01",)}
ALL = "all"
NETWORK, ENERGY = "HSTL, shipped network", "gait-energy image"


_RATES = (
    "setting, probes, method",
    "rank-1",
    *(f"TPIR at FPIR {100 * rate:g} %" for rate in RATES),
    "EER, identification",
    "EER, verification",
)
_THRESHOLDS = (
    *("setting, method", "asked", "false accepts, estimate"),
    *(f"measured, {name}" for name in PROBES),
    "true accepts, estimate",
    *(f"measured, {name}" for name in PROBES),
)


class Setting(NamedTuple):
    """Views that people are enrolled from, and views that probes are seen from."""

    name: str
    title: str
    enrolled: tuple[int, ...]
    seen: tuple[int, ...]


SETTINGS = (
    Setting("same-views", "enrolled from the views that probes are seen from", VIEWS, VIEWS),
    Setting("another-view", "enrolled from 90° only, seen from other views", (90,), tuple(v for v in VIEWS if v != 90)),
)


class Walks(NamedTuple):
    """Embeddings of walks by both methods, and who walks: unknown people have the higher numbers."""

    sequences: Sequences
    vectors: dict[str, NDArray[np.float32]]
    known: int

    def rows(self, enrolled: bool, takes: tuple[str, ...], views: tuple[int, ...]) -> NDArray[np.intp]:
        """The walks of these takes and views: of known people in the gallery, of everybody as probes."""
        items = enumerate(self.sequences.items)
        last = self.known if enrolled else np.inf
        return np.array([i for i, x in items if x.type in takes and int(x.view) in views and int(x.label) <= last])

    @property
    def people(self) -> NDArray[np.int64]:
        """The number of the person of each walk."""
        return np.array([int(label) for label in self.sequences.labels])


def walk(people: int, frames: int) -> Walks:
    """Render and embed a population, half of whom are enrolled."""
    known = people // 2
    every = Population(people, 0, VIEWS, frames, POPULATION)
    probes = [take for takes in PROBES.values() for take in takes]
    rows = [i for i, x in enumerate(every.items) if x.type in probes or (x.type in GALLERY and int(x.label) <= known)]
    chosen = every.subset(rows)
    found = vectors_of(Network.shipped().model, chosen)
    return Walks(chosen, {NETWORK: found.embeddings, ENERGY: found.energy}, known)


def evaluate(walks: Walks, setting: Setting, takes: tuple[str, ...], method: str) -> OpenSet:
    """Evaluate the probes of some takes."""
    gallery, probe = walks.rows(True, GALLERY, setting.enrolled), walks.rows(False, takes, setting.seen)
    vectors, people = walks.vectors[method], walks.people
    return open_set(vectors[probe], vectors[gallery], people[probe], people[gallery])


def chosen_thresholds(walks: Walks, setting: Setting, method: str) -> Iterator[dict[str, Any]]:
    """Choose thresholds from the gallery alone, and count what they do to the probes."""
    rows = walks.rows(True, GALLERY, setting.enrolled)
    vectors, people = walks.vectors[method], walks.people
    walked = [f"{walks.sequences.labels[i]}/{walks.sequences.types[i]}" for i in rows]
    for rate in RATES:
        try:
            threshold = from_gallery(vectors[rows], people[rows], rate, sources=walked)
        except ValueError as error:
            yield {"asked": rate, "refused": str(error)}
            continue
        measured = {}
        for name, takes in PROBES.items():
            probe = walks.rows(False, takes, setting.seen)
            nearest, distances = top(vectors[probe], vectors[rows], 1)
            named, stranger = distances[:, 0] <= threshold.distance, people[probe] > walks.known
            right = named & (people[rows][nearest[:, 0]] == people[probe])
            measured[name] = {"false": float(named[stranger].mean()), "true": float(right[~stranger].mean())}
        yield {**threshold.as_json(), "measured": measured}


def rates_row(found: OpenSet) -> list[str]:
    """The cells of the table of rates."""
    points = [_with_ends(point.true_accept, point.true_accept_interval) for point in found.identification.points]
    equal = [
        _with_ends(rates.equal_error_rate, rates.equal_error_interval)
        for rates in (found.identification, found.verification)
    ]
    return [f"{100 * found.rank1:.1f}", *points, *equal]


def threshold_row(found: dict[str, Any]) -> list[str]:
    """The cells of the table of thresholds."""
    head = f"{found['setting']}, {found['method']}"
    if "refused" in found:
        return [head, f"{100 * found['asked']:g}", "refused", *["-"] * 7]
    measured = found["measured"]
    return [
        head,
        f"{100 * found['asked']:g}",
        _with_ends(found["false_accept_rate"], found["false_accept_interval"]),
        *(f"{100 * measured[name]['false']:.2f}" for name in PROBES),
        _with_ends(found["true_accept_rate"], found["true_accept_interval"]),
        *(f"{100 * measured[name]['true']:.1f}" for name in PROBES),
    ]


def _with_ends(value: float | None, ends: Interval | None) -> str:
    if value is None:
        return "-"
    digits = 2 if value < 0.02 else 1
    text = f"{100 * value:.{digits}f}"
    return text if ends is None else f"{text} ({100 * ends[0]:.{digits}f} to {100 * ends[1]:.{digits}f})"


def _document(found: OpenSet, name: str) -> dict[str, Any]:
    """The result as JSON; curves stay for all probes together only."""
    document = found.document()
    if name != ALL:
        for kind in ("identification", "verification"):
            del document[kind]["curve"]
    return document


def main() -> None:
    """Measure, print tables, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=400, help="walkers, half of whom are enrolled")
    parser.add_argument("--frames", type=int, default=30, help="frames of each walk")
    parser.add_argument("--into", metavar="FOLDER", type=Path, help="folder for open-set.json and pictures")
    options = parser.parse_args()
    walks = walk(options.people, options.frames)
    takes = {ALL: tuple(take for each in PROBES.values() for take in each), **PROBES}
    rows, cells, thresholds, pictures = [], [], [], {}
    for setting in SETTINGS:
        for name, chosen in takes.items():
            results = {method: evaluate(walks, setting, chosen, method) for method in walks.vectors}
            for method, found in results.items():
                rows.append({"setting": setting.name, "probes": name, "method": method, **_document(found, name)})
                cells.append([f"{setting.name}, {name}, {method}", *rates_row(found)])
            if name == ALL:
                pictures[setting.name] = draw_sheet(results, ".svg")
        for method in walks.vectors:
            for found in chosen_thresholds(walks, setting, method):
                thresholds.append({"setting": setting.name, "method": method, **found})
    text = "\n".join([*table(_RATES, cells), "", *table(_THRESHOLDS, list(map(threshold_row, thresholds)))])
    print(text)
    if options.into is None:
        return
    facts = {"people": options.people, "frames": options.frames, "population": POPULATION, "gallery": GALLERY}
    settings = {setting.name: setting._asdict() for setting in SETTINGS}
    content = {"machine": machine.description(), "walkers": {**facts, "probes": PROBES}, "settings": settings}
    document = json.dumps({**content, "rows": rows, "thresholds": thresholds}, indent=1, allow_nan=False)
    files = {"open-set.json": document.encode() + b"\n", "open-set.md": text.encode() + b"\n"}
    files |= {f"open-set-{name}.svg": picture for name, picture in pictures.items()}
    for name, written in files.items():
        with atomic_file(options.into / name) as draft:
            draft.write_bytes(written)


if __name__ == "__main__":
    main()
