"""The contact sheet, which shows at a glance what was cut out of a video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv

SAMPLES = 16
CELL = 66
LABEL_WIDTH = 150
# Characters of a name that a label has room for; of a longer one the end is shown.
LABEL_LENGTH = 17
BACKGROUND, LINE, TEXT = 24, 70, 235


class _Labelled(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def silhouettes(self) -> NDArray[np.uint8]: ...


def contact_sheet(tracks: Sequence[_Labelled]) -> NDArray[np.uint8]:
    """Draw one row per track: its name, its number of frames and 16 evenly spread silhouettes.

    Args:
        tracks: Objects with `name` and `silhouettes` `[T, 64, 64]` uint8, such as `Track`.

    Returns:
        A grey picture `[66 * len(tracks), 1206]` uint8.

    Raises:
        ValueError: There is no track.
        ImportError: OpenCV is missing; it comes with the extra `[video]`.
    """
    if not tracks:
        raise ValueError("tracks: expected at least one track, got none")
    return np.vstack([_row(track) for track in tracks])


def _row(track: _Labelled) -> NDArray[np.uint8]:
    picked = np.linspace(0, len(track.silhouettes) - 1, SAMPLES).round().astype(np.intp)
    cells = [np.pad(track.silhouettes[t], 1, constant_values=LINE) for t in picked]
    name = track.name if len(track.name) <= LABEL_LENGTH else ".." + track.name[2 - LABEL_LENGTH :]
    return np.hstack([_label(name, f"{len(track.silhouettes)} frames"), *cells])


def _label(*lines: str) -> NDArray[np.uint8]:
    cv2 = opencv()
    label = np.full((CELL, LABEL_WIDTH), BACKGROUND, np.uint8)
    for i, line in enumerate(lines):
        cv2.putText(label, line, (8, 28 + 20 * i), cv2.FONT_HERSHEY_SIMPLEX, 0.5, TEXT, 1, cv2.LINE_AA)
    return label
