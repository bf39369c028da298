"""People cut out of footage from a fixed camera, as aligned silhouette sequences."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_folder, refuse_if_fixed
from hstl_fast.silhouettes.align import BODY_THRESHOLD, align
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.io import CONTACT_SHEET, write
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.video.foreground import BackgroundModel, Footage, training_indices
from hstl_fast.silhouettes.video.rejections import PAIR, TOO_SHORT, TORN, Rejections
from hstl_fast.silhouettes.video.sheet import contact_sheet
from hstl_fast.silhouettes.video.tracking import WINDOW, gapless, track_people
from hstl_fast.silhouettes.video.walking import objection, one_head

TRACKS_JSON = "tracks.json"
# Bytes of a video's name that become part of the names of its tracks.
LONGEST_STEM = 200
# Outlines are smoothed on a grid of about this many rows per body before they are aligned.
FINE_ROWS = 256
# The outline is smoothed by a Gaussian of this many pixels of the video.
OUTLINE_SIGMA = 0.8
# Head and trunk lie in this many rows of a silhouette, from the top; a walk changes little in them.
ABOVE_LEGS = 36
# A video is damaged if a smaller share of the frames that its header promises decodes.
MOST_FRAMES = 0.95
# The core of a body is what at least the first share of the frames around it cover; a body that is not torn covers at
# least the second share of its core.
CORE, CORE_COVERAGE = 0.8, 0.9

# A progress function is called as `progress(stage, done, total)`: `stage` is a short English phrase, and `done` runs
# from 0 to `total` within it.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Track:
    """The walk of one person through a video.

    Attributes:
        name: A name such as `street-track01`: the video's name without suffix, and a number in order of appearance.
        frames: Indices `[K]` of the frames in the video.
        boxes: Boxes `[K, 4]` (x, y, width, height) in pixels of the video.
        silhouettes: Aligned silhouettes `[K, 64, 64]` uint8.
    """

    name: str
    frames: NDArray[np.intp]
    boxes: NDArray[np.intp]
    silhouettes: NDArray[np.uint8]


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
        fps: Frames a second of the video, as its header says.
        contact_sheet: The picture that shows all tracks.
        tracks_json: The file that describes all tracks.
        tracks: The tracks, in order of appearance.
    """

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
    min_height: int = 48,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Summary:
    """Cut the people out of a video and write `<track>.npz` for each, `contact_sheet.png` and `tracks.json`.

    Tracks are called `<video>-track01`, `<video>-track02` and so on, so that those of several videos are kept apart.

    The folder is written atomically: a failure or an interruption leaves nothing behind.

    Args:
        video: A file that OpenCV reads, from a camera that stands still.
        out_dir: The folder to write. One that is not empty is refused, unless `overwrite` is set and it holds nothing
            but an earlier output of this function.
        min_frames: Shortest track to keep, in frames, 1 or more.
        min_height: Smallest body to keep, in pixels of the video, 16 or more.
        progress: Called as `progress(stage, done, total)`, or None.
        overwrite: Whether an earlier output may be replaced.

    Returns:
        What was written.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        FileExistsError: Something stands at `out_dir` that may not be replaced.
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`.
    """
    out = Path(out_dir)
    _refuse_if_taken(out, overwrite)
    footage = Footage(video)
    tracks = _extract(footage, min_frames, min_height, progress or _silent)
    with atomic_folder(out) as draft:
        for track in tracks:
            write(draft / f"{track.name}.npz", track.silhouettes)
        _write_png(draft / CONTACT_SHEET, contact_sheet(tracks))
        (draft / TRACKS_JSON).write_text(json.dumps(_description(footage, tracks), indent=1) + "\n", encoding="utf-8")
    saved = [
        SavedTrack(t.name, out / f"{t.name}.npz", len(t.frames), int(t.frames[0]), int(t.frames[-1])) for t in tracks
    ]
    return Summary(footage.path, out, footage.num_frames, footage.fps, out / CONTACT_SHEET, out / TRACKS_JSON, saved)


