"""The comparison of live silhouettes with those of whole footage."""

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")

from benchmarks.recognition.live_quality import Seen, compare
from hstl_fast.silhouettes import Track


def test_counts_what_live_recognition_has_too() -> None:
    shape = np.zeros((64, 64), np.uint8)
    shape[:, 20:40] = 255
    half = shape.copy()
    half[:32] = 0
    frames = np.arange(40)
    boxes = np.array([(2 * frame, 0, 20, 60) for frame in frames.tolist()])
    offline = [Track("street-track01", frames, boxes, np.repeat(shape[None], 40, axis=0))]
    live = {
        1: {frame: Seen((2 * frame + 1, 0, 20, 60), shape if frame < 20 else half) for frame in range(30)},
        2: {frame: Seen((300, 0, 20, 60), shape) for frame in range(40)},
    }
    assert compare(offline, live) == ["40", "70", "75.0 %", f"{25 / 30:.3f}", "1", "1"]
    assert compare(offline, {1: {0: live[1][0]}})[2:] == ["2.5 %", "1.000", "1", "0"]
