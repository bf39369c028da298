"""Every format in and out, names of sequences, and one sentence for every kind of bad file."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import SilhouetteError, SilhouetteWarning, align, find_sequences, is_sequence, read, write
from hstl_fast.silhouettes.pickles import load_array

STREET = Path(__file__).parents[1] / "data" / "street"


@pytest.fixture
def sequence() -> NDArray[np.uint8]:
    frames = np.zeros((5, 64, 64), np.uint8)
    frames[:, :, 22:42] = np.random.default_rng(0).integers(0, 256, (5, 64, 20))
    return frames


def write_pngs(folder: Path, frames: NDArray[np.generic], mode: str | None = None) -> None:
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True, exist_ok=True)
    for t, frame in enumerate(frames):
        picture = image.fromarray(frame)
        (picture.convert(mode) if mode else picture).save(folder / f"{t}.png")


def fails(path: Path, *parts: str) -> None:
    with pytest.raises(SilhouetteError) as failure:
        read(path)
    message = str(failure.value)
    assert "\n" not in message
    for part in (path.name, "expected", "got", *parts):
        assert part in message, message


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
        (np.zeros((1, 64, 64), np.int32), "got dtype int32"),
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


def test_background_only_frames_of_the_right_size_are_kept(tmp_path: Path) -> None:
    np.save(tmp_path / "walk.npy", np.zeros((4, 64, 64), np.uint8))
    assert read(tmp_path / "walk.npy").shape == (4, 64, 64)


def test_other_sizes_are_aligned_and_empty_frames_reported(tmp_path: Path) -> None:
    frames = np.zeros((3, 120, 90), np.uint8)
    frames[0, 10:100, 30:60] = 255
    frames[2, 20:120, 5:40] = 255
    np.save(tmp_path / "walk.npy", frames)
    with pytest.warns(SilhouetteWarning, match=r"walk.npy: 1 of 3 frames show no body and are left out"):
        aligned = read(tmp_path / "walk.npy")
    np.testing.assert_array_equal(aligned, [align(frames[0]), align(frames[2])])
    np.save(tmp_path / "empty.npy", frames * 0)
    fails(tmp_path / "empty.npy", "a body in at least one frame", "3 frames without one")


def test_png_folder_in_natural_order(tmp_path: Path) -> None:
    frames = np.zeros((12, 64, 64), np.uint8)
    frames[:, :, 0] = 255
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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("fortran", [False, True])
def test_opengait_pickles_of_every_protocol(
    tmp_path: Path, sequence: NDArray[np.uint8], protocol: int, fortran: bool
) -> None:
    array = np.asfortranarray(sequence) if fortran else sequence
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(array, protocol=protocol))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


class _Permuted:
    """Pickles as numpy 2.4 writes an array whose memory is in an order of axes of its own."""

    def __init__(self, memory: NDArray[np.generic], axes: object) -> None:
        self.memory, self.axes = memory, axes

    def __reduce_ex__(self, protocol: object) -> tuple[object, ...]:
        rebuild, (_, dtype, shape, _) = np.ascontiguousarray(self.memory).__reduce_ex__(5)[:2]  # type: ignore[misc]
        return rebuild, (self.memory.tobytes(), dtype, shape, "K", self.axes)


def test_pickled_arrays_with_permuted_axes(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    (tmp_path / "own.pkl").write_bytes(pickle.dumps(sequence.transpose(1, 0, 2), protocol=5))
    memory = sequence.transpose(2, 0, 1)
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(_Permuted(memory, (1, 2, 0)), protocol=5))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)
    np.testing.assert_array_equal(load_array(tmp_path / "own.pkl"), sequence.transpose(1, 0, 2))


@pytest.mark.parametrize("axes", [(0, 1), (0, 0, 1), (0, 1, 3), (-1, 0, 1), "012", ("0", 1, 2), (0, 1, None)])
def test_pickled_axes_that_are_no_permutation(tmp_path: Path, axes: object) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(_Permuted(np.zeros((2, 64, 64), np.uint8), axes), protocol=5))
    fails(tmp_path / "walk.pkl", "order of axes is not a permutation")


@pytest.mark.parametrize("dtype", ["bool", ">f4", "<f8", "f2"])
def test_pickled_dtypes(tmp_path: Path, sequence: NDArray[np.uint8], dtype: str) -> None:
    binary = sequence > 127
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(binary.astype(dtype)))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), binary * np.uint8(255))


def test_pickle_written_by_an_old_numpy(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    new = pickle.dumps(sequence, protocol=2)
    assert b"numpy._core" in new or b"numpy.core" in new
    (tmp_path / "walk.pkl").write_bytes(new.replace(b"numpy._core", b"numpy.core"))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


def test_pickled_list_of_frames(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(list(sequence)))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)
    (tmp_path / "mixed.pkl").write_bytes(pickle.dumps([sequence[0], sequence[0, :9]]))
    fails(tmp_path / "mixed.pkl", "list of frames [H, W] of one size")


class _Runs:
    """What a hostile pickle does: on loading, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"a": x}, lambda x: (np.zeros(3), x)])
