"""Data sets on disk: rendered walkers, written out in every published layout.

The masks are those of `hstl_fast.silhouettes.walkers`, which are aligned; they stand in a larger frame where the
published data is not aligned, so that reading gives the same silhouettes back in every layout.
"""

import functools
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import walkers

Silhouettes = NDArray[np.uint8]
PEOPLE, TAKES, VIEWS, FRAMES = (1, 2, 75), ("nm-01", "bg-01"), (0, 90), 5
# Rows and columns of a frame that is not aligned, and where its silhouette stands.
RAW_SHAPE, TOP, LEFT = (128, 88), 40, 11
MODALITIES = (
    *("LiDAR-PCDs", "LiDAR-PCDs_depths", "LiDAR-PCDs_sils", "Camera-Pose", "Camera-Ratios-HW", "Camera-RGB_raw"),
    *("Camera-Sils_aligned", "Camera-Sils_raw"),
)


@functools.cache
def walks() -> dict[tuple[int, str, int], Silhouettes]:
    """Silhouettes `[FRAMES, 64, 64]` by person, take and view."""
    rendered = walkers.recordings(PEOPLE, takes=TAKES, views=VIEWS, frames=FRAMES)
    return {(each.identity, each.take, int(each.view)): each.silhouettes for each in rendered}


def raw(silhouettes: Silhouettes, shape: tuple[int, int] = RAW_SHAPE) -> Silhouettes:
    """The silhouettes in larger frames, which are not aligned."""
    frames = np.zeros((len(silhouettes), *shape), np.uint8)
    frames[:, TOP : TOP + 64, LEFT : LEFT + 64] = silhouettes
    return frames


def crops(silhouettes: Silhouettes) -> list[Silhouettes]:
    """One crop per frame, each of another size, as a detector gives them."""
    return [np.pad(frame, ((2 + t, 3), (t, 1 + 2 * t))) for t, frame in enumerate(silhouettes)]


def write_frames(folder: Path, frames: Iterable[Silhouettes], name: Callable[[int], str]) -> None:
    """Write PNGs, named by a function of the number, from 1."""
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames, 1):
        image.fromarray(frame).save(folder / f"{name(t)}.png")


def write_pickle(file: Path, content: object) -> None:
    """Write a pickle as OpenGait does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content))


def noise() -> Silhouettes:
    """A frame without a person, but with a pixel of noise."""
    frame = np.zeros(RAW_SHAPE, np.uint8)
    frame[3, 5] = 255
    return frame


def write_casia_b(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    """The last frame of each sequence shows nobody."""
    for (person, take, view), silhouettes in walks().items():
        stem = f"{person:03d}-{take}-{view:03d}"
        folder = f"{person:03d}/{take}/{view:03d}"
        frames = [*raw(silhouettes), noise()]
        write_frames(root / folder, frames, lambda t, stem=stem: f"{stem}-{t:03d}")
        yield folder, silhouettes


def write_oumvlp(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    for (person, take, view), silhouettes in walks().items():
        sequence = f"{TAKES.index(take):02d}"
        write_frames(root / f"Silhouette_{view:03d}-{sequence}" / f"{person:05d}", raw(silhouettes), "{:04d}".format)
        yield f"{person:05d}/{sequence}/{view:03d}", silhouettes


def write_grew(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    """Person 1 is in training, 2 in the gallery, 75 the probes and distractors; an average stands beside the frames."""
    for i, ((person, _, _), silhouettes) in enumerate(walks().items()):
        video = f"vIdEo{i:03d}"
        place, name = {
            1: (f"train/{person:05d}", f"{person:05d}train/00"),
            2: (f"test/gallery/{person:05d}", f"{person:05d}/{1 + i % 4:02d}"),
            75: ("test/probe", "probe/03") if i % 2 else ("distractor", "distractor/00"),
        }[person]
        write_frames(root / place / video, raw(silhouettes), "{:05d}".format)
        (root / place / video / "gei.png").write_bytes((root / place / video / "00001.png").read_bytes())
        yield f"{name}/{video}", silhouettes


def write_gait3d(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    """The camera is in the recording's name; the views of a take are its sequences, each frame of another size."""
    for (person, take, view), silhouettes in walks().items():
        name = f"{person:04d}/camid{TAKES.index(take)}_videoid2/seq{VIEWS.index(view)}"
        write_frames(root / "2D_Silhouettes" / name, crops(silhouettes), lambda t: f"human_crop_f{11000 + 7 * t}")
        yield name, silhouettes


def write_sustech1k(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    """Sixteen files of eight modalities, of which the raw and LiDAR's silhouettes are others than the aligned ones."""
    for (person, take, view), silhouettes in walks().items():
        name = f"{person:04d}/{TAKES.index(take):02d}-{take[:2]}/{view:03d}"
        for i, sync in enumerate(("", "sync-")):
            for k, modality in enumerate(MODALITIES):
                file = f"{8 * i + k:02d}-{sync}{view:03d}-{modality}.pkl"
                is_wanted = modality == "Camera-Sils_aligned" and not sync
                write_pickle(root / name / file, silhouettes if is_wanted else silhouettes[:1])
        yield name, silhouettes


def write_opengait(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    for (person, take, view), silhouettes in walks().items():
        name = f"{person:03d}/{take}/{view:03d}"
        write_pickle(root / name / f"{view:03d}.pkl", silhouettes)
        yield name, silhouettes


def write_folders(root: Path) -> Iterator[tuple[str, Silhouettes]]:
    for (person, take, view), silhouettes in walks().items():
        name = f"person{person}/{take}-{view}"
        write_frames(root / name, silhouettes, "{:05d}".format)
        yield name, silhouettes


WRITERS: dict[str, Callable[[Path], Iterator[tuple[str, Silhouettes]]]] = {
    "opengait": write_opengait,
    "casia-b": write_casia_b,
    "oumvlp": write_oumvlp,
    "grew": write_grew,
    "gait3d": write_gait3d,
    "sustech1k": write_sustech1k,
    "folders": write_folders,
}


def write_data_set(layout: str, root: Path) -> dict[str, Silhouettes]:
    """Write the rendered walkers in a layout, and return their silhouettes by the names that they should be given."""
    return dict(WRITERS[layout](root))
