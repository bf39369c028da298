"""Folders of pictures: depths, palettes, colours and formats; which of them are frames; which cannot be read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteWarning, by_reason, read, read_sequence, walkers
from tests.silhouettes.helpers import fails, write_pngs

Masks = NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".TIFF")


@pytest.fixture(scope="module")
def walk() -> Masks:
    return walkers.render(3, frames=6)


@pytest.fixture(scope="module")
def masks(walk: Masks) -> Masks:
    return (walk >= 128) * np.uint8(255)


def save(folder: Path, pictures: list[Any], suffix: str = ".png", **options: object) -> Path:
    folder.mkdir()
    for t, picture in enumerate(pictures):
        picture.save(folder / f"{t:03d}{suffix}", **options)
    return folder


def indexed(frames: NDArray[np.integer[Any]], palette: list[int]) -> list[Any]:
    image = pytest.importorskip("PIL.Image")
    pictures = []
    for frame in frames:
        picture = image.fromarray(frame.astype(np.uint8), "L")
        picture = picture.copy()
        picture.putpalette(palette)
        pictures.append(picture)
    return pictures


@pytest.mark.parametrize("highest", [1, 255, 65280, 65535])
def test_sixteen_bits_by_the_range_of_the_sequence(tmp_path: Path, masks: Masks, highest: int) -> None:
    frames = (masks > 0) * np.uint16(highest)
    write_pngs(tmp_path / "walk", frames)
    reading = read_sequence(tmp_path / "walk")
    expected = masks if highest != 65280 else masks // 255 * np.uint8(254)
    np.testing.assert_array_equal(reading.silhouettes, expected)


def test_sixteen_bits_keep_soft_edges(tmp_path: Path, walk: Masks) -> None:
    write_pngs(tmp_path / "low", walk.astype(np.uint16))
    write_pngs(tmp_path / "high", walk.astype(np.uint16) * 257)
    for name in ("low", "high"):
        np.testing.assert_array_equal(read(tmp_path / name), walk)


def test_sixteen_bits_of_another_range_are_refused(tmp_path: Path, masks: Masks) -> None:
    write_pngs(tmp_path / "walk", (masks > 0) * np.uint16(4095))
    fails(tmp_path / "walk", "values in 0..4095", "scale them to 0..255")


# The background, dark red, green, and a grey that is dark, too.
DARK_RED = [0, 0, 0, 128, 0, 0, 0, 128, 0, 64, 64, 64]


@pytest.mark.parametrize("index", [1, 2, 3])
def test_the_index_of_a_palette_of_colours_decides(tmp_path: Path, masks: Masks, index: int) -> None:
    reading = read_sequence(save(tmp_path / "walk", indexed(masks // 255 * index, DARK_RED)))
    np.testing.assert_array_equal(reading.silhouettes, masks)


def test_masks_of_several_labels_are_refused(tmp_path: Path, masks: Masks) -> None:
    labels = masks // 255
    labels[3:] *= 2
    fails(save(tmp_path / "walk", indexed(labels, DARK_RED)), "003.png", "labels 1, 2", "one mask a label")


def test_a_palette_of_greys_keeps_soft_edges(tmp_path: Path, walk: Masks) -> None:
    ramp = [level for level in range(256) for _ in range(3)]
    np.testing.assert_array_equal(read(save(tmp_path / "walk", indexed(walk, ramp))), walk)
    backwards = [255 - level for level in ramp]
    np.testing.assert_array_equal(read(save(tmp_path / "back", indexed(255 - walk, backwards))), walk)


@pytest.mark.parametrize("grey", [38, 255])
def test_two_greys_are_a_mask(tmp_path: Path, masks: Masks, grey: int) -> None:
    two = indexed(masks // 255, [0, 0, 0, grey, grey, grey])
    np.testing.assert_array_equal(read(save(tmp_path / "walk", two)), masks)
    padded = indexed(masks // 255, [0, 0, 0, grey, grey, grey, *[0] * 756, 9, 9, 9])
    np.testing.assert_array_equal(read(save(tmp_path / "padded", padded)), masks)


def test_black_and_white_amid_colours_are_greys(tmp_path: Path, masks: Masks) -> None:
    """Image programs use any indices of a palette for them."""
    colours = [255, 0, 0, 0, 0, 0, 255, 255, 255]
    np.testing.assert_array_equal(read(save(tmp_path / "walk", indexed(1 + masks // 255, colours))), masks)


def test_transparent_indices_are_background(tmp_path: Path, masks: Masks) -> None:
    pictures = indexed(np.where(masks > 0, 2, 1), [0, 0, 0, 0, 200, 0, 200, 0, 0])
    np.testing.assert_array_equal(read(save(tmp_path / "one", pictures, transparency=1)), masks)
    np.testing.assert_array_equal(read(save(tmp_path / "all", pictures, transparency=b"\0\0\xff")), masks)


def test_one_colour_on_black_is_a_mask(tmp_path: Path, masks: Masks) -> None:
    image = pytest.importorskip("PIL.Image")
    red = np.stack([masks // 2, masks * 0, masks * 0], axis=-1)
    np.testing.assert_array_equal(read(save(tmp_path / "walk", [image.fromarray(each) for each in red])), masks)
    red[:, :30] = red[:, :30, :, [1, 0, 2]]
    fails(save(tmp_path / "two", [image.fromarray(each) for each in red]), "000.png", "a picture of 2 colours")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_formats(tmp_path: Path, masks: Masks, suffix: str) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = save(tmp_path / "walk", [image.fromarray(mask) for mask in masks], suffix)
    found = read_sequence(folder)
    assert found.left_out == ()
    if suffix in (".jpg", ".jpeg"):
        assert np.abs(found.silhouettes.astype(int) - masks).mean() < 4
        np.testing.assert_array_equal(found.silhouettes >= 128, masks >= 128)
    else:
        np.testing.assert_array_equal(found.silhouettes, masks)


def test_content_counts_not_the_suffix(tmp_path: Path, masks: Masks) -> None:
    image = pytest.importorskip("PIL.Image")
    folder = save(tmp_path / "walk", [image.fromarray(mask) for mask in masks], format="JPEG", quality=95)
    assert (folder / "000.png").read_bytes()[:2] == b"\xff\xd8"
    np.testing.assert_array_equal(read(folder) >= 128, masks >= 128)


def test_a_stack_of_pictures_is_named(tmp_path: Path, masks: Masks) -> None:
    image = pytest.importorskip("PIL.Image")
    first, *rest = (image.fromarray(mask) for mask in masks)
    (tmp_path / "walk").mkdir()
    first.save(tmp_path / "walk" / "all.tif", save_all=True, append_images=rest)
    fails(tmp_path / "walk", "all.tif", "a stack of 6; save each as a file of its own")


def test_floating_tiffs(tmp_path: Path, walk: Masks) -> None:
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(frame.astype(np.float32) / 255) for frame in walk]
    np.testing.assert_array_equal(read(save(tmp_path / "walk", frames, ".tif")), walk)


@pytest.mark.parametrize("stray", ["gei.png", "preview.jpg", "copy of 3.png", "mean_1.png"])
def test_pictures_of_other_names_are_left_out(tmp_path: Path, masks: Masks, stray: str) -> None:
    write_pngs(tmp_path / "walk", masks)
    (tmp_path / "walk" / stray).write_bytes(b"not read")
    reading = read_sequence(tmp_path / "walk")
    np.testing.assert_array_equal(reading.silhouettes, masks)
    (left_out,) = reading.left_out
    assert left_out.where == str(tmp_path / "walk" / stray)
    assert left_out.reason == "picture of another name"
    assert stray in left_out.detail
    with pytest.warns(SilhouetteWarning, match=rf"walk: picture of another name \({stray}, where frames are called #"):
        read(tmp_path / "walk")


@pytest.mark.parametrize(
    "names", ["abcdef", [f"001-nm-01-090-{t:03d}" for t in range(6)], ["f9a1b", "7c2", "e", "e12f3", "9", "a"]]
)
def test_names_that_follow_one_pattern_or_none_are_all_frames(tmp_path: Path, masks: Masks, names: list[str]) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "walk").mkdir()
    for name, mask in zip(names, masks, strict=True):
        image.fromarray(mask).save(tmp_path / "walk" / f"{name}.png")
    reading = read_sequence(tmp_path / "walk")
    assert len(reading.silhouettes) == 6
    assert reading.left_out == ()


@pytest.mark.parametrize(("one", "other"), [("sil_{}.png", "rgb_{}.png"), ("{}.png", "{}.jpg")])
def test_two_kinds_of_pictures_are_refused(tmp_path: Path, masks: Masks, one: str, other: str) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "walk").mkdir()
    for t, mask in enumerate(masks):
        for name in (one, other):
            image.fromarray(mask).save(tmp_path / "walk" / name.format(t))
    fails(tmp_path / "walk", "frames of one naming", f"6 called {one.format('#')}", f"6 called {other.format('#')}")


def test_a_few_unreadable_frames_are_left_out(tmp_path: Path) -> None:
    frames = walkers.render(1, frames=20)
    write_pngs(tmp_path / "walk", frames)
    torn = tmp_path / "walk" / "17.png"
    torn.write_bytes(torn.read_bytes()[:90])
    (tmp_path / "walk" / "4.png").write_bytes(b"")
    reading = read_sequence(tmp_path / "walk")
    np.testing.assert_array_equal(reading.silhouettes, np.delete(frames, [4, 17], axis=0))
    assert by_reason(reading.left_out) == {"frame that cannot be read": 2}
    assert [Path(each.where).name for each in reading.left_out] == ["4.png", "17.png"]
    assert "got an empty file that cannot be read" in reading.left_out[0].detail
    assert "got a PNG picture that cannot be read" in reading.left_out[1].detail
    for t in range(5, 9):
        (tmp_path / "walk" / f"{t}.png").write_bytes(b"")
    fails(tmp_path / "walk", "at least 6 of 20 that cannot be read", "4.png")


def test_git_lfs_pointers_are_named(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 409600\n"
    for name in ("walk.pkl", "walk.npy", "walk.npz"):
        (tmp_path / name).write_bytes(pointer)
        fails(tmp_path / name, "a Git LFS pointer in place of the file (fetch it with: git lfs pull)")
    (tmp_path / "walk").mkdir()
    for t in range(6):
        (tmp_path / "walk" / f"{t}.png").write_bytes(pointer)
    fails(tmp_path / "walk", "walk/0.png", "a Git LFS pointer", "git lfs pull")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0....", "a JPEG picture"),
        (b"\x1f\x8b........", "a gzip file (unpack it first)"),
        (b"<!DOCTYPE html><title>404</title>", "a web page"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"", "an empty file"),
    ],
)
@pytest.mark.parametrize("name", ["walk.pkl", "walk.npy", "walk.mp4"])
def test_what_a_file_is_stands_in_the_error(tmp_path: Path, content: bytes, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    fails(tmp_path / name, kind)