def test_pickle_runs_nothing(tmp_path: Path, wrap: object) -> None:
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(wrap(_Runs(tmp_path / "ran"))))  # type: ignore[operator]
    fails(tmp_path / "walk.pkl", "nothing was run")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"cposix\nsystem\n(S'true'\ntR.", "posix.system"),
        (b"cbuiltins\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"cnumpy\nload\n(S'x'\ntR.", "numpy.load"),
        (b"cnumpy.core.multiarray\nscalar\n.", "numpy.core.multiarray.scalar"),
        (b"S'x'\nP0\n.", None),
        (b"Pan id\n.", "a persistent id"),
    ],
)
def test_pickle_names_the_offending_global(tmp_path: Path, content: bytes, named: str | None) -> None:
    (tmp_path / "walk.pkl").write_bytes(content)
    fails(tmp_path / "walk.pkl", *([named] if named else []))


def array_pickle(dtype: str, shape: tuple[object, ...], data: bytes) -> bytes:
    """A pickle that claims an array of any dtype and shape over any bytes."""

    class Claim:
        def __reduce__(self) -> tuple[object, ...]:
            reconstruct, arguments, _ = np.zeros(1, np.uint8).__reduce__()  # type: ignore[misc]
            return reconstruct, arguments, (1, shape, np.dtype(dtype), False, data)

    return pickle.dumps(Claim())


@pytest.mark.parametrize(
    "content",
    [
        array_pickle("u1", (2, 64, 64), b"short"),
        array_pickle("u1", (-1, 64, 64), b""),
        array_pickle("u1", (2**40, 64, 64), b"x" * 64),
        array_pickle("f8", (1, 2, 2), b"x" * 31),
        array_pickle("u1", ("64", 64, 64), b""),
        pickle.dumps(np.array([{"a": 1}, None], dtype=object)),
        pickle.dumps(np.array(["a", "b"])),
        pickle.dumps(np.zeros(3, [("a", "u1"), ("b", "f4")])),
        pickle.dumps(np.zeros(3, "M8[s]")),
        pickle.dumps({"silhouettes": np.zeros((3, 64, 64), np.uint8)}),
        pickle.dumps("hello"),
        pickle.dumps(np.zeros((2, 64, 64), np.uint8))[:-3000],
        pickle.dumps(np.zeros((2, 64, 64), np.uint8))[:40],
        b"",
        b"not a pickle",
        b"cnumpy\nndarray\n(tR.",
        b"cnumpy\nndarray\n.",
        b"cnumpy\ndtype\n(tR.",
    ],
)
def test_bad_pickles(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "walk.pkl").write_bytes(content)
    fails(tmp_path / "walk.pkl")


def test_a_small_pickle_cannot_make_a_huge_message(tmp_path: Path) -> None:
    """Forty lists, each holding the one before twice, stand for a dtype: printed, they would be 2^40 brackets long."""
    nested = b"(lp0\n" + b"".join(b"0(g%d\ng%d\nlp%d\n" % (i, i, i + 1) for i in range(40))
    dtype = b"cnumpy\ndtype\n(" + nested + b"tR"
    claim = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I0\nt" + dtype
    (tmp_path / "walk.pkl").write_bytes(claim + b"I00\nS''\ntb.")
    fails(tmp_path / "walk.pkl", "its dtype, a list, is not a plain number type")


