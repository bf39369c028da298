"""People cut out of footage from a fixed camera, as aligned silhouette sequences."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

Progress = Callable[[str, int, int], None]
"""Called as `progress(stage, done, total)`; `stage` is a short English phrase, `done` runs from 0 to `total` within it."""


@dataclass(frozen=True)
class SavedTrack:
    """One person's sequence on disk: `path` is `DIR/<name>.npz`, read it with `hstl_fast.silhouettes.read`."""

    name: str
    path: Path
    num_frames: int
    first_frame: int
    last_frame: int


@dataclass(frozen=True)
class Summary:
    """What `video_to_silhouettes` wrote. `num_frames` and `fps` are the video's."""

    video: Path
    out_dir: Path
    num_frames: int
    fps: float
    contact_sheet: Path
    tracks_json: Path
    tracks: list[SavedTrack] = field(default_factory=list)


def video_to_silhouettes(
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    min_frames: int = 30,
    min_height: int = 32,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Summary:
    """Find the people in `video` (fixed camera) and write `out_dir/<track>.npz`, `contact_sheet.png` and `tracks.json`.

    min_frames: shortest track kept, in frames; min_height: smallest body kept, in pixels of the video.
    Everything is written beside `out_dir` first and renamed into place at the end: a failure or an interruption leaves nothing
    behind. A non-empty `out_dir` is refused, unless `overwrite` is set and it is an earlier output of this function.

    Raises SilhouetteError (a ValueError) when the video cannot be opened or has no frames, and when nobody is found; ValueError for
    other arguments out of range; FileExistsError for an `out_dir` in the way; ImportError naming the extra `[video]` without OpenCV.
    """
    raise NotImplementedError
