"""Time that a segmentation model needs per frame, and what is added to it before and after.

    python -m benchmarks.recognition.segmenting SEGMENTER VIDEO [--frames N]

SEGMENTER is that of `hstl-fast silhouettes`, such as `onnx:MODEL.onnx?scale=255`. The steps are timed one after another
on each frame: the model alone (ONNX Runtime on an input that is ready), the segmenter (with resizing, normalising and
the mask in the frame's size), the camera's motion, and the shapes in the mask. The background model beside them is
learnt from the same frames.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.core.interleaving import timed
from hstl_fast.silhouettes.video.blobs import find_blobs
from hstl_fast.silhouettes.video.camera_path import CameraPath
from hstl_fast.silhouettes.video.footage import Footage
from hstl_fast.silhouettes.video.foreground import Background, Learnt
from hstl_fast.silhouettes.video.onnx_segmenter import OnnxSegmenter
from hstl_fast.silhouettes.video.segmenters import open_segmenter

MIN_HEIGHT = 48
WARM_UP = 3


def measure(model: OnnxSegmenter, frames: list[NDArray[np.uint8]]) -> dict[str, float]:
    """Median milliseconds of every step.

    Args:
        model: The model.
        frames: Frames BGR `[H, W, 3]`, more than WARM_UP.

    Returns:
        Milliseconds by step.
    """
    background = Background(Learnt([frame.copy() for frame in frames], []), MIN_HEIGHT)
    path = CameraPath()
    seconds: dict[str, list[float]] = {}
    for number, frame in enumerate(frames):
        ready, mask = model.input_for(frame), model.foreground(frame).mask
        steps = {
            "model alone": partial(model.run, ready),
            "segmenter": partial(model.foreground, frame),
            "camera's motion": partial(path.add, number, frame, mask),
            "shapes": partial(find_blobs, mask, number, MIN_HEIGHT),
            "background model": partial(background.foreground, frame),
        }
        for name, step in steps.items():
            seconds.setdefault(name, []).append(timed(step))
    return {name: 1000 * median(each[WARM_UP:]) for name, each in seconds.items()}


def main() -> None:
    """Print milliseconds per frame."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("segmenter", metavar="SEGMENTER")
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=60)
    options = parser.parse_args()
    model = open_segmenter(options.segmenter)
    if not isinstance(model, OnnxSegmenter):
        parser.error("SEGMENTER: expected onnx:MODEL.onnx")
    shots = islice(Footage(options.video).frames(), options.frames)
    frames = [shot.image for shot in shots if shot.image is not None]
    if len(frames) <= WARM_UP:
        parser.error(f"VIDEO: expected more than {WARM_UP} frames, got {len(frames)}")
    rows, columns = frames[0].shape[:2]
    shape = list(model.input_for(frames[0]).shape)
    print(f"{len(frames)} frames of {rows} x {columns}, input {shape}, {torch.get_num_threads()} threads")
    found = measure(model, frames)
    for name, milliseconds in found.items():
        print(f"{name}: {milliseconds:.2f} ms")
    print(f"added by the segmenter to the model: {found['segmenter'] - found['model alone']:.2f} ms")


if __name__ == "__main__":
    main()
