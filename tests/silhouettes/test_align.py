"""Alignment: height, centre, soft edges, idempotence, and what it refuses."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteError, align, align_sequence


def body(
    height: int, width: int, canvas: tuple[int, int] = (200, 160), at: tuple[int, int] = (20, 30)
) -> NDArray[np.uint8]:
    """An ellipse on two legs, a little lopsided so that the centre of the box is not the centre of the mass."""
    mask = np.zeros(canvas, np.uint8)
    y, x = np.mgrid[: canvas[0], : canvas[1]]
    v, u = (y - at[0] + 0.5) / height, (x - at[1] + 0.5) / width
    torso = ((v - 0.3) / 0.3) ** 2 + ((u - 0.4) / 0.4) ** 2 <= 1
    legs = (v > 0.5) & (v < 1) & ((np.abs(u - 0.25) < 0.12) | (np.abs(u - 0.75) < 0.12))
    mask[torso | legs] = 255
    return mask


def median_column(silhouette: NDArray[np.uint8]) -> int:
    mass = np.cumsum(silhouette.sum(axis=0, dtype=np.int64))
    return int(np.searchsorted(mass, mass[-1] / 2))


@pytest.mark.parametrize(("height", "width"), [(30, 12), (64, 30), (97, 41), (171, 60), (200, 80)])
def test_fills_the_height_and_centres_the_mass(height: int, width: int) -> None:
    aligned = align(body(height, width, canvas=(260, 200)))
    assert aligned.shape == (64, 64)
    assert aligned.dtype == np.uint8
    assert aligned[0].max() >= 128
    assert aligned[-1].max() >= 128
    assert median_column(aligned) == 32


@pytest.mark.parametrize("at", [(0, 0), (5, 90), (60, 110)])
def test_place_in_the_image_does_not_matter(at: tuple[int, int]) -> None:
    np.testing.assert_array_equal(align(body(120, 45, at=at)), align(body(120, 45)))


def test_keeps_proportions_and_makes_soft_edges() -> None:
    mask = body(128, 60)
    aligned = align(mask)
    assert aligned.sum() / 255 == pytest.approx(np.count_nonzero(mask) / 4, rel=0.01)
    assert ((aligned > 0) & (aligned < 255)).sum() > 50


def test_a_bar_of_twice_the_size() -> None:
    """Known values: two input columns per output column, a triangle of weights 1, 3, 3, 1 over four of them."""
    mask = np.zeros((128, 128), bool)
    mask[:, 40:80] = True
    edge = round(255 / 8)
    row = [edge, 255 - edge, *[255] * 18, 255 - edge, edge]
    aligned = align(mask)
    assert (aligned == aligned[0]).all()
    assert aligned[0][aligned[0] > 0].tolist() == row


@pytest.mark.parametrize(("height", "width"), [(17, 8), (50, 31), (64, 30), (150, 63)])
@pytest.mark.parametrize("noise", [False, True])
def test_idempotent(height: int, width: int, noise: bool) -> None:
    mask = body(height, width)
    if noise:
        rough = np.random.default_rng(0).integers(0, 2, mask.shape, dtype=np.uint8)
        mask = np.where(mask > 0, mask * rough, 0).astype(np.uint8)
    once = align(mask)
    np.testing.assert_array_equal(align(once), once)


def test_dtypes_agree() -> None:
    mask = body(80, 30)
    expected = align(mask)
    numbers = mask // 255
    for same in (mask > 0, numbers, mask / 255.0, (mask / 255).astype(np.float16), numbers.astype(np.int64)):
        np.testing.assert_array_equal(align(same), expected)
    for same in (mask.astype(np.int64), mask.astype(np.float32), mask.astype(np.uint16) * 257, numbers * 1.0000001):
        np.testing.assert_array_equal(align(same), expected)


def test_thin_antenna_is_cropped_rather_than_shrinking_the_body() -> None:
    mask = np.zeros((400, 100), np.uint8)
    mask[100:400, 30:70] = 255
    antenna = mask.copy()
    antenna[0:100, 50] = 255
    difference = align(antenna).astype(int) - align(mask)
    assert np.abs(difference[2:]).mean() < 2


def test_a_wide_flat_shape_costs_no_memory() -> None:
    flat = np.zeros((3, 200_000), np.uint8)
    flat[1] = 255
    assert (align(flat) == 255).all()


def test_specks_far_apart_are_still_something() -> None:
    specks = np.zeros((300, 40), np.uint8)
    specks[0, 3] = specks[299, 30] = 255
    assert align(specks).shape == (64, 64)
    dot = np.zeros((9, 9), np.uint8)
    dot[4, 4] = 128
    assert align(dot)[32, 32] in (127, 128)


def test_other_size() -> None:
    assert align(body(90, 40), size=32).shape == (32, 32)
    with pytest.raises(ValueError, match="size must be at least 2, got 1"):
        align(body(90, 40), size=1)


def test_sequence_drops_empty_frames_and_says_which() -> None:
    empty = np.zeros((200, 160), np.uint8)
    silhouettes, kept = align_sequence(np.stack([empty, body(90, 30), empty, body(60, 30)]))
    assert kept.tolist() == [1, 3]
    np.testing.assert_array_equal(silhouettes[1], align(body(60, 30)))


def test_faint_sequence_is_scaled_as_a_whole() -> None:
    """A frame that happens to hold only 0 and 1 is not a 0/1 mask when its neighbours are 0..255."""
    faint, full = np.zeros((80, 60), np.uint8), body(60, 20, canvas=(80, 60), at=(5, 5))
    faint[20:60, 20:40] = 1
    assert align_sequence(np.stack([faint, full]))[1].tolist() == [1]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((5, 5, 5), np.uint8), r"expected \[H, W\], got shape \[5, 5, 5\]"),
        (np.zeros((40, 30), np.uint8), "expected a body"),
        (np.full((40, 30), 100, np.uint8), "no pixel of 128 or more"),
        (np.zeros((0, 30), np.uint8), "expected a body"),
        (np.full((40, 30), -1, np.int64), r"got int64 in -1"),
        (np.full((40, 30), 70_000), r"got int64 in 70000"),
        (np.full((40, 30), 900, np.uint16), r"values in 0\.\.900, of which nobody can tell how bright"),
        (np.full((40, 30), np.nan), "got NaN or infinity"),
        (np.full((40, 30), 1.5), r"got values in 1.5\.\.1.5; divide them"),
        (np.full((40, 30), 256.0), r"got values in 256\.\.256"),
        (np.full((40, 30), -0.1), r"values in -0.1\.\.-0.1"),
        (np.ones((40, 30), complex), "got dtype complex128"),
    ],
)
def test_refuses(mask: NDArray[np.generic], message: str) -> None:
    with pytest.raises(SilhouetteError, match=message):
        align(mask)


def test_sequence_refuses() -> None:
    with pytest.raises(SilhouetteError, match=r"expected \[T, H, W\], got shape \[40, 30\]"):
        align_sequence(np.zeros((40, 30), np.uint8))
    with pytest.raises(SilhouetteError, match="got 3 frames without one"):
        align_sequence(np.zeros((3, 40, 30), np.uint8))
