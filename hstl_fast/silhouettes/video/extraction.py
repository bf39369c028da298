"""People cut out of footage from a fixed camera, as aligned silhouette sequences."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.align import BODY_THRESHOLD, align
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.video.footage import Footage
from hstl_fast.silhouettes.video.foreground import Background, Sampler, training_frames
from hstl_fast.silhouettes.video.output import refuse_if_taken, write_output
from hstl_fast.silhouettes.video.registration import Motion
from hstl_fast.silhouettes.video.rejections import PAIR, TOO_SHORT, TORN, Rejections
from hstl_fast.silhouettes.video.stages import Stages, moving_camera
from hstl_fast.silhouettes.video.tracking import WINDOW, gapless, track_people
from hstl_fast.silhouettes.video.tracks import Extraction, Summary, Track
from hstl_fast.silhouettes.video.walking import objection, one_head

# Bytes of a video's name that become part of the names of its tracks.
LONGEST_STEM = 200
# Outlines are smoothed on a grid of about this many rows per body before they are aligned.
FINE_ROWS = 256
# The outline is smoothed by a Gaussian of this many pixels of the video.
OUTLINE_SIGMA = 0.8
# Head and trunk lie in this many rows of a silhouette, from the top; a walk changes little in them.
ABOVE_LEGS = 36
# The core of a body is what at least the first share of the frames around it cover; a body that is not torn covers at
# least the second share of its core.
CORE, CORE_COVERAGE = 0.8, 0.9


def video_to_silhouettes(
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    min_frames: int = 30,
    min_height: int = 48,
    fps: float | None = None,
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
        fps: Frames a second of the tracks: of the frames of the video those nearest in time are taken. None: all.
        progress: Called as `progress(stage, done, total)`, or None.
        overwrite: Whether an earlier output may be replaced.

    Returns:
        What was written.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough; or `fps`
            is above its rate, or its rate is not known.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        FileExistsError: Something stands at `out_dir` that may not be replaced.
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`.
    """
    out = Path(out_dir)
    refuse_if_taken(out, overwrite)
    return write_output(out, _extract(Footage(video), min_frames, min_height, fps, progress or silent))


def extract(
    video: str | os.PathLike[str],
    *,
    min_frames: int = 30,
    min_height: int = 48,
    fps: float | None = None,
    progress: Progress | None = None,
) -> list[Track]:
    """Cut the people out of a video; nothing is written.

    A background model (Gaussian mixture, learnt over the whole footage) gives moving pixels without shadows; blobs of a
    person's shape are followed by ByteTrack. A track is cut where two people touch and where a person leaves the image;
    frames in which the body is torn or changes size at once are left out, so that `frames` may have gaps of up to 3.
    Tracks of what stays in its place, of what never changes its shape, and of two people side by side are left out.
    Frames of a camera that trembles are registered first, and their light is brought to that of the background. The
    same video gives the same tracks.

    Args:
        video: A file that OpenCV reads, from a camera that stands still.
        min_frames: Shortest track to keep, in frames, 1 or more.
        min_height: Smallest body to keep, in pixels of the video, 16 or more.
        fps: Frames a second of the tracks: of the frames of the video those nearest in time are taken. None: all.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        The tracks in order of appearance; one person may give several.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough; or `fps`
            is above its rate, or its rate is not known.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`.
    """
    return _extract(Footage(video), min_frames, min_height, fps, progress or silent).tracks


def _extract(footage: Footage, min_frames: int, min_height: int, fps: float | None, progress: Progress) -> Extraction:
    if min_frames < 1:
        raise ValueError(f"min_frames must be at least 1, got {min_frames}")
    if min_height < 16:
        raise ValueError(f"min_height must be at least 16 pixels, got {min_height}")
    background = _learn_background(footage, min_height, progress)
    sampled = None if fps is None else set(footage.sampled(fps).tolist())
    stages, blobs, motions = _find_all(footage, background, min_height, progress)
    runs = track_people(blobs, stages.rejections)
    candidates = [run for run in runs if len(run) >= min_frames]
    stages.rejections.update(TOO_SHORT for run in runs if len(run) < min_frames for _ in run)
    walks = [
        _sampled(walk, sampled, min_frames, stages.rejections)
        for run in _reported(candidates, "aligning silhouettes", len(candidates), progress)
        for walk in _walks(run, min_frames, stages.rejections)
    ]
    kept = [walk for walk in walks if len(walk[0]) >= min_frames]
    if not kept:
        longest = max([len(walk[0]) for walk in walks] + [len(run) for run in runs if len(run) < min_frames], default=0)
        raise SilhouetteError(
            f"{footage.path}: no track of {min_frames} frames or more (longest {longest}), "
            f"looking for people {min_height} pixels high or more in {footage.num_frames} frames: {stages.counted()}; "
            f"{stages.advice(background.camera.moves, min_frames, min_height)}"
        )
    stages.kept = sum(len(walk[0]) for walk in kept)
    digits = max(2, len(str(len(kept))))
    stem = _stem(footage.path)
    tracks = [_track(f"{stem}-track{i:0{digits}d}", *walk, motions) for i, walk in enumerate(kept, start=1)]
    return Extraction(footage.path, footage.fps, fps or footage.fps, tracks, stages)