def test_a_pickle_cannot_alter_what_the_next_one_meets(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    """BUILD with a slot state sets attributes on whatever is on the stack, here on the stand-in class itself."""
    (tmp_path / "bad.pkl").write_bytes(b"cnumpy\nndarray\n(N}S'__setstate__'\nNstb.")
    with pytest.raises(SilhouetteError):
        read(tmp_path / "bad.pkl")
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(sequence))
    np.testing.assert_array_equal(read(tmp_path / "walk.pkl"), sequence)


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
        (np.zeros((2, 64, 64), np.int64), "got dtype int64"),
        (np.full((2, 64, 64), np.nan, np.float32), "got NaN or infinity"),
        (np.full((2, 64, 64), 255.0), "got values in 255..255"),
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
    fails(tmp_path / "empty", "a folder with PNGs")
    write_pngs(tmp_path / "mixed", sequence)
    pytest.importorskip("PIL.Image").fromarray(sequence[0, :30]).save(tmp_path / "mixed" / "3.png")
    with pytest.raises(SilhouetteError, match=r"mixed/3.png: .* one size, 64 x 64 as 0.png, got 30 x 64"):
        read(tmp_path / "mixed")
    write_pngs(tmp_path / "torn", sequence)
    png = tmp_path / "torn" / "2.png"
    png.write_bytes(png.read_bytes()[:60])
    with pytest.raises(SilhouetteError, match=r"torn/2.png: expected a PNG, got a file that cannot be read as one"):
        read(tmp_path / "torn")
    png.write_bytes(b"hello")
    with pytest.raises(SilhouetteError, match=r"torn/2.png: expected a PNG"):
        read(tmp_path / "torn")


@pytest.mark.parametrize("other", ["walk.npz", "002/nm/walk.npy", "frames"])
def test_a_folder_of_frames_and_sequences_is_refused(tmp_path: Path, sequence: NDArray[np.uint8], other: str) -> None:
    """Frames would hide the sequences beside them."""
    write_pngs(tmp_path / "data", sequence)
    (tmp_path / "data" / other).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path / "data" / other, sequence)
    assert names(tmp_path / "data") == ["data"]
    fails(tmp_path / "data", "frames or sequences", f"0.png and {other}")


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    pytest.importorskip("PIL.Image")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write(tmp_path / "link", sequence)
    assert (tmp_path / "link").is_symlink()
    np.testing.assert_array_equal(read(tmp_path / "real"), sequence)


def test_missing_and_unknown_files(tmp_path: Path) -> None:
    fails(tmp_path / "nobody.npz", "got nothing there")
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


