"""Light: how the brightness of a frame differs from a reference's, and the frame as the reference's light shows it.

Everything is measured on a coarse grid of cells, robustly, so that people in the picture do not count.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.extras import opencv

Floats = NDArray[np.float32]
# Columns and rows of the coarse grid.
CELLS = (64, 48)
# Values outside these are clipped by the camera and say nothing.
DARKEST, BRIGHTEST = 4.0, 250.0
# The light differs where the medians of at least this share of the parts of the picture (so many in each
# direction) are off by so many grey levels, and the light that is fitted puts as many cells off by as much.
PARTS, CHANGED_SHARE, CHANGED = 4, 1 / 3, 2.0
# Rounds of the robust fit; a cell counts up to so many robust standard deviations, which are at least so many levels.
ROUNDS, OUTLIER, LEAST_DEVIATION = 5, 4.0, 0.7
# A polynomial over the picture is drawn to a constant by this weight, relative to the number of cells.
STIFFNESS = 1e-3
# At least this share of the cells is left for a fit.
FITTED_SHARE = 0.1
# A cell agrees with the reference within this many grey levels.
AGREEMENT = 10.0
# 1 at the values of a pixel that the camera may have clipped.
_CLIPPED = np.array([not DARKEST < value < BRIGHTEST for value in range(256)], np.uint8)


@dataclass(frozen=True, eq=False)
class Light:
    """The light of a frame relative to a reference.

    Attributes:
        gain: Factors `[48, 64, 3]`: the frame is `gain * reference + offset`.
        offset: Grey levels `[3]`.
        agreement: Share of the cells in which the frame agrees with the reference in this light.
        changed: Whether the light differs from the reference's at all.
    """

    gain: Floats
    offset: Floats
    agreement: float
    changed: bool


def cells(picture: NDArray[np.uint8]) -> Floats:
    """Average a picture `[H, W, 3]` over the cells of a coarse grid, float32 `[48, 64, 3]`."""
    cv2 = opencv()
    return np.asarray(cv2.resize(picture, CELLS, interpolation=cv2.INTER_AREA), np.float32)


def light_of(frame: Floats, reference: Floats) -> Light:
    """Fit the light of a frame: a gain that varies smoothly over the picture, and an offset, for each colour.

    Args:
        frame: Cells of the frame `[48, 64, 3]`.
        reference: Cells of the reference `[48, 64, 3]`.

    Returns:
        The light; unchanged where it differs by less than 2 grey levels in most of the picture, or cannot be fitted.
    """
    plain = Light(np.ones_like(reference), np.zeros(3, np.float32), _agreement(frame, reference), changed=False)
    if _same_light(frame, reference):
        return plain
    gains, offsets = [], []
    for colour in range(3):
        fitted = _fit(frame[:, :, colour], reference[:, :, colour])
        if fitted is None:
            return plain
        gains.append(fitted[0])
        offsets.append(fitted[1])
    gain, offset = np.stack(gains, axis=2), np.array(offsets, np.float32)
    seen = gain * reference + offset
    agreement = _agreement(frame, seen.clip(0, 255))
    changed = np.abs(seen - reference).max(axis=2) >= CHANGED
    if changed.mean() < CHANGED_SHARE or agreement < plain.agreement:
        return plain
    return Light(gain, offset, agreement, changed=True)


def relit(picture: NDArray[np.uint8], light: Light, background: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """Show a frame in the reference's light.

    Args:
        picture: The frame `[H, W, 3]`.
        light: Its light.
        background: The background `[H, W, 3]` in the reference's light, if known: it stands where the camera clipped
            both.

    Returns:
        The frame `[H, W, 3]` uint8.
    """
    if not light.changed:
        return picture
    cv2 = opencv()
    gain = cv2.resize(light.gain, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    offset = np.append(light.offset, np.float32(0)).astype(np.float64)
    exact = cv2.divide(cv2.subtract(picture, offset, dtype=cv2.CV_32F), gain)
    normal = np.asarray(cv2.add(exact, 0.0, dtype=cv2.CV_8U))
    if background is not None:
        at = np.flatnonzero(cv2.LUT(picture, _CLIPPED))
        seen, behind = picture.ravel()[at], background.ravel()[at]
        expected = behind * gain.ravel()[at] + light.offset[at % 3]
        clipped = (seen >= BRIGHTEST) & (expected >= BRIGHTEST) | (seen <= DARKEST) & (expected <= DARKEST)
        normal.ravel()[at[clipped]] = behind[clipped]
    return normal


def _agreement(frame: Floats, expected: Floats) -> float:
    return float((np.abs(frame - expected).max(axis=2) <= AGREEMENT).mean())


def _same_light(frame: Floats, reference: Floats) -> bool:
    rows, columns = CELLS[1] // PARTS, CELLS[0] // PARTS
    difference = (frame - reference).reshape(PARTS, rows, PARTS, columns, 3)
    changed = np.abs(np.median(difference, axis=(1, 3))).max(axis=2) >= CHANGED
    return bool(changed.mean() < CHANGED_SHARE)


def _fit(frame: Floats, reference: Floats) -> tuple[Floats, float] | None:
    """Gain `[48, 64]` and offset of one colour: first one gain for all cells, then a polynomial of second degree."""
    f, r = frame.ravel().astype(np.float64), reference.ravel().astype(np.float64)
    usable = (f > DARKEST) & (f < BRIGHTEST) & (r > DARKEST) & (r < BRIGHTEST)
    if usable.mean() < FITTED_SHARE:
        return None
    shape = _polynomials()
    flat = np.stack([r, np.ones_like(r)], axis=1)
    curved = np.concatenate([shape * r[:, None], np.ones((len(r), 1))], axis=1)
    simple = _robust(flat[usable], f[usable], _first_guess(f[usable], r[usable]), np.zeros(2))
    start = np.array([simple[0], 0, 0, 0, 0, 0, simple[1]])
    stiff = STIFFNESS * (r[usable] ** 2).sum() * np.array([0, 1, 1, 1, 1, 1, 0])
    full = _robust(curved[usable], f[usable], start, stiff)
    gain = (shape @ full[:-1]).reshape(reference.shape)
    if gain.min() <= 0.1:
        return None
    return gain.astype(np.float32), float(full[-1])


@functools.cache
def _polynomials() -> NDArray[np.float64]:
    """The terms of a polynomial of second degree at every cell, `[48 * 64, 6]`."""
    y, x = (place.ravel() for place in np.mgrid[-1 : 1 : CELLS[1] * 1j, -1 : 1 : CELLS[0] * 1j])
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _first_guess(f: NDArray[np.float64], r: NDArray[np.float64]) -> NDArray[np.float64]:
    """A mere gain or a mere offset, whichever leaves less."""
    guesses = [np.array([np.median(f / r), 0.0]), np.array([1.0, np.median(f - r)])]
    return min(guesses, key=lambda guess: float(np.median(np.abs(f - guess[0] * r - guess[1]))))


def _robust(
    columns: NDArray[np.float64], values: NDArray[np.float64], start: NDArray[np.float64], stiff: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Least squares with Tukey's weights, from a first guess."""
    solution = start
    for _ in range(ROUNDS):
        residuals = values - columns @ solution
        limit = OUTLIER * max(LEAST_DEVIATION, 1.4826 * float(np.median(np.abs(residuals))))
        weights = np.maximum(0, 1 - (residuals / limit) ** 2) ** 2
        weighted = columns * weights[:, None]
        normal = weighted.T @ columns + np.diag(stiff + 1e-9)
        solution = np.linalg.solve(normal, weighted.T @ values + stiff * start)
    return solution
