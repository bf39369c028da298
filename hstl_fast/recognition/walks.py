"""Walks of people, ready to be enrolled or named: cut out of videos, or read from silhouettes."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.opening import open_together
from hstl_fast.data.sequences import Sequences
from hstl_fast.progress import Progress, silent
from hstl_fast.recognition.names import clean_source
from hstl_fast.recognition.records import Clip
from hstl_fast.silhouettes.collecting import CUT
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.folders import VIDEO_SUFFIXES
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.silhouettes.rates import stored_rate
from hstl_fast.silhouettes.video.extraction import extract
from hstl_fast.silhouettes.video.output import Saved, saved_tracks
from hstl_fast.silhouettes.video.segmenters import BACKGROUND, Segmenter, open_segmenter
from hstl_fast.silhouettes.video.tracks import Track

# A walk of fewer frames shows less than a cycle of the gait at 25 frames a second.
FEWEST_FRAMES = 30
# Tracks that a sentence describes.
_DESCRIBED = 6
# What videos begin with: AVI, Matroska and WebM, MP4 and QuickTime, MPEG, Windows Media.
_VIDEO_BYTES = re.compile(
    rb"RIFF.{4}AVI |\x1a\x45\xdf\xa3|.{4}ftyp|.{4}moov|\x00\x00\x01[\xba\xb3]|\x30\x26\xb2\x75", re.DOTALL
)


@dataclass(frozen=True)
class Cutting:
    """How people are cut out of videos, and which walks are long enough.

    Attributes:
        min_frames: The fewest frames of a walk, also of one that is read from silhouettes.
        min_height: The smallest body to cut out, in pixels of the video.
        fps: Frames a second of the tracks of a video, as in `extract`; None: all.
        segmenter: The name of what finds people in a video, as in `open_segmenter`.
    """

    min_frames: int = FEWEST_FRAMES
    min_height: int = 48
    fps: float | None = None
    segmenter: str = BACKGROUND


class Walk(NamedTuple):
    """The walk of one person, and where in a video it was cut out.

    Attributes:
        clip: The walk; its source is the path of the video's file without folders and the number of the track, such as
            `door.mp4-track01`, or the name of the sequence in its data set, with `?` for what cannot be printed.
        video: The video, or the folder that `hstl-fast silhouettes` wrote; None for other silhouettes.
        track: The track of the video; None for other silhouettes.
    """

    clip: Clip
    video: Path | None = None
    track: Track | None = None


@dataclass
class Walks:
    """The walks in some files and folders, read one after another; what cannot be used does not stop the others.

    Attributes:
        paths: Videos, and silhouettes as `open_together` takes them.
        cutting: How people are cut out of videos, and the fewest frames of a walk.
        max_frames: The first so many frames of a walk are used; None: all.
        progress: Called as `progress(stage, done, total)`.
        opened: Opens the silhouettes among the paths as one data set.
        failures: A sentence for each path or walk that cannot be used, of those that have been read.
        left_out: What was left out of the walks that have been read.

    Raises:
        ValueError: There is no path, or `max_frames` is below the fewest frames of a walk.
    """

    paths: Sequence[Path]
    cutting: Cutting = Cutting()
    max_frames: int | None = None
    progress: Progress = silent
    opened: Callable[[list[Path]], Sequences] = open_together
    failures: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ValueError("paths: expected at least one video, file or folder, got none")
        if self.max_frames is not None and self.max_frames < self.cutting.min_frames:
            raise ValueError(
                f"max_frames must be at least min_frames, {self.cutting.min_frames}; got {self.max_frames} "
                "(--max-frames and --min-frames on the command line)"
            )
        # A path that is given twice counts once.
        once = list({os.path.realpath(path): path for path in reversed(self.paths)}.values())[::-1]
        self._videos = [path for path in once if is_video(path)]
        data = [path for path in once if path not in self._videos]
        self._folders: dict[Path, dict[str, Saved]] = {}
        self._segmenter: Segmenter | None = None
        if self._videos and self.cutting.segmenter != BACKGROUND:
            self._segmenter = open_segmenter(self.cutting.segmenter)  # a model is loaded once for all videos
        # What cannot be opened is said before a long video is read.
        self._sequences = self.opened(data) if data else None

    def __iter__(self) -> Iterator[Walk]:
        """Yield the walks, those of videos first; `failures` and `left_out` grow meanwhile."""
        repeated = Counter(path.name for path in self._videos)
        for path in self._videos:
            yield from self._of_video(path, str(path) if repeated[path.name] > 1 else path.name)
        if self._sequences is not None:
            yield from self._of_data(self._sequences)

    @property
    def sequences(self) -> Sequences | None:
        """The silhouettes among the paths as a data set, or None where all are videos."""
        return self._sequences

    def _of_video(self, path: Path, name: str) -> Iterator[Walk]:
        cutting = self.cutting
        try:
            tracks = extract(
                path,
                min_frames=cutting.min_frames,
                min_height=cutting.min_height,
                fps=cutting.fps,
                segmenter=self._segmenter or cutting.segmenter,
                progress=self.progress,
            )
        except SilhouetteError as error:
            self.failures.append(" ".join(str(error).split()))
            return
        for track in tracks:
            source = clean_source(f"{name}-{track.name.rpartition('-')[2]}")
            yield Walk(Clip(source, self._cut(source, track.silhouettes), track.fps), path, track)

    def _of_data(self, sequences: Sequences) -> Iterator[Walk]:
        for row, item in enumerate(sequences.items):
            try:
                silhouettes, left_out = sequences.reading(row)
            except (ValueError, OSError, ImportError) as error:
                sentence = " ".join(str(error).split())
                self.failures.append(sentence if item.name in sentence else f"{item.name}: {sentence}")
                continue
            self.left_out += left_out
            if len(silhouettes) < self.cutting.min_frames:
                self.failures.append(too_few(item.name, len(silhouettes), self.cutting.min_frames))
            else:
                path, source = sequences.path(row), clean_source(item.name)
                clip = Clip(source, self._cut(source, silhouettes), _rate(path))
                yield Walk(clip, *self._track(path, clip))
            self.progress("reading silhouettes", row + 1, len(sequences))

    def _track(self, path: str | None, clip: Clip) -> tuple[Path | None, Track | None]:
        """The folder of tracks that a file of silhouettes belongs to, and its track there."""
        if path is None:
            return None, None
        folder = Path(path).parent
        if folder not in self._folders:
            self._folders[folder] = saved_tracks(folder)
        saved = self._folders[folder].get(Path(path).name)
        return (None, None) if saved is None else (folder, Track(*saved, clip.silhouettes, clip.fps))

    def _cut(self, source: str, silhouettes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.max_frames is None or len(silhouettes) <= self.max_frames:
            return silhouettes
        self.left_out.append(LeftOut(source, CUT, f"{self.max_frames} of {len(silhouettes)} frames are used"))
        return silhouettes[: self.max_frames]


def _rate(path: str | None) -> float | None:
    rate = stored_rate(path)
    return rate if rate > 0 else None


def is_video(path: Path) -> bool:
    """Tell a video from silhouettes, by the suffix of its name or by the first bytes of the file.

    Args:
        path: Any path.

    Returns:
        Whether it is a file that is called or begins like a video.
    """
    if not path.is_file():
        return False
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return True
    with path.open("rb") as file:
        return _VIDEO_BYTES.match(file.read(16)) is not None


def number_of(track: Track) -> int:
    """Return the number of a track in its video, from 1 in order of appearance."""
    return int(track.name.rpartition("track")[2])


def overlapping(tracks: Sequence[Track]) -> list[Track]:
    """Find the tracks of a video that cannot all be one person, since they show somebody at the same time.

    Args:
        tracks: Tracks of one video.

    Returns:
        Those whose time, from their first frame to their last, overlaps with that of another.
    """
    spans = [(int(track.frames[0]), int(track.frames[-1])) for track in tracks]
    return [
        track
        for i, (track, (first, last)) in enumerate(zip(tracks, spans, strict=True))
        if any(first <= end and start <= last for j, (start, end) in enumerate(spans) if j != i)
    ]


def described(track: Track) -> str:
    """Say where a track is in its video: its number, its frames, and its box in the middle of them."""
    middle = len(track.frames) // 2
    x, y, width, height = track.boxes[middle].tolist()
    return (
        f"track {number_of(track)} in the frames {track.frames[0]} to {track.frames[-1]}, in frame "
        f"{track.frames[middle]} a box of {width} x {height} pixels at ({x}, {y})"
    )


def _listed(tracks: Sequence[Track]) -> str:
    more = len(tracks) - _DESCRIBED
    return "; ".join(map(described, tracks[:_DESCRIBED])) + (f"; and {more} more" if more > 0 else "")


def chosen(walks: Iterable[Walk], numbers: Sequence[int] | None) -> list[Walk]:
    """Choose the walks of one person among those of one video.

    Args:
        walks: The walks of a video.
        numbers: Numbers of the tracks to take; None: all, which then may not overlap in time.

    Returns:
        The walks that were chosen.

    Raises:
        ValueError: Tracks overlap in time and so show several people, or a number is none of a track; the message names
            the tracks with their frames and boxes.
    """
    walks = list(walks)
    tracks = [walk.track for walk in walks if walk.track is not None]
    if numbers is not None:
        missing = sorted(set(numbers) - {number_of(track) for track in tracks})
        if missing:
            raise ValueError(
                f"{walks[0].video}: no track {missing[0]} (--track) among its {len(tracks)}: {_listed(tracks)}"
            )
        return [walk for walk in walks if walk.track is not None and number_of(walk.track) in numbers]
    if several := overlapping(tracks):
        raise ValueError(
            f"{walks[0].video}: expected one person, got {len(several)} tracks that overlap in time, which are not one "
            f"person: {_listed(several)}; say which with --track NUMBER, once for each of the "
            "person's tracks (--contact-sheet FILE.png shows them, --track all takes all)"
        )
    return walks


def too_few(source: str, frames: int, needed: int) -> str:
    """Say that a walk is too short."""
    return (
        f"{source}: expected a walk of at least {needed} frames, got {frames} that can be used (min_frames; "
        "--min-frames on the command line)"
    )
