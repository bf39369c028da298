"""People cut out of footage, as aligned silhouette sequences."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning
from hstl_fast.silhouettes.video.blobs import Blob, find_blobs
from hstl_fast.silhouettes.video.camera_path import CameraPath
from hstl_fast.silhouettes.video.cleaning import silhouette_of, untorn_frames
from hstl_fast.silhouettes.video.footage import Footage
from hstl_fast.silhouettes.video.foreground import Sampler, training_frames
from hstl_fast.silhouettes.video.output import refuse_if_taken, write_output
from hstl_fast.silhouettes.video.registration import Motion
from hstl_fast.silhouettes.video.rejections import PAIR, TOO_SHORT, TORN, Rejections
from hstl_fast.silhouettes.video.segmenters import BACKGROUND, BackgroundSegmenter, Segmenter, open_segmenter
from hstl_fast.silhouettes.video.stages import Stages, moving_camera
from hstl_fast.silhouettes.video.tracking import gapless, track_people
from hstl_fast.silhouettes.video.tracks import Extraction, Summary, Track
from hstl_fast.silhouettes.video.walking import objection, one_head

# Bytes of a video's name that become part of the names of its tracks.
LONGEST_STEM = 200


def video_to_silhouettes(
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    min_frames: int = 30,
    min_height: int = 48,
    fps: float | None = None,
    segmenter: str | Segmenter = BACKGROUND,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Summary:
    """Cut the people out of a video and write `<track>.npz` for each, `contact_sheet.png` and `tracks.json`.

    Tracks are called `<video>-track01`, `<video>-track02` and so on, so that those of several videos are kept apart.

    The folder is written atomically: a failure or an interruption leaves nothing behind.

    Args:
        video: A file that OpenCV reads; for the segmenter `background` from a camera that stands still.
        out_dir: The folder to write. One that is not empty is refused, unless `overwrite` is set and it holds nothing
            but an earlier output of this function.
        min_frames: Shortest track to keep, in frames, 1 or more.
        min_height: Smallest body to keep, in pixels of the video, 16 or more.
        fps: Frames a second of the tracks: of the frames of the video those nearest in time are taken. None: all.
        segmenter: What finds people: `background`, `onnx:MODEL.onnx` (see `open_segmenter`), or an open segmenter.
        progress: Called as `progress(stage, done, total)`, or None.
        overwrite: Whether an earlier output may be replaced.

    Returns:
        What was written.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough; `fps`
            is above its rate, or its rate is not known; or the segmenter cannot be used.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        FileExistsError: Something stands at `out_dir` that may not be replaced.
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`. Or ONNX Runtime is, which a
            model needs; it comes with the extra `[segmenter]`.
    """
    out = Path(out_dir)
    refuse_if_taken(out, overwrite)
    footage, opened = Footage(video), _opened(segmenter)
    return write_output(out, _extract(footage, opened, min_frames, min_height, fps, progress or silent))


def extract(
    video: str | os.PathLike[str],
    *,
    min_frames: int = 30,
    min_height: int = 48,
    fps: float | None = None,
    segmenter: str | Segmenter = BACKGROUND,
    progress: Progress | None = None,
) -> list[Track]:
    """Cut the people out of a video; nothing is written.

    A background model (Gaussian mixture, learnt over the whole footage) gives moving pixels without shadows, or a
    segmentation model gives the pixels of people; blobs of a person's shape are followed by ByteTrack. A track is cut
    where two people touch and where a person leaves the image; frames in which the body is torn or changes size at once
    are left out, so that `frames` may have gaps of up to 3. Tracks of what stays in its place, of what never changes
    its shape, and of two people side by side are left out.

    Before a learnt background, frames of a camera that trembles are registered first, and their light is brought to
    that of the background. The same video gives the same tracks.

    With a model the camera may move, and people who stand before they walk are in their track from the start. Whether
    somebody leaves his place is then judged after the camera's motion has been taken out, which the background's
    features give; where they are too few, the legs alone tell who walks.

    Args:
        video: A file that OpenCV reads; for the segmenter `background` from a camera that stands still.
        min_frames: Shortest track to keep, in frames, 1 or more.
        min_height: Smallest body to keep, in pixels of the video, 16 or more.
        fps: Frames a second of the tracks: of the frames of the video those nearest in time are taken. None: all.
        segmenter: What finds people: `background`, `onnx:MODEL.onnx` (see `open_segmenter`), or an open segmenter.
        progress: Called as `progress(stage, done, total)`, or None.

    Returns:
        The tracks in order of appearance; one person may give several.

    Raises:
        SilhouetteError: The video cannot be opened, has no frames, or has no track in it that is long enough; `fps`
            is above its rate, or its rate is not known; or the segmenter cannot be used.
        ValueError: An argument is out of range. (SilhouetteError is a ValueError, too.)
        ImportError: OpenCV or the tracker is missing; both come with the extra `[video]`. Or ONNX Runtime is, which a
            model needs; it comes with the extra `[segmenter]`.
    """
    return _extract(Footage(video), _opened(segmenter), min_frames, min_height, fps, progress or silent).tracks


def _opened(segmenter: str | Segmenter) -> Segmenter:
    return open_segmenter(segmenter) if isinstance(segmenter, str) else segmenter


def _extract(
    footage: Footage, segmenter: Segmenter, min_frames: int, min_height: int, fps: float | None, progress: Progress
) -> Extraction:
    if min_frames < 1:
        raise ValueError(f"min_frames must be at least 1, got {min_frames}")
    if min_height < 16:
        raise ValueError(f"min_height must be at least 16 pixels, got {min_height}")
    if fps is not None:
        footage.check_rate(fps)
    if isinstance(segmenter, BackgroundSegmenter):
        _learn_background(footage, segmenter, min_height, progress)
        _warn(footage, segmenter)
    path = CameraPath() if segmenter.camera_may_move else None
    stages, blobs, motions = _find_all(footage, segmenter, path, min_height, progress)
    if not isinstance(segmenter, BackgroundSegmenter):
        _warn(footage, segmenter)  # the number of frames is known only now
    sampled = None if fps is None else set(footage.sampled(fps).tolist())
    runs = track_people(blobs, stages.rejections)
    candidates = [run for run in runs if len(run) >= min_frames]
    stages.rejections.update(TOO_SHORT for run in runs if len(run) < min_frames for _ in run)
    walks = [
        _sampled(walk, sampled, min_frames, stages.rejections)
        for run in _reported(candidates, "aligning silhouettes", len(candidates), progress)
        for walk in _walks(run, min_frames, stages.rejections, path)
    ]
    kept = [walk for walk in walks if len(walk[0]) >= min_frames]
    if not kept:
        longest = max([len(walk[0]) for walk in walks] + [len(run) for run in runs if len(run) < min_frames], default=0)
        raise SilhouetteError(
            f"{footage.path}: no track of {min_frames} frames or more (longest {longest}), "
            f"looking for people {min_height} pixels high or more in {footage.num_frames} frames: {stages.counted()}; "
            f"{stages.advice(_camera_speed(segmenter), min_frames, min_height)}"
        )
    stages.kept = sum(len(walk[0]) for walk in kept)
    digits = max(2, len(str(len(kept))))
    stem = _stem(footage.path)
    rate = fps or footage.fps
    tracks = [
        replace(_track(f"{stem}-track{i:0{digits}d}", *walk, motions), fps=rate) for i, walk in enumerate(kept, start=1)
    ]
    return Extraction(footage.path, footage.fps, rate, tracks, stages)


def _stem(video: Path) -> str:
    """The name of a video without its suffix, cut where it is too long for the names of the files to write."""
    return os.fsencode(video.stem)[:LONGEST_STEM].decode(errors="ignore")


def _learn_background(footage: Footage, segmenter: BackgroundSegmenter, min_height: int, progress: Progress) -> None:
    sampler = Sampler(training_frames(footage.frame_bytes))
    shots = footage.frames(sampler.wants)
    for shot in _reported(shots, "learning the background", footage.promised, progress):
        if shot.image is not None:
            sampler.add(shot.number, shot.image)
    segmenter.learn(sampler.learnt(), min_height)


def _camera_speed(segmenter: Segmenter) -> float:
    """Pixels from frame to frame by which a camera moves that should stand still."""
    if isinstance(segmenter, BackgroundSegmenter) and segmenter.background is not None:
        return segmenter.background.camera.moves
    return 0.0


def _warn(footage: Footage, segmenter: Segmenter) -> None:
    remarks = [footage.disagreement()]
    if footage.sideways:
        remarks.append(
            f"its header asks to turn the pictures by {footage.sideways} degrees, which this OpenCV does not do, so "
            "that people may lie on their side; turn the video first (ffmpeg does when it converts)"
        )
    if _camera_speed(segmenter):
        remarks.append(moving_camera(_camera_speed(segmenter)))
    for remark in remarks:
        if remark is not None:
            warnings.warn(f"{footage.path}: {remark}", SilhouetteWarning, stacklevel=4)


def _find_all(
    footage: Footage, segmenter: Segmenter, path: CameraPath | None, min_height: int, progress: Progress
) -> tuple[Stages, list[list[Blob]], list[Motion | None]]:
    """The blobs of every frame, and how the camera had moved in it."""
    stages = Stages(segmenter=segmenter.name)
    blobs: list[list[Blob]] = []
    motions: list[Motion | None] = []
    for shot in _reported(footage.frames(), "cutting out people", footage.num_frames, progress):
        blobs.append([])
        motions.append(None)
        if shot.image is None:
            continue
        seen = segmenter.foreground(shot.image)
        if path is not None:
            path.add(shot.number, shot.image, seen.mask)
        blobs[-1], motions[-1] = find_blobs(seen.mask, shot.number, min_height), seen.motion
        stages.see(seen.mask, blobs[-1], min_height)
    stages.frames, stages.bad = footage.num_frames, footage.bad_frames
    if isinstance(segmenter, BackgroundSegmenter) and segmenter.background is not None:
        stages.unregistered = segmenter.background.unregistered
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


def _walks(
    run: list[Blob], min_frames: int, rejections: Rejections, path: CameraPath | None = None
) -> list[tuple[list[Blob], NDArray[np.uint8]]]:
    """The walks of a run: blobs with silhouettes, without torn frames, cut where too many frames are missing."""
    silhouettes = np.stack([silhouette_of(b) for b in run])
    untorn, single = untorn_frames(silhouettes), one_head(silhouettes)
    rejections.update(TORN for _ in np.flatnonzero(~untorn))
    rejections.update(PAIR for _ in np.flatnonzero(untorn & ~single))
    kept = np.flatnonzero(untorn & single)
    walks = []
    for piece in (kept[piece] for piece in gapless([run[i].frame for i in kept])):
        blobs = [run[i] for i in piece]
        long_enough = len(blobs) >= min_frames
        reason = _objection(blobs, silhouettes[piece], path) if long_enough else TOO_SHORT
        rejections.update(reason for _ in blobs if reason)
        if not long_enough or not reason:
            walks.append((blobs, silhouettes[piece]))
    return walks


def _objection(blobs: list[Blob], silhouettes: NDArray[np.uint8], path: CameraPath | None) -> str:
    if path is None:
        return objection(np.array([b.box for b in blobs]), silhouettes)
    return objection(path.places(blobs), silhouettes, may_stand=True)


def _track(name: str, blobs: list[Blob], silhouettes: NDArray[np.uint8], motions: list[Motion | None]) -> Track:
    frames = np.array([b.frame for b in blobs], dtype=np.intp)
    boxes = np.array([box_in_frame(b.box, motions[b.frame]) for b in blobs], dtype=np.intp)
    return Track(name, frames, boxes, silhouettes)


def box_in_frame(box: tuple[int, int, int, int], motion: Motion | None) -> tuple[int, int, int, int]:
    """Return where a box (x, y, width, height) of a blob lies in a frame whose camera had moved."""
    if motion is None:
        return box
    x, y, width, height = box
    middle = np.array([x + width / 2, y + height / 2, 1.0])
    right, down = (motion.matrix @ middle - middle[:2]).round().astype(int)
    return x + int(right), y + int(down), width, height
