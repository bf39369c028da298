"""GREW as its silhouettes are published: `train`, `test/gallery`, `test/probe`, `distractor`.

Names are those that OpenGait gives when it rearranges the data: `00001train/00/<video>` in training, `probe/03/<video>`
for probes, and `00001/01/<video>` and `00001/02/<video>` for the videos of a person in the gallery, numbered in the
order of their names. Distractors, which OpenGait leaves out, become `distractor/00/<video>`, or
`<person>distractor/00/<video>` where they stand in folders of people.
"""

from __future__ import annotations

from collections.abc import Iterator

from hstl_fast.data.layouts.base import Candidate, Layout, Leaf
from hstl_fast.data.layouts.walk import OTHER_FOLDER, Walk
from hstl_fast.silhouettes.folders import is_picture

PERSON, VIDEO = r"\d{5}", r"[A-Za-z0-9]{8}"
PLACES = (
    f"train/{PERSON}/{VIDEO}",
    f"(?:test/)?gallery/{PERSON}/{VIDEO}",
    f"(?:test/)?probe/{VIDEO}",
    f"distractor/(?:{PERSON}/)?{VIDEO}",
)
TRAINING, PROBE, DISTRACTOR = "00", "03", "00"


def _fits(leaf: Leaf) -> bool:
    return leaf.has_pictures and any(leaf.under(place) for place in PLACES)


def _candidates(walk: Walk, pattern: str | None) -> Iterator[Candidate]:
    for name, folder in walk.folders(""):
        if name == "test":
            for part, inner in walk.folders(folder):
                yield from _part(walk, part, inner)
        else:
            yield from _part(walk, name, folder)


def _part(walk: Walk, name: str, folder: str) -> Iterator[Candidate]:
    if name == "train":
        for label, person in walk.folders(folder):
            for video, path in _videos(walk, person):
                yield Candidate(f"{label}train", TRAINING, video, path)
    elif name == "gallery":
        for label, person in walk.folders(folder):
            for number, (video, path) in enumerate(_videos(walk, person), 1):
                yield Candidate(label, f"{number:02d}", video, path)
    elif name == "probe":
        for video, path in _videos(walk, folder):
            yield Candidate("probe", PROBE, video, path)
    elif name == "distractor":
        yield from _distractors(walk, folder)
    else:
        walk.leave_out(folder, OTHER_FOLDER)


def _videos(walk: Walk, folder: str) -> Iterator[tuple[str, str]]:
    for video, path in walk.folders(folder):
        if walk.has_frames(path):
            yield video, path


def _distractors(walk: Walk, folder: str) -> Iterator[Candidate]:
    for name, path in walk.folders(folder):
        inner = walk.entries(path)
        if any(is_picture(entry.name) for entry in inner):
            yield Candidate("distractor", DISTRACTOR, name, path)
            continue
        for entry in inner:
            if not entry.is_folder:
                walk.leave_out_file(entry)
            elif walk.has_frames(entry.path):
                yield Candidate(f"{name}distractor", DISTRACTOR, entry.name, entry.path)


LAYOUT = Layout("grew", "test/gallery/00001/79XJefi8/00001.png", _fits, _candidates)
