"""The sequences under files and folders, and their names."""

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hstl_fast.silhouettes import align, by_reason, find, find_sequences, is_sequence, read, write
from tests.silhouettes.helpers import fails, write_pngs

STREET = Path(__file__).parents[1] / "data" / "street"


@pytest.mark.parametrize("other", ["walk.npz", "002/nm/walk.npy", "frames"])
def test_pictures_beside_sequences_are_left_out(tmp_path: Path, sequence: NDArray[np.uint8], other: str) -> None:
    """As frames, they would hide the sequences beside them; who reads the folder itself is told."""
    write_pngs(tmp_path / "data", sequence)
    (tmp_path / "data" / other).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path / "data" / other, sequence)
    found = find([tmp_path / "data"])
    assert [name for name, _ in found.sequences] == [other.removesuffix(".npz").removesuffix(".npy")]
    assert by_reason(found.left_out) == {"picture beside sequences": 5}
    assert found.left_out[0].where == str(tmp_path / "data" / "0.png")
    fails(tmp_path / "data", "frames or sequences", f"0.png and {other}")


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


def test_a_closed_folder_does_not_hide_the_others(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, original = tree / "002", os.scandir

    def guarded(path: object) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return original(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", guarded)
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


def write_all(root: Path, sequence: NDArray[np.uint8], *files: str) -> None:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        write(root / file, sequence)


def test_what_lies_beside_sequences_is_listed(tree: Path, sequence: NDArray[np.uint8]) -> None:
    """A stray picture at the root does not spoil the data set, and empty folders are counted."""
    expected = names(tree)
    write_pngs(tree / "001", sequence[:2])
    for name in ("cover.png", "walk.jpg"):
        (tree / name).write_bytes(b"never opened")
    for name in ("004/nm-01/000", "004/nm-01/018", "005"):
        (tree / name).mkdir(parents=True)
    (tree / "005" / "readme.txt").touch()
    (tree / "005" / "gone.npz").symlink_to(tree / "nowhere.npz")
    found = find([tree])
    assert [name for name, _ in found.sequences] == [*expected[:4], "005/gone", *expected[4:]]
    listed = {(each.reason, Path(each.where).relative_to(tree).as_posix()) for each in found.left_out}
    assert listed == {
        ("picture beside sequences", "cover.png"),
        ("picture beside sequences", "walk.jpg"),
        ("picture beside sequences", "001/0.png"),
        ("picture beside sequences", "001/1.png"),
        ("empty folder", "004/nm-01/000"),
        ("empty folder", "004/nm-01/018"),
        ("file of another kind", "notes.txt"),
        ("file of another kind", "005/readme.txt"),
    }
    fails(found.sequences[4][1], "got nothing there")


def test_folders_without_silhouettes_are_listed(tree: Path) -> None:
    (tree / "006" / "notes").mkdir(parents=True)
    (tree / "006" / "notes" / "a.txt").touch()
    left_out = [(Path(each.where).name, each.reason) for each in find([tree]).left_out]
    assert ("notes", "folder without silhouettes") in left_out


def test_folders_of_file_systems_are_skipped(tree: Path, sequence: NDArray[np.uint8]) -> None:
    expected = find([tree])
    write_all(tree, sequence, "__MACOSX/a.npz", "001/@eaDir/b.npz")
    assert find([tree]) == expected


def test_links_to_folders_above_are_not_entered(tree: Path) -> None:
    expected = names(tree)
    (tree / "001" / "loop").symlink_to(tree)
    (tree / "002" / "self").symlink_to(tree / "002")
    (tree / "up").symlink_to(tree.parent)
    found = find([tree])
    assert [name for name, _ in found.sequences] == expected
    links = {Path(each.where).name for each in found.left_out if each.reason == "link to a folder above"}
    assert links == {"loop", "self", "up"}


def test_the_shortest_path_names_a_sequence(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    root = tmp_path / "data"
    write_all(root, sequence, "ann/deep/down/walk.npz", "bob/walk.npz")
    (root / "bob" / "again").symlink_to(root / "ann" / "deep")
    (root / "ann" / "same").symlink_to(root / "bob")
    (root / "aaa").symlink_to(root / "ann")
    found = find([root])
    assert [name for name, _ in found.sequences] == ["ann/deep/down/walk", "bob/walk"]
    twice = [Path(each.where).name for each in found.left_out]
    assert sorted(twice) == ["aaa", "again", "same"]
    assert by_reason(found.left_out) == {"link to a folder that is read already": 3}


def test_a_link_to_a_folder_elsewhere_is_entered(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    write_all(tmp_path, sequence, "disk2/nm/walk.npz", "data/bob/walk.npz")
    (tmp_path / "data" / "ann").symlink_to(tmp_path / "disk2")
    assert names(tmp_path / "data") == ["ann/nm/walk", "bob/walk"]


def test_names_are_composed(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    """Two forms of one name are one person."""
    composed, decomposed = "Jos\u00e9", "Jose\u0301"
    write_all(tmp_path, sequence, f"{composed}/nm.npz", f"{decomposed}/bg.npz", f"{decomposed}/nm.npz")
    found = names(tmp_path)
    assert len(set(found)) == 3
    assert {name.split("/")[0] for name in found} == {composed}
    assert f"{composed}/bg" in found


def test_folders_of_other_pictures_are_found(tmp_path: Path, sequence: NDArray[np.uint8]) -> None:
    image = pytest.importorskip("PIL.Image")
    for suffix in (".jpg", ".bmp", ".tiff"):
        folder = tmp_path / "data" / suffix[1:]
        folder.mkdir(parents=True)
        for t, frame in enumerate(sequence):
            image.fromarray(frame).save(folder / f"{t}{suffix}")
        assert is_sequence(folder)
    assert names(tmp_path / "data") == ["bmp", "jpg", "tiff"]
