"""The raster: solids seen by a camera become pixels.

Beyond `Camera.place` only + - * / sqrt and comparisons are used, which every machine rounds alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.walkers.gait import Ball, Bone, Figure, Trunk

Floats = NDArray[np.float64]
Field = NDArray[np.float32]

ROWS, COLUMNS = 64, 96
# The place of the camera in body heights: far enough that a body is drawn nearly without perspective.
CAMERA_DISTANCE, CAMERA_HEIGHT = 4.5, 0.75
# Shapes are rounded to this part of a pixel, so that the last bit of a sine cannot change a picture.
GRID = 4096
# The soft edge is so many pixels wide.
EDGE = 1.4
# The distance of a shape is computed in so many pixels around it.
MARGIN = 4
# The corners of a hem have a radius of so many pixels.
HEM = 1.5
# A pixel that no shape has come near has this distance.
FAR = np.float32(1e3)


def distance_field(figure: Figure, view: float) -> Field:
    """Compute the signed distance of every pixel from the outline.

    The crown is in the first row, the soles are in the last one, and the pelvis is near the middle column.

    Args:
        figure: The solids of a walker.
        view: Direction in degrees; 0 is towards the camera.

    Returns:
        Distances `[T, ROWS, COLUMNS]` in pixels, negative inside: exact near the outline, an approximation elsewhere.
    """
    camera = Camera(figure, view)
    field = np.full((len(figure.heading), ROWS, COLUMNS), FAR, np.float32)
    for bone in figure.bones:
        _draw_bone(field, camera, bone)
    for ball in figure.crown:
        _draw_ball(field, camera, ball)
    for bag in figure.bags:
        _draw_box(field, camera, bag)
    _draw_trunk(field, camera, figure.trunk)
    return field


def coverage(field: Field) -> NDArray[np.uint8]:
    """Compute the soft silhouette, uint8 0 to 255, of a distance field."""
    inside = np.clip(np.float32(0.5) - field / np.float32(EDGE), np.float32(0), np.float32(1))
    return np.asarray(np.floor(inside * np.float32(255) + np.float32(0.5)), np.uint8)


class Camera:
    """A camera that fills the height of the picture with the body in every frame.

    Args:
        figure: The solids of a walker.
        view: Direction in degrees: at 0 the walk goes towards the camera, at 90 to the right.
    """

    def __init__(self, figure: Figure, view: float) -> None:
        self._turn = np.radians(view) + figure.heading
        self._cos, self._sin = np.cos(self._turn), np.sin(self._turn)
        self._lift = -np.min(
            [np.minimum(b.start[2] - b.start_radius, b.end[2] - b.end_radius) for b in figure.soles], 0
        )
        tops = [self._seen(b.centre, b.vertical) for b in figure.crown]
        soles = [
            s for b in figure.soles for s in (self._seen(b.start, b.start_radius), self._seen(b.end, b.end_radius))
        ]
        self._top = np.max([up + radius for _, up, radius in tops], 0)
        bottom = np.min([up - radius for _, up, radius in soles], 0)
        self._scale = ROWS / (self._top - bottom)

    def _seen(self, point: Floats, size: Floats | float) -> tuple[Floats, Floats, Floats]:
        """The place of a point across and up, and the size of what is there, in body heights."""
        x, y, z = point
        magnification = 1 / (1 - (x * self._cos - y * self._sin) / CAMERA_DISTANCE)
        across = (x * self._sin + y * self._cos) * magnification
        up = (z + self._lift - CAMERA_HEIGHT) * magnification
        return across, up, size * magnification

    def place(self, point: Floats, size: Floats | float) -> tuple[Floats, Floats, Floats]:
        """Compute column, row and size in pixels; whole numbers are the centres of pixels."""
        across, up, size = self._seen(point, size)
        column, row = across * self._scale + COLUMNS // 2, (self._top - up) * self._scale - 0.5
        return quantised(column), quantised(row), quantised(size * self._scale)

    def half_width(self, lateral: Floats | float, sagittal: Floats | float, yaw: Floats) -> Floats:
        """Compute the half width of an elliptic section as the camera sees it, in body heights."""
        across, along = lateral * np.cos(self._turn + yaw), sagittal * np.sin(self._turn + yaw)
        return np.asarray(np.sqrt(across * across + along * along))


def quantised(values: Floats) -> Floats:
    """Round to the GRID of a pixel."""
    return np.rint(values * GRID) / GRID


@dataclass(frozen=True)
class _Box:
    """A part of the picture that holds a shape in all frames.

    `pixels` is a view of the distance field `[T, h, w]`; `columns` `[1, 1, w]` and `rows` `[1, h, 1]` are their places.
    """

    pixels: Field
    columns: Field
    rows: Field


def _box(field: Field, left: Floats, right: Floats, top: Floats, bottom: Floats) -> _Box:
    first_column, first_row = max(int(left.min()) - MARGIN, 0), max(int(top.min()) - MARGIN, 0)
    columns = np.arange(first_column, min(int(right.max()) + MARGIN + 1, COLUMNS), dtype=np.float32)
    rows = np.arange(first_row, min(int(bottom.max()) + MARGIN + 1, ROWS), dtype=np.float32)
    pixels = field[:, first_row : first_row + len(rows), first_column : first_column + len(columns)]
    return _Box(pixels, columns[None, None, :], rows[None, :, None])


def _per_frame(values: Floats) -> Field:
    return values.astype(np.float32)[:, None, None]


def _draw_bone(field: Field, camera: Camera, bone: Bone) -> None:
    x0, y0, r0 = camera.place(bone.start, bone.start_radius)
    x1, y1, r1 = camera.place(bone.end, bone.end_radius)
    box = _box(
        field,
        np.minimum(x0 - r0, x1 - r1),
        np.maximum(x0 + r0, x1 + r1),
        np.minimum(y0 - r0, y1 - r1),
        np.maximum(y0 + r0, y1 + r1),
    )
    dx, dy = x1 - x0, y1 - y0
    square = np.maximum(dx * dx + dy * dy, 1 / GRID)
    across, down = box.columns - _per_frame(x0), box.rows - _per_frame(y0)
    along = across * _per_frame(dx / square) + down * _per_frame(dy / square)
    np.clip(along, np.float32(0), np.float32(1), out=along)
    to_x, to_y = across - along * _per_frame(dx), down - along * _per_frame(dy)
    to_x *= to_x
    to_y *= to_y
    to_x += to_y
    np.sqrt(to_x, out=to_x)
    along *= _per_frame(r1 - r0)
    to_x -= along
    to_x -= _per_frame(r0)
    np.minimum(box.pixels, to_x, out=box.pixels)


def _placed_ball(camera: Camera, ball: Ball) -> tuple[Floats, Floats, Floats, Floats]:
    column, row, height = camera.place(ball.centre, ball.vertical)
    width = camera.place(ball.centre, camera.half_width(ball.lateral, ball.sagittal, ball.yaw))[2]
    return column, row, width, height


def _draw_ball(field: Field, camera: Camera, ball: Ball) -> None:
    x, y, a, b = _placed_ball(camera, ball)
    box = _box(field, x - a, x + a, y - b, y + b)
    across, down = (box.columns - _per_frame(x)) / _per_frame(a), (box.rows - _per_frame(y)) / _per_frame(b)
    level = np.sqrt(across * across + down * down)
    across, down = across / _per_frame(a), down / _per_frame(b)
    steepness = np.sqrt(across * across + down * down)
    inner = np.float32(-1) * _per_frame(np.minimum(a, b))
    distance = np.where(steepness > 0, level * (level - 1) / np.maximum(steepness, np.float32(1e-6)), inner)
    np.minimum(box.pixels, distance, out=box.pixels)


def _draw_box(field: Field, camera: Camera, ball: Ball) -> None:
    """Draw a bag, between an ellipse and a rectangle: |x|^4 + |y|^4 = 1 at the edge."""
    x, y, a, b = _placed_ball(camera, ball)
    box = _box(field, x - a, x + a, y - b, y + b)
    across, down = (box.columns - _per_frame(x)) / _per_frame(a), (box.rows - _per_frame(y)) / _per_frame(b)
    across, down = across * across, down * down
    level = np.sqrt(np.sqrt(across * across + down * down))
    np.minimum(box.pixels, (level - 1) * _per_frame(np.minimum(a, b)), out=box.pixels)


def _draw_trunk(field: Field, camera: Camera, trunk: Trunk) -> None:
    width = camera.half_width(trunk.lateral, trunk.sagittal, trunk.yaw)
    column, row, half = camera.place(trunk.centres, width)
    bottom, top = row[0], row[-1]
    box = _box(field, (column - half).min(0), (column + half).max(0), top, bottom)
    level = (bottom[:, None] - box.rows[:, :, 0]) / (bottom - top)[:, None] * (len(row) - 1)
    left, right = _at_levels(column - half, level), _at_levels(column + half, level)
    distance = np.maximum(
        (left[:, :, None] - box.columns) * _across_slope(left), (box.columns - right[:, :, None]) * _across_slope(right)
    )
    distance = _with_round_corners(distance, box.rows - _per_frame(bottom))
    np.maximum(distance, _per_frame(top) - box.rows, out=distance)
    np.minimum(box.pixels, distance, out=box.pixels)


def _with_round_corners(a: Field, b: Field) -> Field:
    """The distance from the intersection of two shapes, with round corners."""
    a, b = a + np.float32(HEM), b + np.float32(HEM)
    inside = np.minimum(np.maximum(a, b), np.float32(0))
    a, b = np.maximum(a, np.float32(0)), np.maximum(b, np.float32(0))
    return np.asarray(inside + np.sqrt(a * a + b * b) - np.float32(HEM))


def _at_levels(edge: Floats, level: Floats) -> Field:
    """Interpolate `edge` `[LEVELS, T]` at fractional levels `[T, h]`."""
    level = np.clip(level, 0, len(edge) - 1)
    lower = np.minimum(np.floor(level).astype(np.intp), len(edge) - 2)
    frames = np.arange(level.shape[0])[:, None]
    below, above = edge[lower, frames], edge[lower + 1, frames]
    return np.asarray(below + (level - lower) * (above - below), np.float32)


def _across_slope(edge: Field) -> Field:
    """The share of a horizontal distance to an edge that counts where the edge `[T, h]` leans: `[T, h, 1]`."""
    lean = np.zeros_like(edge)
    lean[:, 1:-1] = (edge[:, 2:] - edge[:, :-2]) * np.float32(0.5)
    return np.asarray(np.float32(1) / np.sqrt(lean * lean + np.float32(1)))[:, :, None]