def _stem(video: Path) -> str:
    """The name of a video without its suffix, cut where it is too long for the names of the files to write."""
    return os.fsencode(video.stem)[:LONGEST_STEM].decode(errors="ignore")


def _learn_background(footage: Footage, min_height: int, progress: Progress) -> Background:
    sampler = Sampler(training_frames(footage.frame_bytes))
    shots = footage.frames(sampler.wants)
    for shot in _reported(shots, "learning the background", footage.promised, progress):
        if shot.image is not None:
            sampler.add(shot.number, shot.image)
    background = Background(sampler.learnt(), min_height)
    remarks = [footage.disagreement()]
    if footage.sideways:
        remarks.append(
            f"its header asks to turn the pictures by {footage.sideways} degrees, which this OpenCV does not do, so "
            "that people may lie on their side; turn the video first (ffmpeg does when it converts)"
        )
    if background.camera.moves:
        remarks.append(moving_camera(background.camera.moves))
    for remark in remarks:
        if remark is not None:
            warnings.warn(f"{footage.path}: {remark}", SilhouetteWarning, stacklevel=4)
    return background


def _find_all(
    footage: Footage, background: Background, min_height: int, progress: Progress
) -> tuple[Stages, list[list[Blob]], list[Motion | None]]:
    """The blobs of every frame, and how the camera had moved in it."""
    stages = Stages()
    blobs: list[list[Blob]] = []
    motions: list[Motion | None] = []
    for shot in _reported(footage.frames(), "cutting out people", footage.num_frames, progress):
        blobs.append([])
        motions.append(None)
        if shot.image is None:
            continue
        seen = background.foreground(shot.image)
        blobs[-1], motions[-1] = find_blobs(seen.mask, shot.number, min_height), seen.motion
        stages.see(seen.mask, blobs[-1], min_height)
    stages.frames, stages.bad, stages.unregistered = footage.num_frames, footage.bad_frames, background.unregistered
    if stages.bad:
        warnings.warn(
            f"{footage.path}: {stages.bad} of {stages.frames} frames are black or have no picture, and are left out",
            SilhouetteWarning,
            stacklevel=4,
        )
    return stages, blobs, motions


def _sampled(
    walk: tuple[list[Blob], NDArray[np.uint8]], sampled: set[int] | None, min_frames: int, rejections: Rejections
) -> tuple[list[Blob], NDArray[np.uint8]]:
    """The part of a walk that lies in the frames to take."""
    if sampled is None:
        return walk
    bodies, silhouettes = walk
    taken = [i for i, body in enumerate(bodies) if body.frame in sampled]
    if len(taken) < min_frames <= len(bodies):
        rejections[TOO_SHORT] += len(taken)
    return [bodies[i] for i in taken], silhouettes[taken]


def _reported(items: Iterable[Any], stage: str, total: int, progress: Progress) -> Iterator[Any]:
    """Report the progress through items of which about `total` are expected."""
    progress(stage, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(stage, done, max(done, total))


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


def _track(name: str, blobs: list[Blob], silhouettes: NDArray[np.uint8], motions: list[Motion | None]) -> Track:
    frames = np.array([b.frame for b in blobs], dtype=np.intp)
    boxes = np.array([_box_in_frame(b, motions[b.frame]) for b in blobs], dtype=np.intp)
    return Track(name, frames, boxes, silhouettes)


def _box_in_frame(blob: Blob, motion: Motion | None) -> tuple[int, int, int, int]:
    if motion is None:
        return blob.box
    x, y, width, height = blob.box
    middle = np.array([x + width / 2, y + height / 2, 1.0])
    right, down = (motion.matrix @ middle - middle[:2]).round().astype(int)
    return x + int(right), y + int(down), width, height


def _smooth_outline(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The body on a finer grid, without the stairs of the video's pixels."""
    cv2 = opencv()
    fineness = -(-FINE_ROWS // mask.shape[0])
    soft = cv2.GaussianBlur(np.pad(mask, 4).astype(np.float32), (0, 0), OUTLINE_SIGMA)
    fine = cv2.resize(soft, None, fx=fineness, fy=fineness, interpolation=cv2.INTER_CUBIC)
    return np.asarray(fine > 0.5)
