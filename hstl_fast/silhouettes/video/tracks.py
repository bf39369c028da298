"""The tracks of a video: in memory, as files, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.video.stages import Stages


@dataclass(frozen=True, eq=False)
class Track:
    """The walk of one person through a video.

    Attributes:
        name: A name such as `street-track01`: the video's name without suffix, and a number in order of appearance.
        frames: Indices `[K]` of the frames in the video.
        boxes: Boxes `[K, 4]` (x, y, width, height) in pixels of the video.
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8.
        fps: Frames a second of the track, or None where the rate is unknown.
    """

    name: str
    frames: NDArray[np.intp]
    boxes: NDArray[np.intp]
    silhouettes: NDArray[np.uint8]
    fps: float | None = None


@dataclass(frozen=True)
class SavedTrack:
    """The walk of one person as a file.

    Attributes:
        name: The name of the track.
        path: The file `DIR/<name>.npz`, which `hstl_fast.silhouettes.read` reads.
        num_frames: Number of silhouettes in it.
        first_frame: Index of its first frame in the video.
        last_frame: Index of its last frame in the video.
    """

    name: str
    path: Path
    num_frames: int
    first_frame: int
    last_frame: int


@dataclass(frozen=True)
class Summary:
    """The output of `video_to_silhouettes`.

    Attributes:
        video: The video.
        out_dir: The folder that was written.
        num_frames: Number of frames of the video that decode.
        fps: Frames a second of the video, or None if it does not say anything possible.
        contact_sheet: The picture that shows all tracks.
        tracks_json: The file that describes all tracks.
        tracks: The tracks, in order of appearance.
        bad_frames: Number of frames that are black or have no picture; they are in no track.
        stages: Counts of what every stage met and left out, by the names of `Stages`.
    """

    video: Path
    out_dir: Path
    num_frames: int
    fps: float | None
    contact_sheet: Path
    tracks_json: Path
    tracks: list[SavedTrack] = field(default_factory=list)
    bad_frames: int = 0
    stages: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The tracks of a video, and how they came about.

    Attributes:
        video: The video.
        fps: Frames a second of the video, or None if it does not say anything possible.
        track_fps: Frames a second of the tracks, or None.
        tracks: The tracks, in order of appearance.
        stages: Counts of what every stage met and left out.
    """

    video: Path
    fps: float | None
    track_fps: float | None
    tracks: list[Track]
    stages: Stages
