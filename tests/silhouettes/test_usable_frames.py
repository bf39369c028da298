"""Frames that show no person are left out and counted; frames of a walk never are."""

import pickle
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import (
    SilhouetteError,
    SilhouetteWarning,
    align,
    align_sequence,
    by_reason,
    read,
    read_sequence,
    walkers,
)
from hstl_fast.silhouettes.components import connected_pieces, find_body
from tests.silhouettes.helpers import fails, write_pngs

NO_BODY = "frame without a body"
STREET = Path(__file__).parents[1] / "data" / "street"
Masks = NDArray[np.uint8]


@pytest.fixture(scope="module")
def walk() -> Masks:
    return walkers.render(3, frames=12)


@pytest.fixture(scope="module")
def masks(walk: Masks) -> Masks:
    """The walk in a larger picture, at 40 more rows than the body's 64."""
    return np.pad((walk >= 128) * np.uint8(255), ((0, 0), (30, 10), (25, 40)))


def stored(tmp_path: Path, frames: NDArray[np.generic]) -> Path:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(frames))
    return tmp_path / "walk.pkl"


@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("view", walkers.CASIA_B_VIEWS)
def test_walkers_come_back_as_they_are(tmp_path: Path, view: float, noise: float) -> None:
    for condition in walkers.CONDITIONS:
        clip = walkers.render(5, view=view, condition=condition, noise=noise, frames=10)
        wide, narrow = read_sequence(stored(tmp_path, clip)), read_sequence(stored(tmp_path, clip[:, :, 10:54]))
        np.testing.assert_array_equal(wide.silhouettes, clip)
        np.testing.assert_array_equal(narrow.silhouettes[:, :, 10:54], clip[:, :, 10:54])
        assert wide.left_out == narrow.left_out == ()


def test_street_footage_comes_back_as_it_is() -> None:
    for path in STREET.glob("*/*"):
        assert read_sequence(path).left_out == ()


