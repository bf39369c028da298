"""Counts of what every stage of the extraction lost, and advice for when nothing is left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.rejections import (
    AT_THE_BORDER,
    MOTIONLESS,
    NO_BODY,
    PAIR,
    RIGID,
    TOO_SHORT,
    TOO_SMALL,
    TORN,
    TOUCHING,
    UNSTEADY,
    Rejections,
)

# A frame is flooded when more than this share of it is foreground: no background was found for it.
FLOODED = 0.5
# Shapes lower than the least height are counted from this share of it and from this many pixels on, where they are no
# wider than high.
LOW_SHARE, LOWEST = 0.25, 12
# Low shapes are looked for on every so many pixels.
COARSE = 2
# Flooded frames explain an empty result from this share of the frames on.
MANY = 0.3
# The least height that is advised is this share of the highest shape that was too low, and no less than the least.
ADVISED_SHARE, LEAST_HEIGHT = 0.75, 16
# Advice by the reason for which most bodies were left out.
ADVICE = {
    AT_THE_BORDER: "try footage that shows people from head to foot inside the picture",
    NO_BODY: "groups, things and people behind others are no standing person; try footage of people who walk apart, "
    "before a background of another colour than their clothes",
    TOUCHING: "try footage of people who walk apart",
    PAIR: "try footage of people who walk apart",
    UNSTEADY: "try footage of people who walk apart, before a background of another colour than their clothes",
    TORN: "try footage without posts between camera and people, before a background of another colour than their "
    "clothes",
    MOTIONLESS: "only people who walk are cut out",
    RIGID: "only people who walk are cut out",
}
# The same for people found by a model, for which no background has to stand out.
MODEL_ADVICE = {
    **ADVICE,
    NO_BODY: "groups and people behind others are no standing person; try footage of people who walk apart, and look "
    "whether the model takes other things for people",
    UNSTEADY: "try footage of people who walk apart, or a model with finer outlines",
    TORN: "try footage without posts between camera and people, or a model with finer outlines",
}
BACKGROUND = "background"


@dataclass
class Stages:
    """Counts of what the stages of an extraction met and lost.

    Attributes:
        frames: Frames that decode.
        bad: Frames that are black or have no picture.
        unregistered: Frames of a trembling camera whose motion could not be measured.
        flooded: Frames more than half of which is foreground.
        moving: Frames with foreground in them.
        shapes: Moving shapes that are high enough, one for each frame.
        highest_low: Height of the highest moving shape that is too low, in pixels.
        kept: Frames of the tracks that were kept.
        segmenter: What found the foreground, as `Segmenter.name` has it.
        rejections: Shapes that were left out, by reason, one for each frame.
    """

    frames: int = 0
    bad: int = 0
    unregistered: int = 0
    flooded: int = 0
    moving: int = 0
    shapes: int = 0
    highest_low: int = 0
    kept: int = 0
    segmenter: str = BACKGROUND
    rejections: Rejections = field(default_factory=Rejections)

    def see(self, mask: NDArray[np.bool_], blobs: Sequence[Blob], min_height: int) -> None:
        """Count a frame.

        Args:
            mask: Its foreground, bool `[H, W]`.
            blobs: The blobs found in it.
            min_height: Least height of a body.
        """
        cv2 = opencv()
        coarse = np.ascontiguousarray(mask[::COARSE, ::COARSE])
        self.flooded += bool(coarse.mean() > FLOODED)
        self.moving += bool(coarse.any())
        self.shapes += len(blobs)
        _, _, stats, _ = cv2.connectedComponentsWithStats(coarse.astype(np.uint8), connectivity=8)
        heights, widths = COARSE * stats[1:, cv2.CC_STAT_HEIGHT], COARSE * stats[1:, cv2.CC_STAT_WIDTH]
        low = heights[(heights >= max(LOWEST, LOW_SHARE * min_height)) & (heights < min_height) & (heights >= widths)]
        self.rejections[TOO_SMALL] += len(low)
        self.highest_low = max(self.highest_low, int(low.max(initial=0)))

    def description(self) -> dict[str, Any]:
        """Return the counts by name, as JSON holds them."""
        counts = {name: value for name, value in vars(self).items() if name != "rejections"}
        return {**counts, "left_out": {reason: n for reason, n in self.rejections.most_common() if n}}

    def counted(self) -> str:
        """State the counts in a phrase."""
        left_out = [f"{count} {reason}" for reason, count in self.rejections.most_common() if count]
        learnt = self.segmenter == BACKGROUND
        kind, seen = ("moving ", "something that moves") if learnt else ("", f"what {self.segmenter} takes for people")
        shapes = f"; of {self.shapes + self.rejections[TOO_SMALL]} {kind}shapes in them " if left_out else ""
        return f"{self.moving} of them show {seen}{shapes}{', '.join(left_out)}"

    def advice(self, moves: float, min_frames: int, min_height: int) -> str:
        """Say what to try against the loss that was largest.

        Args:
            moves: Pixels from frame to frame by which the camera moves, 0 for a fixed one.
            min_frames: The shortest track that was asked for.
            min_height: The lowest body that was asked for.

        Returns:
            A phrase.
        """
        if moves:
            return moving_camera(moves)
        learnt = self.segmenter == BACKGROUND
        if self.flooded >= MANY * self.frames:
            if not learnt:
                return (
                    f"in {self.flooded} frames {self.segmenter} takes more than half of the picture for people; look "
                    "whether its options class, scale, mean, std and rgb are those it was trained with"
                )
            return (
                f"in {self.flooded} frames more than half of the picture differs from the background, as with a moving "
                "camera or lights that keep changing; try a part of the video in which both are steady"
            )
        (reason, count) = max(self.rejections.items(), key=lambda item: item[1], default=("", 0))
        if not count and not learnt:
            return (
                f"{self.segmenter} finds nobody; is anybody in the video, and are the options class, scale, mean, std "
                "and rgb those it was trained with?"
            )
        if not count:
            return "nothing moves that could be a person; is anybody in the video, and does he walk?"
        if reason == TOO_SMALL:
            lower = max(LEAST_HEIGHT, int(ADVISED_SHARE * self.highest_low))
            return (
                f"the highest shape that was too low has {self.highest_low} pixels; try min_height={lower} "
                f"(--min-height {lower} on the command line; {min_height} was used)"
            )
        if reason == TOO_SHORT:
            return f"try a smaller min_frames (--min-frames on the command line; {min_frames} was used)"
        return (ADVICE if learnt else MODEL_ADVICE)[reason]


def moving_camera(moves: float) -> str:
    """Say that the camera moves, and by how many pixels from frame to frame."""
    return (
        f"the camera moves: about {moves:.1f} pixels from frame to frame; only people before a background that stands "
        "still can be cut out, so film from a fixed camera, stabilise the video first, or use a segmentation model "
        "(--segmenter onnx:MODEL.onnx on the command line)"
    )
