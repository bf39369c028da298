"""The path of a moving camera: where what its frames show lies in one common picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video.blobs import Blob
from hstl_fast.silhouettes.video.camera import FARTHEST, small
from hstl_fast.silhouettes.video.registration import Matrix, Motion, Reference

# Features are looked for no nearer to people than this, in pixels of the reduced picture.
CLEARANCE = 5
# So many features are followed; more cost more time than the model may.
FEATURES = 100


class CameraPath:
    """Measures frame by frame how the camera moves, by features of the background.

    Frames are registered to a reference; another one takes its place where the camera has moved on. Where too few
    features are seen, as before a bare wall, a new stretch begins, whose places cannot be compared with those before.
    """

    def __init__(self) -> None:
        self._reference: Reference | None = None
        self._place = np.eye(3)  # the map of the reference's pixels to the common picture
        self._before: tuple[NDArray[np.uint8], NDArray[np.bool_], Matrix] | None = None
        self._stretch = 0
        self._frames: dict[int, tuple[int, Matrix]] = {}

    def add(self, number: int, image: NDArray[np.uint8], people: NDArray[np.bool_]) -> None:
        """Measure the motion of the next frame.

        Args:
            number: Its number.
            image: BGR `[H, W, 3]` uint8.
            people: Bool `[H, W]`, where people are, who move by themselves.
        """
        picture, background = small(image), _background(people, small(image).shape[:2])
        motion = self._reference.motion_of(picture) if self._reference else None
        if motion is None and self._before is not None:
            before, its_background, self._place = self._before
            self._reference = Reference(before, its_background, FEATURES)
            motion = self._reference.motion_of(picture)
        if motion is None:
            self._stretch += 1
            self._reference, place = Reference(picture, background, FEATURES), np.eye(3)
            self._place = place
        else:
            place = self._place @ np.linalg.inv(_square(motion))
            if motion.shift > FARTHEST * picture.shape[1]:
                self._reference, self._place = Reference(picture, background, FEATURES), place
        self._before = picture, background, place
        self._frames[number] = self._stretch, _enlarged(place, image.shape[1] / picture.shape[1])

    def forget(self, before: int) -> None:
        """Give up what is known about frames before one of this number, as for a stream without end."""
        self._frames = {number: known for number, known in self._frames.items() if number >= before}

    def places(self, bodies: Sequence[Blob]) -> NDArray[np.float64] | None:
        """Compute where bodies are in the common picture.

        Args:
            bodies: Bodies in frames that have been added.

        Returns:
            Boxes `[K, 4]` (x, y, width, height), or None where the frames lie in several stretches.
        """
        stretches = {self._frames[body.frame][0] for body in bodies}
        if len(stretches) != 1:
            return None
        return np.array([_moved(body.box, self._frames[body.frame][1]) for body in bodies])


def _background(people: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    cv2 = opencv()
    reduced = cv2.resize(people.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.dilate(reduced, np.ones((2 * CLEARANCE + 1,) * 2, np.uint8)) == 0)


def _square(motion: Motion) -> Matrix:
    return np.concatenate([motion.matrix, [[0.0, 0.0, 1.0]]])


def _enlarged(place: Matrix, scale: float) -> Matrix:
    """The map of a reduced picture for pixels of the picture itself."""
    enlarged = place.copy()
    enlarged[:2, 2] *= scale
    return enlarged


def _moved(box: tuple[int, int, int, int], place: Matrix) -> tuple[float, float, float, float]:
    x, y, width, height = box
    middle, feet, _ = place @ (x + width / 2, y + height, 1.0)
    scale = float(np.sqrt(abs(np.linalg.det(place[:2, :2]))))
    return middle - scale * width / 2, feet - scale * height, scale * width, scale * height
