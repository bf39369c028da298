"""Every format in and out, and one sentence for every kind of bad file."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteError, SilhouetteWarning, align, read, write
from tests.silhouettes.helpers import fails, write_pngs


@pytest.mark.parametrize("name", ["walk.npz", "walk.npy", "walk"])
def test_written_sequences_read_back(tmp_path: Path, sequence: NDArray[np.uint8], name: str) -> None:
    write(tmp_path / "new" / name, sequence)
    np.testing.assert_array_equal(read(tmp_path / "new" / name), sequence)
    assert [p.name for p in (tmp_path / "new").iterdir()] == [name]


def test_npz_has_the_documented_key(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    write(tmp_path / "walk.npz", sequence)
    with np.load(tmp_path / "walk.npz") as archive:
        assert archive.files == ["silhouettes"]


def test_write_replaces_files_but_not_folders(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    for _ in range(2):
        write(tmp_path / "walk.npz", sequence)
    write(tmp_path / "walk", sequence)
    with pytest.raises(SilhouetteError, match="expected an empty folder or nothing there, got files in it"):
        write(tmp_path / "walk", sequence[:2])
    assert len(read(tmp_path / "walk")) == len(sequence)


def test_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, sequence: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "walk.npz", sequence)

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "walk.npz", sequence[:1])
    assert [p.name for p in tmp_path.iterdir()] == ["walk.npz"]
    np.testing.assert_array_equal(read(tmp_path / "walk.npz"), sequence)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 32, 32), np.uint8), r"expected silhouettes \[T, 64, 64\] or \[T, 64, 44\], got \[3, 32, 32\]"),
        (np.zeros((64, 64), np.uint8), r"expected an array \[T, H, W\], got shape \[64, 64\]"),
        (np.zeros((0, 64, 64), np.uint8), "expected at least one frame"),
        (np.zeros((1, 64, 64), complex), "got dtype complex128"),
    ],
)
def test_write_refuses_what_is_not_a_sequence(tmp_path: Path, array: NDArray[np.generic], message: str) -> None:
    with pytest.raises(SilhouetteError, match=message):
        write(tmp_path / "walk.npz", array)
    with pytest.raises(SilhouetteError, match=r"got suffix \.mp4"):
        write(tmp_path / "walk.mp4", np.zeros((1, 64, 64), np.uint8))
    assert not list(tmp_path.iterdir())


def test_narrow_sequences_are_padded(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    np.save(tmp_path / "walk.npy", sequence[:, :, 10:54])
    np.testing.assert_array_equal(read(tmp_path / "walk.npy"), sequence)


def test_value_types(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    binary = sequence > 127
    for name, array in {
        "bool": binary,
        "zero_one": binary.astype(np.uint8),
        "float": binary.astype(np.float32),
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(read(tmp_path / f"{name}.npy"), binary * np.uint8(255))
    np.save(tmp_path / "grey.npy", (sequence / 255).astype(np.float32))
    np.testing.assert_array_equal(read(tmp_path / "grey.npy"), sequence)


def test_other_sizes_are_aligned_and_empty_frames_reported(tmp_path: Path) -> None:
    frames = np.zeros((3, 120, 90), np.uint8)
    frames[0, 10:100, 30:60] = 255
    frames[2, 20:120, 5:40] = 255
    np.save(tmp_path / "walk.npy", frames)
    with pytest.warns(SilhouetteWarning, match=r"walk.npy: 1 of 3 frames are left out: .* body \(frame 1\)"):
        aligned = read(tmp_path / "walk.npy")
    np.testing.assert_array_equal(aligned, [align(frames[0]), align(frames[2])])
    np.save(tmp_path / "empty.npy", frames * 0)
    fails(tmp_path / "empty.npy", "a body in at least one frame", "3 frames without one")


def test_png_folder_in_natural_order(tmp_path: Path) -> None:
    frames = np.zeros((12, 64, 64), np.uint8)
    frames[:, :, 28:36] = 255
    frames[:, 0, 10] = 100 + np.arange(12)
    write_pngs(tmp_path / "walk", frames)
    np.testing.assert_array_equal(read(tmp_path / "walk"), frames)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_png_modes(tmp_path: Path, sequence: NDArray[np.uint8], mode: str) -> None:
    frames = (sequence > 127) * np.uint8(255)
    if mode == "I;16":
        write_pngs(tmp_path / "walk", frames.astype(np.uint16) * 257)
    else:
        write_pngs(tmp_path / "walk", frames, mode)
    np.testing.assert_array_equal(read(tmp_path / "walk"), frames)


def test_transparent_background_is_background(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    white = np.full((*sequence.shape, 3), 255, np.uint8)
    write_pngs(tmp_path / "walk", np.concatenate([white, sequence[..., None]], axis=-1))
    np.testing.assert_array_equal(read(tmp_path / "walk"), sequence)


def test_png_folder_ignores_hidden_files_other_files_and_the_contact_sheet(
    tmp_path: Path, sequence: NDArray[np.uint8]
) -> None:
    write_pngs(tmp_path / "walk", sequence)
    for name in ("._0.png", "notes.txt", "contact_sheet.png"):
        (tmp_path / "walk" / name).write_text("not a frame")
    np.testing.assert_array_equal(read(tmp_path / "walk"), sequence)


def test_npz_chooses_its_array(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    np.savez(tmp_path / "one.npz", anything=sequence)
    np.savez(tmp_path / "named.npz", other=sequence[:1], silhouettes=sequence)
    np.savez(tmp_path / "two.npz", a=sequence, b=sequence)
    np.testing.assert_array_equal(read(tmp_path / "one.npz"), sequence)
    np.testing.assert_array_equal(read(tmp_path / "named.npz"), sequence)
    fails(tmp_path / "two.npz", "one array or one called silhouettes", "2 (a, b)")
    np.savez(tmp_path / "none.npz")
    fails(tmp_path / "none.npz", "0 (none)")


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((64, 64), np.uint8), "got shape [64, 64]"),
        (np.zeros((2, 1, 64, 64), np.uint8), "got shape [2, 1, 64, 64]"),
        (np.zeros((0, 64, 64), np.uint8), "at least one frame"),
        (np.full((2, 64, 64), -3, np.int64), "got int64 in -3..-3"),
        (np.zeros((2, 64, 64), complex), "got dtype complex128"),
        (np.full((2, 64, 64), 255, np.uint8), "2 frames that are white nearly everywhere: is the background white?"),
        (np.full((2, 64, 64), np.nan, np.float32), "got NaN or infinity"),
        (np.full((2, 64, 64), 254.5), "whole numbers in 0..255, got values in 254.5..254.5; divide them"),
        (np.array([None, 1]), "cannot be read"),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_bad_arrays(tmp_path: Path, array: NDArray[np.generic], part: str, suffix: str) -> None:
    path = tmp_path / f"walk{suffix}"
    (np.save if suffix == ".npy" else np.savez)(path, array)
    fails(path, part)


def test_truncated_and_foreign_files(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    for suffix in (".npy", ".npz"):
        whole = io.BytesIO()
        np.save(whole, sequence) if suffix == ".npy" else np.savez_compressed(whole, sequence)
        for name, content in {
            "half": whole.getvalue()[: len(whole.getvalue()) // 2],
            "start": whole.getvalue()[:7],
            "empty": b"",
            "text": b"hello",
            "pickle": pickle.dumps([1, 2]),
        }.items():
            path = tmp_path / f"{name}{suffix}"
            path.write_bytes(content)
            fails(path, "cannot be read")


def test_npz_with_a_damaged_member(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    np.savez_compressed(tmp_path / "walk.npz", silhouettes=sequence)
    damaged = bytearray((tmp_path / "walk.npz").read_bytes())
    damaged[len(damaged) // 2 : len(damaged) // 2 + 64] = bytes(64)
    (tmp_path / "walk.npz").write_bytes(bytes(damaged))
    fails(tmp_path / "walk.npz", "cannot be read")
    damaged = bytearray(tmp_path.joinpath("walk.npz").read_bytes())
    damaged[6] |= 1  # marks the member as encrypted
    damaged[damaged.rindex(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(bytes(damaged))
    fails(tmp_path / "locked.npz", "cannot be read", "encrypted")
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("silhouettes.npy", "hello")
    fails(tmp_path / "text.npz", "cannot be read")


def test_bad_folders(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", "a folder of pictures, got an empty one")
    (tmp_path / "empty" / "0.webp").touch()
    fails(tmp_path / "empty", "got one with none, but with 0.webp")
    write(tmp_path / "empty" / "walk.npz", sequence)
    fails(tmp_path / "empty", "got one of sequences, such as walk.npz; read each of them")
    write_pngs(tmp_path / "torn", sequence)
    for t in (2, 3):
        png = tmp_path / "torn" / f"{t}.png"
        png.write_bytes(png.read_bytes()[:60])
    fails(tmp_path / "torn", "at least 2 of 5 that cannot be read", "torn/2.png: expected a PNG, JPEG", "a PNG picture")
    for t in (2, 3):
        (tmp_path / "torn" / f"{t}.png").write_bytes(b"hello")
    fails(tmp_path / "torn", "torn/2.png", "a text file that cannot be read")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", sequence)
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(read(tmp_path / "real"), sequence)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    fails(tmp_path / "missing.npz", "got nothing there")
    (tmp_path / "walk.mp4").write_bytes(b"x")
    fails(tmp_path / "walk.mp4", "got suffix .mp4")
    (tmp_path / "walk").write_bytes(b"x")
    fails(tmp_path / "walk", "a file without suffix")


def test_png_without_pillow_names_the_extra(
    tmp_path: Path, sequence: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pngs(tmp_path / "walk", sequence)
    monkeypatch.setitem(__import__("sys").modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"PNG silhouettes need Pillow.*pip install 'hstl_fast\[cli\]'"):
        read(tmp_path / "walk")
