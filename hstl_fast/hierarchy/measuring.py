"""Features of strips of the body, measured over a data set that is read one sequence at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.data.errors import DataError
from hstl_fast.data.sequences import Sequences
from hstl_fast.hierarchy import feature_sets
from hstl_fast.hierarchy.feature_sets import FEWEST_FRAMES_FOR_MOTION, Floats
from hstl_fast.hierarchy.network_rows import NetworkRows
from hstl_fast.models import HSTL
from hstl_fast.models.config import COLUMNS, ROWS, SIDE, is_count
from hstl_fast.names import one_of
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.left_out import LeftOut

FEATURES = ("motion", "shape", "coherence", "network")
UNREADABLE = "sequence that cannot be read"
TOO_SHORT = "too few frames with a body"
EMPTY_FRAMES = "frame without a body"
NOT_FINITE = "features that are not finite"


@dataclass(frozen=True, eq=False)
class StripFeatures:
    """Features of the strips of the body, by sequence.

    Attributes:
        name: One of `FEATURES`.
        values: `[N, strips, d]` float32, a matrix for each sequence that was measured.
        labels: The person of each.
        frames: Number of their frames.
        average: Mean silhouette `[64, 44]` of the sequences, 0 to 1.
        left_out: What was left out, with the reason.
    """

    name: str
    values: NDArray[np.float32]
    labels: tuple[str, ...]
    frames: int
    average: Floats
    left_out: tuple[LeftOut, ...] = ()

    @property
    def sequences(self) -> int:
        """The number N of sequences."""
        return len(self.values)

    @property
    def mean(self) -> Floats:
        """The mean over the sequences, `[strips, d]`; each counts alike, whatever its length."""
        found: Floats = self.values.mean(axis=0, dtype=np.float64)
        return found


def strip_features(
    sequences: Sequences,
    features: str = "motion",
    strips: int = 8,
    *,
    model: HSTL | None = None,
    stage: int = 0,
    progress: Progress = silent,
) -> StripFeatures:
    """Measure features of equal strips of the body over a data set.

    Sequences are read one by one; `strips * d` numbers of each are kept. Frames without a body are left out, and so are
    sequences that cannot be read or are too short: 8 frames for "motion" and "coherence", 1 for the others.

    Args:
        sequences: The data set.
        features: What is measured, see docs/hierarchy.md: "motion" (how much a strip moves and how regularly), "shape"
            (its row of the average silhouette), "coherence" (which strips move together) or "network" (whose
            activations are alike).
        strips: Number of strips, a divisor of the 64 rows.
        model: The network for "network", and for no other features.
        stage: Its feature map: 0 for the stem, which knows no regions, 1 and up for a stage, which does.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The features.

    Raises:
        ValueError: An argument does not fit; the message names it.
        DataError: No sequence could be measured; the message says why.
    """
    measure, fewest = _measure(features, strips, model, stage)
    found: list[NDArray[np.float32]] = []
    labels: list[str] = []
    left_out: list[LeftOut] = []
    frames, average = 0, np.zeros((ROWS, COLUMNS))
    for i, item in enumerate(sequences.items):
        try:
            reading = sequences.reading(i)
        except (ValueError, OSError) as error:
            left_out.append(LeftOut(item.name, UNREADABLE, " ".join(str(error).split())))
        else:
            left_out += reading.left_out
            clip = _with_a_body(reading.silhouettes, item.name, left_out)
            if len(clip) < fewest:
                left_out.append(LeftOut(item.name, TOO_SHORT, f"{len(clip)}, expected at least {fewest}"))
            elif not np.isfinite(values := measure(clip)).all():
                left_out.append(LeftOut(item.name, NOT_FINITE))
            else:
                found.append(values.astype(np.float32))
                labels.append(item.label)
                frames += len(clip)
                average += clip.mean(axis=0) / 255
        progress("measuring strips", i + 1, len(sequences))
    if not found:
        raise DataError(f"{sequences.source}: expected sequences to measure strips on, got none; {_reasons(left_out)}")
    return StripFeatures(features, np.stack(found), tuple(labels), frames, average / len(found), tuple(left_out))


def _measure(
    features: str, strips: int, model: HSTL | None, stage: int
) -> tuple[Callable[[NDArray[np.uint8]], Floats], int]:
    """The function that measures a clip `[T, 64, 44]` uint8, and the fewest frames that it takes."""
    one_of(features, FEATURES, "features")
    if not is_count(strips) or strips < 2 or ROWS % strips:
        raise ValueError(f"strips must be at least 2 and a divisor of {ROWS} rows, got {strips!r}")
    if features == "network":
        if model is None:
            raise ValueError("model must be a network to measure the features 'network', got None")
        rows = NetworkRows(model, stage)
        if rows.rows % strips:
            raise ValueError(f"strips must divide the {rows.rows} rows of stage {stage}, got {strips}")
        return lambda clip: rows(clip, strips), 1
    if model is not None:
        raise ValueError(f"model is for the features 'network', got it with {features!r}")
    by_silhouettes = {"motion": feature_sets.motion, "shape": feature_sets.shape, "coherence": feature_sets.coherence}
    measure = by_silhouettes[features]
    return lambda clip: measure(clip, strips), 1 if features == "shape" else FEWEST_FRAMES_FOR_MOTION


def _with_a_body(silhouettes: NDArray[np.uint8], name: str, left_out: list[LeftOut]) -> NDArray[np.uint8]:
    """The columns that the network sees, without frames that are empty there."""
    clip = silhouettes[:, :, SIDE : SIDE + COLUMNS]
    filled = clip.any(axis=(1, 2))
    if not filled.all():
        left_out.append(LeftOut(name, EMPTY_FRAMES, f"{int((~filled).sum())} of {len(clip)}"))
    return clip[filled]


def _reasons(left_out: list[LeftOut]) -> str:
    if not left_out:
        return "the data set is empty"
    last = left_out[-1]
    return f"the last, {last.where}: {last.reason}" + (f" ({last.detail})" if last.detail else "")
