"""The folder that holds the tracks of a video."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.files import atomic_folder, refuse_if_fixed
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.io import CONTACT_SHEET
from hstl_fast.silhouettes.video.sheet import contact_sheet
from hstl_fast.silhouettes.video.tracks import Extraction, SavedTrack, Summary, Track

TRACKS_JSON = "tracks.json"


def refuse_if_taken(out: Path, overwrite: bool) -> None:
    """Raise FileExistsError where the folder `out` may not be written."""
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
            "(to replace it: overwrite=True, or --overwrite on the command line)"
        )


def write_output(out: Path, found: Extraction) -> Summary:
    """Write the tracks, the contact sheet and their description to a folder, atomically.

    Args:
        out: The folder.
        found: What was cut out of the video.

    Returns:
        What was written.
    """
    tracks, fps = found.tracks, math.nan if found.track_fps is None else found.track_fps
    with atomic_folder(out) as draft:
        for track in tracks:
            np.savez_compressed(draft / f"{track.name}.npz", silhouettes=track.silhouettes, fps=np.float64(fps))
        _write_png(draft / CONTACT_SHEET, contact_sheet(tracks))
        (draft / TRACKS_JSON).write_text(json.dumps(_description(found), indent=1) + "\n", encoding="utf-8")
    saved = [_saved(out, track) for track in tracks]
    return Summary(
        found.video,
        out,
        found.stages.frames,
        found.fps,
        out / CONTACT_SHEET,
        out / TRACKS_JSON,
        saved,
        found.stages.bad,
        found.stages.description(),
    )


def _saved(out: Path, track: Track) -> SavedTrack:
    first, last = int(track.frames[0]), int(track.frames[-1])
    return SavedTrack(track.name, out / f"{track.name}.npz", len(track.frames), first, last)


class Saved(NamedTuple):
    """Name, frames `[K]` and boxes `[K, 4]` of a track that was written, as in `Track`."""

    name: str
    frames: NDArray[np.intp]
    boxes: NDArray[np.intp]


def saved_tracks(folder: Path) -> dict[str, Saved]:
    """Read where in their video the tracks of a folder are.

    Args:
        folder: Any folder.

    Returns:
        The tracks by the names of their files; none where `write_output` did not write the folder.
    """
    try:
        description = json.loads((folder / TRACKS_JSON).read_text(encoding="utf-8"))
        return {
            track["file"]: Saved(
                track["name"],
                np.array(track["frames"], np.intp).reshape(-1),
                np.array(track["boxes_xywh"], np.intp).reshape(-1, 4),
            )
            for track in description["tracks"]
            if track["frames"] and re.search(r"track\d+$", track["name"])
        }
    except (OSError, ValueError, LookupError, TypeError):
        return {}


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


def _description(found: Extraction) -> dict[str, Any]:
    return {
        "video": found.video.name,
        "num_frames": found.stages.frames,
        "bad_frames": found.stages.bad,
        "fps": found.fps,
        "track_fps": found.track_fps,
        "stages": found.stages.description(),
        "tracks": [
            {"name": t.name, "file": f"{t.name}.npz", "frames": t.frames.tolist(), "boxes_xywh": t.boxes.tolist()}
            for t in found.tracks
        ],
    }
