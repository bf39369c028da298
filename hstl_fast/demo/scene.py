"""The gallery and the probes of the demo: rendered walkers, or the people of a video."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes import Progress, Track, extract, walkers

# The published training and most published timings use clips of this length.
RENDERED_FRAMES = 30
SIDE_VIEW, OTHER_VIEW = 90.0, 54.0


class Walk(NamedTuple):
    """One sequence.

    Attributes:
        name: A name whose first component is the person.
        kind: How the sequence differs from the known one of the same person, in words.
        clip: Silhouettes `[T, 64, 64]` uint8.
    """

    name: str
    kind: str
    clip: NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """The sequences of the demo.

    Attributes:
        title: A title such as "6 rendered walkers".
        origin: A sentence on where the sequences come from.
        likeness: A sentence on how the silhouettes differ from those of footage; empty where they do not.
        gallery: The known sequences, one for each person.
        probes: The sequences to identify.
        frame_seconds: How long the report shows one frame.
    """

    title: str
    origin: str
    likeness: str
    gallery: list[Walk]
    probes: list[Walk]
    frame_seconds: float

    @property
    def walks(self) -> list[Walk]:
        """All sequences, the gallery first."""
        return [*self.gallery, *self.probes]

    @property
    def frames(self) -> int:
        """The number of frames of all sequences."""
        return sum(len(walk.clip) for walk in self.walks)


def rendered(people: int, max_frames: int) -> Scene:
    """Render walkers: one known walk each, and four probes that differ from it in one respect each.

    Args:
        people: Number of walkers.
        max_frames: Longest sequence.

    Returns:
        The sequences.
    """
    frames = min(RENDERED_FRAMES, max_frames)

    def walk(person: int, kind: str, condition: str, take: int, view: float) -> Walk:
        name = f"walker{person}/{condition}-{take:02d}/{view:03.0f}"
        return Walk(name, kind, walkers.render(person, view=view, condition=condition, take=take, frames=frames))

    return Scene(
        title=f"{people} rendered walkers",
        origin="The bodies are rendered, each with its own limbs, posture and step; no person was filmed.",
        likeness="Rendered walkers are thinner than people in footage, for whom less can be left out.",
        gallery=[walk(person, "known", "nm", 1, SIDE_VIEW) for person in range(1, people + 1)],
        probes=[
            walk(person, *difference)
            for person in range(1, people + 1)
            for difference in (
                ("another take", "nm", 2, SIDE_VIEW),
                ("another view", "nm", 2, OTHER_VIEW),
                ("with a bag", "bg", 1, SIDE_VIEW),
                ("in a coat", "cl", 1, SIDE_VIEW),
            )
        ],
        frame_seconds=0.04,
    )


def filmed(video: Path, most_people: int, max_frames: int, progress: Progress) -> Scene:
    """Cut the longest tracks out of a video; the first half of each is known, the second half is a probe.

    Args:
        video: The video file.
        most_people: How many tracks to keep.
        max_frames: Longest sequence.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The sequences.

    Raises:
        ValueError: The video cannot be read, or has fewer than two people in it.
    """
    found = extract(video, progress=progress)
    if len(found) < 2:
        raise ValueError(f"{video}: expected two people or more to tell apart, found one")
    kept = _longest(found, most_people)
    halves = [_halves(track.silhouettes, max_frames) for track in kept]
    left_out = "" if len(kept) == len(found) else f", the longest of {len(found)}"
    return Scene(
        title=f"{len(kept)} tracks of {_printable(video.name)}{left_out}",
        origin="Who leaves the image and comes back counts as two people.",
        likeness="",
        gallery=[Walk(f"{t.name}/first-half", "first half", half) for t, (half, _) in zip(kept, halves)],
        probes=[Walk(f"{t.name}/second-half", "second half", half) for t, (_, half) in zip(kept, halves)],
        frame_seconds=0.08,
    )


def _printable(name: str) -> str:
    """A file name with its bytes that are no text as replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _longest(tracks: list[Track], count: int) -> list[Track]:
    longest = sorted(tracks, key=lambda track: -len(track.frames))[:count]
    return sorted(longest, key=lambda track: track.name)


def _halves(silhouettes: NDArray[np.uint8], max_frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    middle = len(silhouettes) // 2
    return silhouettes[:middle][:max_frames], silhouettes[middle:][:max_frames]
