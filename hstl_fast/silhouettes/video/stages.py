"""Counts of what every stage of the extraction lost, and advice for when nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob

# A frame is flooded when more than this share of it is foreground: no background was found for it.
FLOODED = 0.5
# Shapes lower than the least height are counted from this share of it and from this many pixels on, where they are no
# wider than high.
LOW_SHARE, LOWEST = 0.25, 12
# Low shapes are looked for on every so many pixels.
COARSE = 2
# Reasons that hold for all footage count from this share of the frames on.
MANY = 0.3


@dataclass
class Stages:
    """Counts of what the stages of an extraction met and lost.

    Attributes:
        frames: Frames that decode.
        bad: Frames that are black or have no picture.
        unregistered: Frames of a trembling camera whose motion could not be measured.
        flooded: Frames more than half of which is foreground.
        moving: Frames with foreground in them.
        too_low: Moving shapes lower than the least height, and no wider than high.
        highest_low: Height of the highest of them, in pixels.
        shapes: Moving shapes that are high enough.
        no_body: Those that have no body's shape.
        at_border: Those of a body's shape that touch the border of the picture.
        bodies: The others.
        untracked: Bodies that no track holds: where people touch or hide each other, of odd size, of things.
        runs: Tracks before any was cut or left out.
        short: Frames of those that were too short.
        longest: Frames of the longest one.
        torn: Frames in which the body was torn.
        short_walks: Frames of tracks that were too short without torn frames or at the rate asked for.
        kept: Frames of the tracks that were kept.
    """

    frames: int = 0
    bad: int = 0
    unregistered: int = 0
    flooded: int = 0
    moving: int = 0
    too_low: int = 0
    highest_low: int = 0
    shapes: int = 0
    no_body: int = 0
    at_border: int = 0
    bodies: int = 0
    untracked: int = 0
    runs: int = 0
    short: int = 0
    longest: int = 0
    torn: int = 0
    short_walks: int = 0
    kept: int = 0

    def see(self, mask: NDArray[np.bool_], blobs: Sequence[Blob], min_height: int) -> None:
        """Count a frame.

        Args:
            mask: Its foreground, bool `[H, W]`.
            blobs: The blobs found in it.
            min_height: Least height of a body.
        """
        coarse = np.ascontiguousarray(mask[::COARSE, ::COARSE])
        self.flooded += bool(coarse.mean() > FLOODED)
        self.moving += bool(coarse.any())
        self._count_low(coarse, min_height)
        self.shapes += len(blobs)
        self.no_body += sum(not b.looks_like_a_body for b in blobs)
        self.at_border += sum(b.looks_like_a_body and b.touches_border for b in blobs)
        self.bodies += sum(b.looks_like_a_body and not b.touches_border for b in blobs)

    def _count_low(self, coarse: NDArray[np.bool_], min_height: int) -> None:
        cv2 = opencv()
        _, _, stats, _ = cv2.connectedComponentsWithStats(coarse.astype(np.uint8), connectivity=8)
        heights, widths = COARSE * stats[1:, cv2.CC_STAT_HEIGHT], COARSE * stats[1:, cv2.CC_STAT_WIDTH]
        low = heights[(heights >= max(LOWEST, LOW_SHARE * min_height)) & (heights < min_height) & (heights >= widths)]
        self.too_low += len(low)
        self.highest_low = max(self.highest_low, int(low.max(initial=0)))

    def follow(self, runs: Sequence[Sequence[Blob]], min_frames: int) -> None:
        """Count what tracking made of the bodies."""
        lengths = [len(run) for run in runs]
        self.untracked = self.bodies - sum(lengths)
        self.runs, self.longest = len(runs), max(lengths, default=0)
        self.short = sum(length for length in lengths if length < min_frames)

    def counted(self) -> str:
        """State the counts in a phrase."""
        parts = [f"{self.moving} of {self.frames} frames show something that moves"]
        lost = [
            (self.too_low, "are too low"),
            (self.no_body, "have no body's shape"),
            (self.at_border, "touch the border of the picture"),
        ]
        told = ", ".join(f"{count} {how}" for count, how in lost if count)
        total = self.shapes + self.too_low
        if total:
            parts.append(f"of {total} moving shapes {told or 'none is left out'}")
        if self.bodies:
            lost = [
                (self.untracked, "are in no track (people touch or hide each other, change size, or do not walk)"),
                (self.short, "are in tracks that are too short"),
                (self.torn, "are torn"),
                (self.short_walks, "are in tracks that became too short"),
            ]
            told = ", ".join(f"{count} {how}" for count, how in lost if count)
            parts.append(f"of {self.bodies} bodies {told or 'none is left out'}")
        return "; ".join(parts)

    def advice(self, moves: float, min_frames: int, min_height: int) -> str:
        """Name the stage that lost most and what to try.

        Args:
            moves: Pixels from frame to frame by which the camera moves, 0 for a fixed one.
            min_frames: The shortest track that was asked for.
            min_height: The lowest body that was asked for.

        Returns:
            A phrase.
        """
        if moves:
            return moving_camera(moves)
        if self.flooded >= MANY * self.frames:
            return (
                f"in {self.flooded} frames more than half of the picture differs from the background, as with a moving "
                "camera or lights that keep changing; try a part of the video in which both are steady"
            )
        losses = {
            "low": self.too_low,
            "shape": self.no_body,
            "border": self.at_border,
            "track": self.untracked,
            "short": self.short + self.short_walks,
            "torn": self.torn,
        }
        worst = max(losses, key=lambda name: losses[name])
        if not losses[worst]:
            return "nothing moves that could be a person; is anybody in the video, and does he move?"
        tries = {
            "low": f"the highest shape that was too low has {self.highest_low} pixels; try min_height="
            f"{max(16, 3 * self.highest_low // 4)} (--min-height on the command line; {min_height} was used)",
            "shape": "most shapes are wider or thinner than a person or torn, as in groups, behind things, or in "
            "clothes of the background's colour; try footage of people who walk apart",
            "border": "most bodies touch the border of the picture; try footage that shows people from head to foot",
            "track": "most bodies were followed for a moment only, since people touch or hide each other, change size "
            "or stand; try footage of people who walk apart",
            "short": f"try a smaller min_frames (--min-frames on the command line; {min_frames} was used)",
            "torn": "most bodies are torn, by posts or clothes of the background's colour; try another background",
        }
        return tries[worst]


def moving_camera(moves: float) -> str:
    """Say that the camera moves, and by how many pixels from frame to frame."""
    return (
        f"the camera moves: about {moves:.1f} pixels from frame to frame; only people before a background that stands "
        "still can be cut out, so film from a fixed camera or stabilise the video first"
    )
