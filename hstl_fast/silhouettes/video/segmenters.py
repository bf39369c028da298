"""Segmenters: which pixels of a frame show people, found by a background model or by a segmentation model."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError, short
from hstl_fast.silhouettes.video.foreground import Background, Foreground, Learnt
from hstl_fast.silhouettes.video.onnx_options import parse_options
from hstl_fast.silhouettes.video.onnx_segmenter import OnnxSegmenter

BACKGROUND = "background"
PREFIX = "onnx:"


class Segmenter(Protocol):
    """Finds the people of a frame. The same frame always gives the same mask.

    Attributes:
        name: What segments: `background`, or `onnx:` with the name of the model's file and its options.
        learns: Whether it has to learn from frames of the footage before the first mask, as a background model does
            (see `BackgroundSegmenter.learn`).
        camera_may_move: Whether masks stay right while the camera moves. People who stand are then found, too, and
            where somebody is in the picture does not tell whether he walks.
    """

    name: str
    learns: bool
    camera_may_move: bool

    def foreground(self, frame: NDArray[np.uint8]) -> Foreground:
        """Compute the foreground of a frame, BGR `[H, W, 3]` uint8: a mask bool `[H, W]`, and the camera's motion."""


class BackgroundSegmenter:
    """Pixels that differ from a background which is learnt from frames of a fixed camera.

    Attributes:
        background: The background that was learnt last, or None before `learn`.
    """

    name = BACKGROUND
    learns = True
    camera_may_move = False

    def __init__(self) -> None:
        self.background: Background | None = None

    def learn(self, learnt: Learnt, min_height: int) -> Background:
        """Learn a background, in place of an earlier one.

        Args:
            learnt: Frames of the footage; its samples are used up.
            min_height: Least height of a body, in pixels.

        Returns:
            The background.
        """
        self.background = Background(learnt, min_height)
        return self.background

    def foreground(self, frame: NDArray[np.uint8]) -> Foreground:
        """Compute the foreground of a frame.

        Args:
            frame: BGR `[H, W, 3]` uint8.

        Returns:
            The pixels that differ from the background, and how the camera had moved.

        Raises:
            RuntimeError: No background has been learnt.
        """
        if self.background is None:
            raise RuntimeError("expected a background that was learnt, got a call of foreground before learn")
        return self.background.foreground(frame)


def open_segmenter(text: str) -> Segmenter:
    """Open a segmenter by its name on the command line.

    Args:
        text: `background`, or `onnx:MODEL.onnx` with options behind a question mark where the file does not say how it
            is used, such as `onnx:MODEL.onnx?mean=0.5&std=0.5` (see `onnx_options`).

    Returns:
        The segmenter; a model is loaded and has been run once.

    Raises:
        SilhouetteError: The text names no segmenter, or the model cannot be used; the sentence says which option is
            missing.
        ImportError: ONNX Runtime is missing; it comes with the extra `[segmenter]`.
    """
    if text == BACKGROUND:
        return BackgroundSegmenter()
    if not text.startswith(PREFIX):
        advice = f"; for a model: {PREFIX}{short(text)}" if text.partition("?")[0].lower().endswith(".onnx") else ""
        raise SilhouetteError(f"segmenter: expected {BACKGROUND} or {PREFIX}MODEL.onnx, got {short(text)!r}{advice}")
    path, question_mark, options = text.removeprefix(PREFIX).rpartition("?")
    if not question_mark or Path(text.removeprefix(PREFIX)).expanduser().is_file():
        path, options = text.removeprefix(PREFIX), ""
    if not path:
        raise SilhouetteError(f"segmenter: expected the file of a model behind {PREFIX}, got nothing")
    return OnnxSegmenter(Path(path).expanduser(), parse_options(options, f"segmenter {Path(path).name}"))
