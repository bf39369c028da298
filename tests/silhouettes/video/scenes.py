"""Rendered footage with known silhouettes: people who walk before a textured wall, seen by a camera with faults.

Frames and true masks follow from the description of the scene alone, so that the same scene gives the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes.walkers import render

Floats = NDArray[np.float32]
# The gain and the offset of the picture's brightness in a frame.
Light = Callable[[int], tuple[float, float]]
# A natural walk at 25 frames a second covers this share of the body's height per frame.
NATURAL_SPEED = 0.027
# Frames of a walker that are rendered before they are repeated forwards and backwards.
RENDERED = 240
# The camera noise repeats pictures of this number, each shifted at random.
NOISE_PICTURES = 4


@dataclass(frozen=True, eq=False)
class Figure:
    """A person or a thing that moves through the picture.

    Attributes:
        shapes: Aligned silhouettes `[T, 64, 64]` uint8, one per frame, repeated forwards and backwards.
        column: Middle of the body in the frame `first`, in pixels.
        row: Row of the feet in the frame `first`.
        height: Height in the frame `first`, in pixels.
        speed: Columns per frame, positive to the right.
        growth: Factor on the height from frame to frame.
        descent: Rows by which the feet move down per pixel of growth.
        first: First frame in which the figure is there.
        last: Last frame in which the figure is there.
        pauses: Pairs (frame, number of frames) in which the figure stands still.
        shadow: Share of the light that the figure takes from the ground beside it, 0 for none.
        seed: Number of the clothes.
        colour: Blue, green and red of the whole body, in place of clothes of several colours.
    """

    shapes: NDArray[np.uint8]
    column: float
    row: float
    height: float
    speed: float = 0.0
    growth: float = 1.0
    descent: float = 0.6
    first: int = 0
    last: int = 10**6
    pauses: tuple[tuple[int, int], ...] = ()
    shadow: float = 0.0
    seed: int = 0
    colour: tuple[float, float, float] | None = None

    def steps(self, frame: int) -> int:
        """Frames walked until `frame`, without pauses."""
        stood = sum(min(max(0, frame - start), length) for start, length in self.pauses)
        return frame - self.first - stood

    def present(self, frame: int) -> bool:
        return self.first <= frame <= self.last

    def place(self, frame: int) -> tuple[float, float, float]:
        """Column of the middle, row of the feet, and height in a frame."""
        steps = self.steps(frame)
        height = self.height * self.growth**steps
        return self.column + self.speed * steps, self.row + self.descent * (height - self.height), height

    def shape(self, frame: int) -> NDArray[np.uint8]:
        count = len(self.shapes)
        turn = self.steps(frame) % max(1, 2 * count - 2)
        return self.shapes[min(turn, 2 * count - 2 - turn)]


def walker(
    column: float,
    row: float,
    height: float = 100.0,
    *,
    identity: int = 0,
    direction: int = 1,
    speed: float | None = None,
    condition: str = "nm",
    first: int = 0,
    last: int = 10**6,
    pauses: tuple[tuple[int, int], ...] = (),
    shadow: float = 0.0,
    colour: tuple[float, float, float] | None = None,
) -> Figure:
    """A person who crosses the picture to the right (`direction=1`) or to the left (-1), `speed` columns a frame."""
    shapes = render(identity, view=90, condition=condition, frames=RENDERED)
    pace = (NATURAL_SPEED * height if speed is None else speed) * direction
    return Figure(
        shapes[:, :, ::direction],
        column,
        row,
        height,
        pace,
        first=first,
        last=last,
        pauses=pauses,
        shadow=shadow,
        seed=identity,
        colour=colour,
    )


def approaching(
    column: float,
    row: float,
    height: float,
    *,
    doubling: float = 60.0,
    speed: float = 0.0,
    identity: int = 0,
    first: int = 0,
    last: int = 10**6,
    shadow: float = 0.0,
) -> Figure:
    """A person who walks towards the camera, whose height doubles in `doubling` frames (away from it: negative)."""
    shapes = render(identity, view=0 if doubling > 0 else 180, frames=RENDERED)
    growth = 2.0 ** (1 / doubling)
    return Figure(shapes, column, row, height, speed, growth, first=first, last=last, shadow=shadow, seed=identity)


def box(
    column: float,
    row: float,
    height: float,
    width: float,
    *,
    speed: float = 0.0,
    first: int = 0,
    last: int = 10**6,
    seed: int = 0,
) -> Figure:
    """A rectangle no wider than high, such as a door (`speed=0`), a box on a belt or a van in the distance."""
    shape = np.zeros((1, 64, 64), np.uint8)
    half = max(1, round(32 * width / height))
    shape[:, :, 32 - half : 32 + half] = 255
    return Figure(shape, column, row, height, speed, first=first, last=last, seed=seed)


@dataclass(frozen=True, eq=False)
class TrueBody:
    """The true silhouette of a figure in a frame.

    Attributes:
        figure: Number of the figure in the scene.
        frame: Index of the frame.
        box: Bounding box (x, y, width, height) of the part inside the picture.
        mask: The mask inside the box, bool `[height, width]`, also where another figure stands in front.
        whole: Whether the body is inside the picture and no other figure stands in front of it or touches it.
    """

    figure: int
    frame: int
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    whole: bool


def steady(frame: int) -> tuple[float, float]:
    return 1.0, 0.0


def switched(at: int, gain: float = 1.25, offset: float = 15.0) -> Light:
    """A light that is switched on in the frame `at`."""
    return lambda frame: (gain, offset) if frame >= at else (1.0, 0.0)


def drifting(first: int, last: int, by: float = 30.0) -> Light:
    """Brightness that grows by `by` from the frame `first` to the frame `last` and stays there."""
    return lambda frame: (1.0, by * min(max(0.0, (frame - first) / (last - first)), 1.0))


@dataclass(frozen=True, eq=False)
class Scene:
    """Figures before a wall, and the faults of the camera.

    Attributes:
        figures: The figures; later ones stand in front.
        num_frames: Number of frames.
        size: Rows and columns of a frame.
        noise: Standard deviation of the sensor's noise.
        light: Gain and offset of the brightness in each frame.
        tremble: Largest shift of the camera, in pixels, at random from frame to frame.
        pan: Columns by which the camera turns to the right per frame.
        grey: Whether the camera sees no colours.
        stripes: Contrast of upright stripes, 8 pixels apart, on the wall.
        seed: Number of the wall, the noise and the tremble.
    """

    figures: Sequence[Figure]
    num_frames: int
    size: tuple[int, int] = (240, 320)
    noise: float = 2.0
    light: Light = field(default=steady)
    tremble: float = 0.0
    pan: float = 0.0
    grey: bool = False
    stripes: float = 0.0
    seed: int = 0

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames, BGR `[H, W, 3]` uint8."""
        rng = np.random.default_rng([self.seed, 2])
        grain = rng.normal(0, self.noise, (NOISE_PICTURES, *self.size, 3)).astype(np.float32)
        still = None if self.tremble or self.pan else self._backdrop(0)
        for t in range(self.num_frames):
            image = (self._backdrop(t) if still is None else still).copy()
            for figure in self.figures:
                if figure.present(t):
                    self._draw(image, figure, t)
            gain, offset = self.light(t)
            shift = tuple(rng.integers(0, self.size))
            image = image * np.float32(gain) + np.float32(offset)
            if self.grey:
                image[:] = image.mean(axis=2, keepdims=True)
            image += np.roll(grain[t % NOISE_PICTURES, :, :, : 1 if self.grey else 3], shift, axis=(0, 1))
            yield image.clip(0, 255).astype(np.uint8)

    @cached_property
    def bodies(self) -> list[list[TrueBody]]:
        """The true bodies of every frame: those of which anything is inside the picture."""
        return [self._bodies(t) for t in range(self.num_frames)]

    def masks(self) -> Iterator[NDArray[np.bool_]]:
        """Yield perfect foreground, bool `[H, W]`: the union of the true masks of each frame."""
        for bodies in self.bodies:
            mask = np.zeros(self.size, bool)
            for body in bodies:
                x, y, width, height = body.box
                mask[y : y + height, x : x + width] |= body.mask
            yield mask

    @cached_property
    def _wall(self) -> Floats:
        """A texture `[H + margins, W, 3]` that repeats itself to the right without a seam."""
        rng = np.random.default_rng([self.seed, 1])
        rows, columns = self.size[0] + 2 * self._margin, max(self.size[1], 512) + 2 * self._margin
        wall = np.full((rows, columns, 3), (120.0, 135.0, 145.0), np.float32)
        for scale, contrast in ((0.8, 16.0), (4.0, 18.0), (24.0, 22.0)):
            grain = rng.standard_normal((rows, columns, 1)) + 0.25 * rng.standard_normal((rows, columns, 3))
            patch = _blurred(grain, scale)
            wall += contrast * patch / patch.std()
        wall += np.float32(self.stripes) * np.where(np.arange(columns) // 4 % 2, 1, -1).astype(np.float32)[:, None]
        return wall.clip(40, 225)

    @property
    def _margin(self) -> int:
        return int(np.ceil(self.tremble)) + 1

    @cached_property
    def _shifts(self) -> NDArray[np.float64]:
        """Shifts (down, right) `[num_frames, 2]` of the picture."""
        return np.random.default_rng([self.seed, 3]).uniform(-self.tremble, self.tremble, (self.num_frames, 2))

    def _backdrop(self, t: int) -> Floats:
        down, right = self._shifts[t]
        top, left = self._margin - down, self._margin - right + self.pan * t
        (row, row_part), (column, column_part) = np.divmod(top, 1), np.divmod(left, 1)
        columns = (np.arange(self.size[1] + 1) + int(column)) % self._wall.shape[1]
        part = self._wall[int(row) : int(row) + self.size[0] + 1][:, columns]
        part = part[:-1] * np.float32(1 - row_part) + part[1:] * np.float32(row_part)
        return np.asarray(part[:, :-1] * np.float32(1 - column_part) + part[:, 1:] * np.float32(column_part))

    def _place(self, figure: Figure, t: int) -> tuple[float, float, float]:
        column, row, height = figure.place(t)
        down, right = self._shifts[t]
        return column + right - self.pan * t, row + down, height

    def _draw(self, image: Floats, figure: Figure, t: int) -> None:
        column, row, height = self._place(figure, t)
        shape = figure.shape(t)
        if figure.shadow:
            flat = _sample(shape[::-1], (row - 0.04 * height, 0.22 * height), (column, height), self.size, shear=1.2)
            _blend(image, _softened(flat), 1 - np.float32(figure.shadow))
        cover = _sample(shape, (row - height, height), (column, height), self.size)
        _blend(image, cover, _clothes(figure.seed, figure.colour)(cover, row, column, height))

    def _bodies(self, t: int) -> list[TrueBody]:
        seen = np.zeros(self.size, bool)
        bodies: list[TrueBody] = []
        for number in reversed(range(len(self.figures))):
            figure = self.figures[number]
            if not figure.present(t):
                continue
            column, row, height = self._place(figure, t)
            cover = _sample(figure.shape(t), (row - height, height), (column, height), self.size)
            mask = _whole_picture(cover, self.size) >= 0.5
            if not mask.any():
                continue
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            y, x, bottom, right = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
            inside = y > 0 and x > 0 and bottom < self.size[0] and right < self.size[1]
            apart = not (_grown(mask) & seen).any()
            cropped = mask[y:bottom, x:right].copy()
            bodies.append(
                TrueBody(number, t, (int(x), int(y), int(right - x), int(bottom - y)), cropped, bool(inside and apart))
            )
            if not apart:
                bodies = [b if not _touch(b, mask) else _unwhole(b) for b in bodies]
            seen |= mask
        return bodies[::-1]


def _touch(body: TrueBody, mask: NDArray[np.bool_]) -> bool:
    x, y, width, height = body.box
    return bool((_grown(mask)[y : y + height, x : x + width] & body.mask).any())


def _unwhole(body: TrueBody) -> TrueBody:
    return TrueBody(body.figure, body.frame, body.box, body.mask, whole=False)


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask with its eight neighbours."""
    padded = np.pad(mask, 1)
    tall = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(tall[:, :-2] | tall[:, 1:-1] | tall[:, 2:])


@dataclass(frozen=True, eq=False)
class _Cover:
    """The share 0..1 of each pixel that a shape covers, `[h, w]`, at (top, left) of the picture."""

    top: int
    left: int
    share: Floats


def _sample(
    shape: NDArray[np.uint8],
    rows: tuple[float, float],
    columns: tuple[float, float],
    size: tuple[int, int],
    shear: float = 0.0,
) -> _Cover:
    """A shape `[64, 64]` scaled into the rows (top, height) and columns (middle, width of 64 columns) of a picture."""
    top, height = rows
    middle, width = columns
    y0, y1 = max(0, int(np.floor(top)) - 1), min(size[0], int(np.ceil(top + height)) + 1)
    reach = width / 2 + abs(shear) * height
    x0, x1 = max(0, int(np.floor(middle - reach)) - 1), min(size[1], int(np.ceil(middle + reach)) + 1)
    if y1 <= y0 or x1 <= x0:
        return _Cover(0, 0, np.zeros((0, 0), np.float32))
    y = (np.arange(y0, y1) + 0.5 - top) * 64 / height - 0.5
    x = (np.arange(x0, x1) + 0.5 - middle) * 64 / width + 31.5 + 0.5
    down, across = _taps(y, 64 / height), _taps(x, 64 / width)
    share = down @ (shape.astype(np.float32) / 255) @ across.T
    if shear:
        lean = np.rint(shear * np.arange(len(share))).astype(int)
        share = np.stack([np.roll(line, -k) for line, k in zip(share, lean - lean[len(lean) // 8], strict=True)])
    sharpness = max(1.0, min(width, height) / 64)
    return _Cover(y0, x0, ((share - 0.5) * np.float32(sharpness) + 0.5).clip(0, 1))


def _taps(places: NDArray[np.float64], step: float) -> Floats:
    """Weights `[len(places), 64]` of a triangle filter as wide as a pixel of the picture, or of the shape if wider."""
    reach = max(1.0, step)
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(64)) / reach)
    return (weights / reach).astype(np.float32)


def _softened(cover: _Cover) -> _Cover:
    if cover.share.size == 0:
        return cover
    soft = _blurred(np.pad(cover.share, 2)[:, :, None], 1.0)[2:-2, 2:-2, 0]
    return _Cover(cover.top, cover.left, soft.clip(0, 1))


def _whole_picture(cover: _Cover, size: tuple[int, int]) -> Floats:
    picture = np.zeros(size, np.float32)
    height, width = cover.share.shape
    picture[cover.top : cover.top + height, cover.left : cover.left + width] = cover.share
    return picture


def _blend(image: Floats, cover: _Cover, paint: Floats | np.float32) -> None:
    """Lay colours `[h, w, 3]` over the picture, or darken it by a factor."""
    height, width = cover.share.shape
    window = image[cover.top : cover.top + height, cover.left : cover.left + width]
    share = cover.share[:, :, None]
    colour = window * paint if isinstance(paint, np.floating) else paint
    window[:] = window * (1 - share) + colour * share


def _clothes(seed: int, colour: tuple[float, float, float] | None) -> Callable[[_Cover, float, float, float], Floats]:
    """Colours of hair, face, jacket, trousers and shoes, or one for all, with folds that move with the body."""
    rng = np.random.default_rng([seed, 4])
    bright = rng.random() < 0.3
    jacket = rng.uniform(0, 70, 3) + (170 if bright else 0)
    trousers, shoes = rng.uniform(0, 60, 3), rng.uniform(0, 40, 3)
    colours = np.array([[25, 25, 35], [100, 130, 190], jacket, trousers, shoes], np.float32)
    if colour is not None:
        colours[:] = colour
    ends = np.array([0.05, 0.13, 0.52, 0.95])
    folds = _blurred(rng.standard_normal((64, 64, 1)), 2.0)
    folds *= 6 / folds.std()

    def paint(cover: _Cover, row: float, column: float, height: float) -> Floats:
        down, across = cover.share.shape
        y = ((np.arange(down) + cover.top + 0.5 - row + height) / height).clip(0, 0.999)
        x = ((np.arange(across) + cover.left + 0.5 - column) / height + 0.5) % 1
        dyed = colours[np.searchsorted(ends, y)][:, None]
        return np.asarray(dyed + folds[(64 * y).astype(int)][:, (64 * x).astype(int)], np.float32)

    return paint


def _blurred(image: NDArray[np.floating], sigma: float) -> Floats:
    """A Gaussian blur `[H, W, C]` that wraps around, by the Fourier transform."""
    filters = [np.exp(-2 * (np.pi * sigma * np.fft.fftfreq(n)) ** 2) for n in image.shape[:2]]
    spectrum = np.fft.fft2(image, axes=(0, 1)) * filters[0][:, None, None] * filters[1][None, :, None]
    return np.fft.ifft2(spectrum, axes=(0, 1)).real.astype(np.float32)


def write(path: Path, scene: Scene, fps: float = 25.0, codec: str = "FFV1") -> Path:
    """Write the frames of a scene as a video; the default codec is lossless."""
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, scene.size[::-1])
    assert writer.isOpened()
    for frame in scene.frames():
        writer.write(frame)
    writer.release()
    return path