def extract(
    video: str | os.PathLike[str], *, min_frames: int = 30, min_height: int = 48, progress: Progress | None = None
) -> list[Track]:
    """Cut the people out of a video; nothing is written.

    A background model (Gaussian mixture, learnt over the whole footage) gives moving pixels without shadows; blobs of a
    person's shape are followed by ByteTrack. A track is cut where two people touch and where a person leaves the image;
    frames in which the body is torn or changes size at once are left out, so that `frames` may have gaps of up to 3.
    Tracks of what stays in its place, of what never changes its shape, and of two people side by side are left out.
    The same video gives the same tracks.

    Args:
        video: A file that OpenCV reads, from a camera that stands still.
        min_frames: Shortest track to keep, in frames, 1 or more.
        min_height: Smallest body to keep, in pixels of the video, 16 or more.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        The tracks in order of appearance; one person may give several.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`.
    """
    return _extract(Footage(video), min_frames, min_height, progress or _silent)


def _silent(stage: str, done: int, total: int) -> None:
    """A progress function that reports nothing."""


def _extract(footage: Footage, min_frames: int, min_height: int, progress: Progress) -> list[Track]:
    if min_frames < 1:
        raise ValueError(f"min_frames must be at least 1, got {min_frames}")
    if min_height < 16:
        raise ValueError(f"min_height must be at least 16 pixels, got {min_height}")
    background = _learn_background(footage, progress)
    frames = _reported(footage.frames(), "cutting out people", footage.num_frames, progress)
    rejections = Rejections()
    blobs = [find_blobs(background.mask(frame), t, min_height, rejections) for t, frame in frames]
    runs = track_people(blobs, rejections)
    candidates = [run for run in runs if len(run) >= min_frames]
    rejections.update(TOO_SHORT for run in runs if len(run) < min_frames for _ in run)
    walks = [
        walk
        for run in _reported(candidates, "aligning silhouettes", len(candidates), progress)
        for walk in _walks(run, min_frames, rejections)
    ]
    kept = [walk for walk in walks if len(walk[0]) >= min_frames]
    if not kept:
        longest = max([len(walk[0]) for walk in walks] + [len(run) for run in runs if len(run) < min_frames], default=0)
        raise SilhouetteError(
            f"{footage.path}: no track of {min_frames} frames or more (longest {longest}), "
            f"looking for people {min_height} pixels high or more in {footage.num_frames} frames"
        )
    digits = max(2, len(str(len(kept))))
    return [_track(f"{_stem(footage.path)}-track{i:0{digits}d}", *walk) for i, walk in enumerate(kept, start=1)]


def _stem(video: Path) -> str:
    """The name of a video without its suffix, cut where it is too long for the names of the files to write."""
    return os.fsencode(video.stem)[:LONGEST_STEM].decode(errors="ignore")


def _learn_background(footage: Footage, progress: Progress) -> BackgroundModel:
    wanted = set(training_indices(footage.num_frames, footage.frame_bytes).tolist())
    frames = _reported(footage.frames(wanted), "learning the background", footage.num_frames, progress)
    promised = footage.num_frames
    sample = [frame for _, frame in frames if frame is not None]
    if footage.num_frames < MOST_FRAMES * promised:
        got = f"{footage.num_frames} of {promised} frames decode, the rest is left out"
        warnings.warn(f"{footage.path}: {got}", SilhouetteWarning, stacklevel=2)
    return BackgroundModel(sample)