@pytest.fixture
def tree(tmp_path: Path, sequence: NDArray[np.uint8]) -> Path:
    root = tmp_path / "data"
    for name in ("001/nm-01/walk2.npz", "001/nm-01/walk10.npz", "002/walk.npy", "top.npz"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write(root / name, sequence)
    write_pngs(root / "003" / "frames.v1", sequence)
    for name in (".hidden.npz", "notes.txt", "003/.cache/x.npz"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no")
    return root


def names(*inputs: Path) -> list[str]:
    return [name for name, _ in find_sequences(inputs)]


def test_find_walks_folders(tree: Path) -> None:
    assert names(tree) == ["001/nm-01/walk2", "001/nm-01/walk10", "002/walk", "003/frames.v1", "top"]
    assert [path.name for _, path in find_sequences([tree])] == [
        "walk2.npz",
        "walk10.npz",
        "walk.npy",
        "frames.v1",
        "top.npz",
    ]


def test_find_takes_files_and_frame_folders_as_they_are(tree: Path) -> None:
    assert names(tree / "top.npz", tree / "003" / "frames.v1") == ["top", "frames.v1"]


def test_find_makes_names_unique(tree: Path, sequence: NDArray[np.uint8]) -> None:
    write(tree / "002" / "walk.npz", sequence)
    found = names(tree / "002")
    assert [Path(name).name for name in found] == ["walk.npy", "walk.npz"]
    write(tree / "004" / "walk.npz", sequence)
    both = names(tree / "004", tree / "001" / "nm-01")
    assert both == ["walk", "walk2", "walk10"]
    other = tree / "005"
    write(other / "walk.npz", sequence)
    assert names(tree / "004", other) == ["walk/004", "walk/005"]


def test_find_keeps_the_person_first_in_every_name(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    for day in ("day1", "day2"):
        for name in ("ann.npz", "bob/nm.npz"):
            (tmp_path / day / name).parent.mkdir(parents=True, exist_ok=True)
            write(tmp_path / day / name, sequence)
    assert names(tmp_path / "day1" / "ann.npz", tmp_path / "day2" / "ann.npz") == ["ann/day1", "ann/day2"]
    both = names(tmp_path / "day1", tmp_path / "day2")
    assert both == ["ann/day1", "bob/day1/nm", "ann/day2", "bob/day2/nm"]
    for place in ("a", "b"):
        write(tmp_path / place / "day1" / "ann.npz", sequence)
    far = names(tmp_path / "a" / "day1", tmp_path / "b" / "day1")
    assert len(set(far)) == 2
    assert {name.split("/")[0] for name in far} == {"ann"}


def test_find_tells_a_folder_of_frames_from_a_file_beside_it(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    write_pngs(tmp_path / "data" / "walker6", sequence)
    write(tmp_path / "data" / "walker6.npz", sequence)
    expected = ["walker6/data/walker6", "walker6/data/walker6.npz"]
    assert sorted(names(tmp_path / "data")) == expected
    assert sorted(names(tmp_path / "data" / "walker6", tmp_path / "data" / "walker6.npz")) == expected


@pytest.mark.parametrize("method", ["iterdir", "is_dir"])
def test_a_closed_folder_does_not_hide_the_others(tree: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    closed, original = tree / "002", getattr(Path, method)

    def guarded(self: Path) -> object:
        if self == closed:
            raise PermissionError(13, "Permission denied", str(self))
        return original(self)

    monkeypatch.setattr(Path, method, guarded)
    assert names(tree) == ["001/nm-01/walk2", "001/nm-01/walk10", "002", "003/frames.v1", "top"]
    assert names(closed, tree / "top.npz") == ["002", "top"]
    fails(closed, "cannot be opened (Permission denied)")


def test_find_returns_the_same_file_once(tree: Path) -> None:
    assert names(tree / "top.npz", tree, tree / "002" / ".." / "top.npz").count("top") == 1


def test_find_leaves_bad_inputs_to_read(tree: Path) -> None:
    (tree / "empty").mkdir()
    found = find_sequences([tree / "empty", tree / "nothing.npz", tree / "notes.txt", tree / "top.npz"])
    assert [name for name, _ in found] == ["empty", "nothing", "notes", "top"]
    for _, path in found[:3]:
        fails(path)
    with pytest.raises(ValueError, match="at least one file or folder, got none"):
        find_sequences([])


def test_find_ignores_the_contact_sheet(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    write(tmp_path / "out" / "track01.npz", sequence)
    (tmp_path / "out" / "contact_sheet.png").write_bytes(b"png")
    assert names(tmp_path / "out") == ["track01"]


def test_is_sequence(tree: Path) -> None:
    assert is_sequence(tree / "top.npz")
    assert is_sequence(tree / "003" / "frames.v1")
    assert not is_sequence(tree)
    assert not is_sequence(tree / "notes.txt")
    assert not is_sequence(tree / "missing.npz")


def test_shipped_samples() -> None:
    found = {side: find_sequences([STREET / side]) for side in ("gallery", "probe")}
    assert [name for name, _ in found["gallery"]] == [name for name, _ in found["probe"]]
    assert len(found["gallery"]) == 6
    for _, path in found["gallery"] + found["probe"]:
        silhouettes = read(path)
        assert len(silhouettes) >= 20
        np.testing.assert_array_equal(silhouettes, [align(frame) for frame in silhouettes])