@pytest.mark.parametrize("kind", ["blank", "pixel", "specks", "white"])
@pytest.mark.parametrize("aligned", [True, False])
def test_frames_without_a_person_are_left_out(
    tmp_path: Path, walk: Masks, masks: Masks, kind: str, aligned: bool
) -> None:
    frames = (walk if aligned else masks).copy()
    frames[[0, 7]] = 255 if kind == "white" else 0
    if kind == "pixel":
        frames[[0, 7], 40, 30] = 255
    if kind == "specks":
        frames[[0, 7], ::11, ::13] = 255
    left = [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    expected = walk[left] if aligned else np.stack([align(frame) for frame in masks[left]])
    reading = read_sequence(stored(tmp_path, frames))
    np.testing.assert_array_equal(reading.silhouettes, expected)
    assert len(reading.left_out) == 2
    assert [each.where for each in reading.left_out] == [f"{tmp_path / 'walk.pkl'}, frame {t}" for t in (0, 7)]
    reason = "frame that is white nearly everywhere" if kind == "white" else NO_BODY
    assert {each.reason for each in reading.left_out} == {reason}
    with pytest.warns(SilhouetteWarning, match=r"walk.pkl: 2 of 12 frames are left out: 2 x .* \(the first: frame 0\)"):
        read(tmp_path / "walk.pkl")


def test_far_less_body_than_the_others(tmp_path: Path, walk: Masks, masks: Masks) -> None:
    aligned, raw = walk.copy(), masks.copy()
    aligned[4, :, :28] = aligned[4, :, 33:] = 0
    aligned[4, 30:] = 0
    raw[4] = 0
    raw[4, 50:64, 40:44] = 255
    for frames in (aligned, raw):
        reading = read_sequence(stored(tmp_path, frames))
        assert len(reading.silhouettes) == 11
        assert by_reason(reading.left_out) == {"frame with far less body than the others": 1}
        assert reading.left_out[0].where.endswith("walk.pkl, frame 4")


def test_somebody_who_comes_nearer_stays(walk: Masks) -> None:
    """At a steady pace from 15 m to 1.5 m, so that the area grows a hundred times."""
    distance = np.linspace(15, 1.5, 48)
    frames = np.zeros((48, 250, 250), np.uint8)
    for t, height in enumerate((330 / distance).astype(int)):
        rows = np.arange(height) * 64 // height
        frames[t, 240 - height : 240, 125 - height // 2 : 125 - height // 2 + height] = walk[t % 12][rows][:, rows]
    assert align_sequence(frames)[1].tolist() == list(range(48))


def test_few_frames_are_said(tmp_path: Path, walk: Masks) -> None:
    assert read_sequence(stored(tmp_path, walk[:5])).left_out == ()
    reading = read_sequence(stored(tmp_path, walk[:4]))
    np.testing.assert_array_equal(reading.silhouettes, walk[:4])
    assert by_reason(reading.left_out) == {"fewer than 5 usable frames": 1}
    with pytest.warns(SilhouetteWarning, match=r"walk.pkl: fewer than 5 usable frames \(4 of 4\)"):
        read(tmp_path / "walk.pkl")


@pytest.mark.parametrize("size", [(64, 64), (64, 44), (90, 70)])
def test_nobody_at_all(tmp_path: Path, size: tuple[int, int]) -> None:
    fails(stored(tmp_path, np.zeros((6, *size), np.uint8)), "in at least one frame", "6 frames without one", "in 0..0")
    fails(stored(tmp_path, np.full((6, *size), 90, np.uint8)), "6 frames without one", "in 0..90")


def test_white_background_is_named(tmp_path: Path, walk: Masks) -> None:
    fails(stored(tmp_path, 255 - walk), "12 frames that are white nearly everywhere: is the background white?")


@pytest.mark.parametrize("at", [(2, 60), (97, 5)])
def test_a_speck_far_away_does_not_shrink_the_body(masks: Masks, at: tuple[int, int]) -> None:
    spoilt = masks.copy()
    spoilt[:, at[0] : at[0] + 2, at[1] : at[1] + 2] = 255
    np.testing.assert_array_equal(align_sequence(spoilt)[0], align_sequence(masks)[0])


def test_noise_everywhere_does_not_shrink_the_body(masks: Masks) -> None:
    noise = np.random.default_rng(0).random(masks.shape) < 0.002
    spoilt, kept = align_sequence(np.where(noise, 255, masks).astype(np.uint8))
    clean = align_sequence(masks)[0]
    assert len(kept) == len(masks)
    both, either = (spoilt >= 128) & (clean >= 128), (spoilt >= 128) | (clean >= 128)
    assert (both.sum(axis=(1, 2)) / either.sum(axis=(1, 2))).min() > 0.9


def test_a_lost_neck_does_not_behead(masks: Masks) -> None:
    spoilt = masks.copy()
    spoilt[:, 39:42] = 0
    expected = spoilt[0].copy()
    body = find_body(spoilt[0])
    assert body is not None
    assert (body.top, body.bottom) == (30, 93)
    assert body.area == (expected > 0).sum()


def test_pieces_are_those_of_flood_filling() -> None:
    rng = np.random.default_rng(1)
    for density in (0.05, 0.3, 0.45, 0.9):
        mask = rng.random((23, 17)) < density
        found = connected_pieces(mask)
        pieces = sorted(zip(*(getattr(found, name).tolist() for name in found._fields), strict=True))
        assert pieces == sorted(flooded(mask))
    assert connected_pieces(np.zeros((3, 4), bool)).area.size == 0


def flooded(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int, int]]:
    """Area, top, bottom, left and right of each 8-connected piece, pixel by pixel."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    pieces = []
    while left:
        pending, piece = [left.pop()], []
        while pending:
            y, x = pending.pop()
            piece.append((y, x))
            around = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= around
            pending += around
        rows, columns = [y for y, _ in piece], [x for _, x in piece]
        pieces.append((len(piece), min(rows), max(rows), min(columns), max(columns)))
    return pieces


def test_raw_masks_of_the_size_of_aligned_ones_are_aligned(tmp_path: Path, walk: Masks) -> None:
    """The person is a third of the frame."""
    small = (np.add.reduceat(np.add.reduceat(walk // 9, range(0, 63, 3), 1), range(0, 63, 3), 2) >= 128) * np.uint8(255)
    raw = np.pad(small, ((0, 0), (30, 13), (35, 8)))
    assert raw.shape == (12, 64, 64)
    reading = read_sequence(stored(tmp_path, raw))
    np.testing.assert_array_equal(reading.silhouettes, np.stack([align(frame) for frame in raw]))
    assert by_reason(reading.left_out) == {"not aligned, aligned here": 1}
    narrow = read_sequence(stored(tmp_path, raw[:, :, 15:59]))
    np.testing.assert_array_equal(narrow.silhouettes, reading.silhouettes)
    with pytest.warns(SilhouetteWarning, match=r"not aligned, aligned here \(the bodies do not fill the height"):
        read(tmp_path / "walk.pkl")


def test_aligned_sequences_with_faults_stay(tmp_path: Path, walk: Masks) -> None:
    """A third of the frames without feet, soft first rows, and the middle 3 columns off, as released data have them."""
    frames = np.roll(walk, 3, axis=2)
    frames[::3, 50:] = 0
    frames[:, :2] //= 4
    reading = read_sequence(stored(tmp_path, frames))
    np.testing.assert_array_equal(reading.silhouettes, frames)
    assert reading.left_out == ()


def test_frames_of_different_sizes_are_aligned_one_by_one(tmp_path: Path, masks: Masks) -> None:
    crops = [masks[0, 20:100], masks[1, :, 10:90], masks[2], *masks[3:], masks[4, 30:94, 20:84]]
    expected = np.stack([align(crop) for crop in crops])
    (tmp_path / "list.pkl").write_bytes(pickle.dumps(crops))
    (tmp_path / "folder").mkdir()
    image = pytest.importorskip("PIL.Image")
    for t, crop in enumerate(crops):
        image.fromarray(crop).save(tmp_path / "folder" / f"{t}.png")
    for name in ("list.pkl", "folder"):
        reading = read_sequence(tmp_path / name)
        np.testing.assert_array_equal(reading.silhouettes, expected)
        assert reading.left_out == ()


@pytest.mark.parametrize(
    "kind", ["bool", "int64", "int8", "uint16", "float16", "float32 rounded", "int64 255", "float 255", "uint16 65535"]
)
@pytest.mark.parametrize("aligned", [True, False])
def test_types_and_ranges(tmp_path: Path, walk: Masks, masks: Masks, kind: str, aligned: bool) -> None:
    frames = (walk if aligned else masks) >= 128
    dtype = np.dtype({"float 255": "float64"}.get(kind, kind.split()[0]))
    values = frames.astype(dtype)
    if kind.endswith("255"):
        values *= 255
    if kind.endswith("65535"):
        values *= 65535
    if kind.endswith("rounded"):
        values = values * np.float32(1.0000001) - np.float32(1e-7)
    expected = read_sequence(stored(tmp_path, frames * np.uint8(255))).silhouettes
    for name in ("a.npy", "a.npz", "a.pkl"):
        path = tmp_path / name
        {".npy": np.save, ".npz": np.savez}.get(path.suffix, np.ndarray.dump)(
            *((values, path) if path.suffix == ".pkl" else (path, values))
        )
        np.testing.assert_array_equal(read_sequence(path).silhouettes, expected)


def test_a_frame_of_small_values_is_judged_by_the_sequence(tmp_path: Path, masks: Masks) -> None:
    """Values 0 and 1 mean a body only where nothing in the sequence is brighter."""
    frames = masks.copy()
    frames[:3] //= 255
    reading = read_sequence(stored(tmp_path, frames))
    np.testing.assert_array_equal(reading.silhouettes, np.stack([align(frame) for frame in masks[3:]]))
    assert by_reason(reading.left_out) == {NO_BODY: 3}
    assert len(read_sequence(stored(tmp_path, masks // 255)).silhouettes) == 12


@pytest.mark.parametrize("highest", [256, 900, 40_000])
@pytest.mark.parametrize("aligned", [True, False])
def test_ambiguous_ranges_are_refused(tmp_path: Path, walk: Masks, masks: Masks, highest: int, aligned: bool) -> None:
    frames = ((walk if aligned else masks) >= 128).astype(np.uint16) * np.uint16(highest)
    fails(stored(tmp_path, frames), f"0..{highest}", "scale them to 0..255") if aligned or highest > 33_000 else fails(
        stored(tmp_path, frames), f"0..{highest}"
    )


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (np.zeros((20, 500, 3), np.float32), ("[20, 500, 3]", "points or key points, another modality?")),
        ([np.zeros((500, 3)), np.zeros((480, 3))], ("points or key points, another modality?",)),
        (np.zeros((20, 64, 64, 3), np.uint8), ("[20, 64, 64, 3]", "pictures with channels, another modality?")),
        (np.zeros((20, 3, 64, 64), np.uint8), ("[20, 3, 64, 64]", "pictures with channels, another modality?")),
    ],
)
def test_other_modalities_are_named(tmp_path: Path, content: object, parts: tuple[str, ...]) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(content))
    fails(tmp_path / "walk.pkl", *parts)


@pytest.mark.parametrize("name", ["walk.pkl", "walk.npy", "walk.npz", "list.pkl", "walk"])
@pytest.mark.parametrize("aligned", [True, False])
def test_reading_stops_at_the_limit(tmp_path: Path, walk: Masks, masks: Masks, name: str, aligned: bool) -> None:
    frames = (walk if aligned else masks).copy()
    frames[1] = 0
    path = tmp_path / name
    if name == "walk":
        write_pngs(path, frames)
        (path / "11.png").write_bytes(b"never opened")
    elif name.endswith(".pkl"):
        path.write_bytes(pickle.dumps(list(frames) if name == "list.pkl" else frames))
    else:
        (np.save if name == "walk.npy" else np.savez)(path, frames)
    reading = read_sequence(path, max_frames=6)
    used = [0, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(
        reading.silhouettes, walk[used] if aligned else np.stack([align(frame) for frame in frames[used]])
    )
    assert by_reason(reading.left_out) == {NO_BODY: 1, "cut to the limit of frames": 1}
    assert "6 frames of 12 are used" in reading.left_out[1].detail
    with pytest.warns(SilhouetteWarning, match=r"cut to the limit of frames \(6 frames of 12 are used\)"):
        assert len(read(path, max_frames=6)) == 6
    with pytest.raises(ValueError, match="max_frames must be at least 1, got 0"):
        read(path, max_frames=0)


def test_no_cut_where_the_limit_is_not_reached(tmp_path: Path, walk: Masks, masks: Masks) -> None:
    for frames in (walk, masks):
        assert read_sequence(stored(tmp_path, frames), max_frames=12).left_out == ()


@pytest.mark.parametrize("name", ["walk", "walk.npy", "walk.npz"])
def test_large_masks_are_not_held(tmp_path: Path, masks: Masks, name: str) -> None:
    """Forty masks of 720 x 1280 are 37 MB."""
    count = 40
    large = np.zeros((count, 720, 1280), np.uint8)
    for t in range(count):
        large[t, 100:308, 300:558] = np.kron(masks[t % 12], np.ones((2, 2), np.uint8))
    path = tmp_path / name
    if name == "walk":
        image = pytest.importorskip("PIL.Image")
        path.mkdir()
        for t, frame in enumerate(large):
            image.fromarray(frame).save(path / f"{t}.png", compress_level=1)
    else:
        (np.save if name == "walk.npy" else np.savez_compressed)(path, large)
    expected = np.stack([align(frame) for frame in large[:12]])
    del large
    tracemalloc.start()
    try:
        silhouettes = read_sequence(path).silhouettes
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(silhouettes[:12], expected)
    assert len(silhouettes) == count
    assert peak < (12e6 if name == "walk" else 28e6)


def test_a_truncated_large_array_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "walk.npy", np.zeros((40, 1000, 1000), np.uint8))
    with (tmp_path / "walk.npy").open("r+b") as file:
        file.truncate(36_000_000)
    fails(tmp_path / "walk.npy", "cannot be read", "bytes early")


def test_a_good_sequence_does_not_warn(tmp_path: Path, walk: Masks) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(stored(tmp_path, walk)), walk)


def test_align_sequence_refuses_sequences_of_noise() -> None:
    with pytest.raises(SilhouetteError, match="got 4 frames without one"):
        align_sequence(np.eye(90, dtype=np.uint8)[None].repeat(4, 0)[:, ::9])