def _reported(items: Iterable[Any], stage: str, total: int, progress: Progress) -> Iterator[Any]:
    progress(stage, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(stage, done, total)


def _walks(run: list[Blob], min_frames: int, rejections: Rejections) -> list[tuple[list[Blob], NDArray[np.uint8]]]:
    """The walks of a run: blobs with silhouettes, without torn frames, cut where too many frames are missing."""
    silhouettes = np.stack([align(_smooth_outline(b.mask)) for b in run])
    untorn, single = untorn_frames(silhouettes), one_head(silhouettes)
    rejections.update(TORN for _ in np.flatnonzero(~untorn))
    rejections.update(PAIR for _ in np.flatnonzero(untorn & ~single))
    kept = np.flatnonzero(untorn & single)
    walks = []
    for piece in (kept[piece] for piece in gapless([run[i].frame for i in kept])):
        blobs = [run[i] for i in piece]
        long_enough = len(blobs) >= min_frames
        reason = objection(np.array([b.box for b in blobs]), silhouettes[piece]) if long_enough else TOO_SHORT
        rejections.update(reason for _ in blobs if reason)
        if not long_enough or not reason:
            walks.append((blobs, silhouettes[piece]))
    return walks


def untorn_frames(silhouettes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Bool `[T]`: whether head and trunk cover what they cover in nearly all frames around.

    A body behind a post, or in front of its own colour, does not.
    """
    bodies = silhouettes[:, :ABOVE_LEGS] >= BODY_THRESHOLD
    covered = np.empty(len(bodies))
    for t in range(len(bodies)):
        around = bodies[max(0, t - WINDOW // 2) : t + WINDOW // 2 + 1]
        core = around.mean(axis=0) >= CORE
        covered[t] = bodies[t][core].mean() if core.any() else 1.0
    return covered >= CORE_COVERAGE


def _track(name: str, blobs: list[Blob], silhouettes: NDArray[np.uint8]) -> Track:
    frames = np.array([b.frame for b in blobs], dtype=np.intp)
    boxes = np.array([b.box for b in blobs], dtype=np.intp)
    return Track(name, frames, boxes, silhouettes)


def _smooth_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The body on a finer grid, without the stairs of the video's pixels."""
    cv2 = opencv()
    fineness = -(-FINE_ROWS // mask.shape[0])
    soft = cv2.GaussianBlur(np.pad(mask, 4).astype(np.float32), (0, 0), OUTLINE_SIGMA)
    fine = cv2.resize(soft, None, fx=fineness, fy=fineness, interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine > 0.5)


def _refuse_if_taken(out: Path, overwrite: bool) -> None:
    refuse_if_fixed(out)
    if not out.exists():
        return
    if not out.is_dir():
        raise FileExistsError(f"{out}: expected a folder or nothing there, got a file")
    present = {p.name for p in out.iterdir()}
    foreign = sorted(present - _files_of_earlier_output(out))
    if foreign:
        raise FileExistsError(f"{out}: expected an empty folder or an earlier output, got one with {foreign[0]} in it")
    if present and not overwrite:
        raise FileExistsError(
            f"{out}: expected an empty folder, got an earlier output "
            " (to replace it: overwrite=True, or --overwrite on the command line)"
        )


def _files_of_earlier_output(out: Path) -> set[str]:
    try:
        description = json.loads((out / TRACKS_JSON).read_text(encoding="utf-8"))
        return {TRACKS_JSON, CONTACT_SHEET, *(track["file"] for track in description["tracks"])}
    except (OSError, ValueError, LookupError, TypeError):
        return set()


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    ok, data = opencv().imencode(".png", picture)
    if not ok:
        raise RuntimeError(f"{path}: the picture {list(picture.shape)} could not be encoded as PNG")
    path.write_bytes(data.tobytes())


def _description(footage: Footage, tracks: list[Track]) -> dict[str, Any]:
    return {
        "video": footage.path.name,
        "num_frames": footage.num_frames,
        "fps": footage.fps,
        "tracks": [
            {"name": t.name, "file": f"{t.name}.npz", "frames": t.frames.tolist(), "boxes_xywh": t.boxes.tolist()}
            for t in tracks
        ],
    }
