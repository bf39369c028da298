"""Data sets in every published layout are recognised, and give the right people, recordings, cameras and frames."""

import os
import pickle
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.data import LAYOUTS, DataError, Sequences, open_sequences, open_together
from hstl_fast.data.layouts import walk
from hstl_fast.data.layouts.pointers import POINTER
from hstl_fast.silhouettes import SilhouetteError, finding
from hstl_fast.silhouettes.left_out import by_reason
from tests.helpers.datasets import WRITERS, Silhouettes, walks, write_data_set, write_frames, write_pickle


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each layout, with the data set in it."""
    return {layout: tmp_path_factory.mktemp(layout) for layout in WRITERS}


@pytest.fixture(scope="module")
def expected(roots: dict[str, Path]) -> dict[str, dict[str, Silhouettes]]:
    return {layout: write_data_set(layout, root / "data") for layout, root in roots.items()}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def left_out(sequences: Sequences, root: Path) -> set[tuple[str, str]]:
    return {(os.path.relpath(each.where, root), each.reason) for each in sequences.left_out}


def refused(path: Path, *parts: str, **options: str) -> None:
    with pytest.raises(DataError) as failure:
        open_sequences(path, **options)
    message = str(failure.value)
    assert "\n" not in message
    for part in ("expected", "got", *parts):
        assert part in message, message


def test_every_layout_has_a_writer() -> None:
    assert set(WRITERS) == set(LAYOUTS)


@pytest.mark.parametrize("layout", WRITERS)
def test_reads_what_was_written(
    layout: str, roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    sequences = open_sequences(roots[layout] / "data")
    assert sequences.layout == layout
    assert list(sequences.names) == sorted(expected[layout])
    for i, item in enumerate(sequences.items):
        assert [item.label, item.type, item.view] == [*item.name.split("/"), ""][:3]
        assert np.array_equal(sequences.read(i), expected[layout][item.name]), item.name


@pytest.mark.parametrize(
    ("layout", "name"),
    [("casia-b", "001-nm-01-090-006.png"), ("grew", "gei.png"), ("gait3d", None), ("opengait", None)],
)
def test_says_which_frames_are_left_out(
    layout: str, name: str | None, roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    sequences = open_sequences(roots[layout] / "data")
    index = sequences.names.index("001/nm-01/090") if layout == "casia-b" else 0
    left = [Path(each.where).name for each in sequences.reading(index).left_out]
    assert left == ([name] if name else [])


@pytest.mark.parametrize("layout", WRITERS)
def test_a_layout_that_is_named_finds_the_same(
    layout: str, roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    sequences = open_sequences(roots[layout] / "data", layout)
    assert (sequences.layout, set(sequences.names)) == (layout, set(expected[layout]))


@pytest.mark.parametrize("layout", sorted(set(WRITERS) - {"folders"}))
def test_a_root_that_is_too_high_is_descended(
    layout: str, roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    touch(roots[layout], "README.txt", "__MACOSX/._data")
    for sequences in (open_sequences(roots[layout]), open_sequences(roots[layout], layout)):
        assert set(sequences.names) == set(expected[layout])
        assert any(str(roots[layout] / "data") in note for note in sequences.notes)


def test_only_silhouettes_are_taken_of_several_modalities(
    roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    root = roots["sustech1k"] / "data"
    sequences = open_sequences(root)
    assert by_reason(sequences.left_out) == {walk.OTHER_MODALITY: 15}
    files = {Path(each.where).name: each.detail for each in sequences.left_out}
    assert files["*-sync-*-LiDAR-PCDs_depths.pkl"].startswith(f"{len(sequences)} files such as 0001/")
    raw = open_sequences(root, pattern="*Sils_raw*")
    assert set(raw.names) == {f"{name}/{stem}" for name in expected["sustech1k"] for stem in stems(name)}
    assert len(raw.read(0)) == 1
    refused(root, "'*nothing*'", "other modality", pattern="*nothing*")


def stems(name: str) -> list[str]:
    view = name.split("/")[2]
    return [f"07-{view}-Camera-Sils_raw", f"15-sync-{view}-Camera-Sils_raw"]


def test_a_pattern_is_refused_where_nothing_can_be_chosen(roots: dict[str, Path], expected: object) -> None:
    refused(roots["casia-b"] / "data", "--pattern", "casia-b", pattern="*.png")


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["000-aligned-sils.pkl", "000-ratios.pkl", "000-rgbs.pkl", "000-sils.pkl"], ["000-aligned-sils.pkl"]),
        (["sils-seq0.pkl", "smpls-seq0.pkl", "pars-seq0.pkl"], ["sils-seq0.pkl"]),
        (["0_heatmap.pkl", "1_sil.pkl"], ["1_sil.pkl"]),
        (["00-DenoisingFea_96x48.pkl", "01-Sils_96x48.pkl"], ["01-Sils_96x48.pkl"]),
        (["walk1.pkl", "walk2.pkl"], ["walk1.pkl", "walk2.pkl"]),
        (["walk1.pkl", "pose.pkl"], ["walk1.pkl"]),
        (["depth.pkl", "rgb.pkl"], []),
    ],
)
def test_modalities_are_told_by_names(names: list[str], chosen: list[str], tmp_path: Path) -> None:
    touch(tmp_path, *(f"00{i}/nm-01/090/{name}" for i in (1, 2) for name in names))
    if not chosen:
        refused(tmp_path, "opengait", names[0])
        return
    sequences = open_sequences(tmp_path)
    ends = [""] if len(chosen) == 1 else [f"/{Path(name).stem}" for name in chosen]
    assert sequences.names == tuple(f"00{i}/nm-01/090{end}" for i in (1, 2) for end in ends)
    kinds = len(names) - len(chosen)
    assert by_reason(sequences.left_out) == ({walk.OTHER_MODALITY: kinds} if kinds else {})


def test_what_is_beside_the_sequences_is_listed(tmp_path: Path) -> None:
    for person in ("001", "002"):
        write_frames(tmp_path / person / "nm-01" / "090", walks()[1, "nm-01", 90], "{}".format)
    touch(tmp_path, "stray.png", "003.tar.gz", "002/nm-01/000/notes.txt", "002/GEI/notes.txt")
    (tmp_path / "001" / "bg-01" / "090").mkdir(parents=True)
    (tmp_path / "004").mkdir()
    sequences = open_sequences(tmp_path)
    assert (sequences.layout, sequences.names) == ("casia-b", ("001/nm-01/090", "002/nm-01/090"))
    assert left_out(sequences, tmp_path) == {
        ("stray.png", walk.STRAY_FILE),
        ("003.tar.gz", walk.ARCHIVE),
        ("002/nm-01/000", finding.NO_SILHOUETTES),
        ("002/GEI", walk.OTHER_FOLDER),
        ("001/bg-01/090", finding.EMPTY_FOLDER),
        ("004", finding.EMPTY_FOLDER),
    }


def test_links_are_followed_once_and_never_upwards(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "data", tmp_path / "elsewhere" / "002"
    for person in (root / "001", elsewhere):
        write_pickle(person / "nm-01" / "090" / "090.pkl", walks()[1, "nm-01", 90])
    (root / "002").symlink_to(elsewhere)
    (root / "001" / "up").symlink_to(root)
    (root / "003").symlink_to(root / "001")
    (root / "004").symlink_to(elsewhere)
    (root / "005").symlink_to(tmp_path / "nothing")
    sequences = open_sequences(root)
    assert sequences.names == ("001/nm-01/090", "002/nm-01/090")
    assert left_out(sequences, root) == {
        ("001/up", finding.LINK_ABOVE),
        ("003", finding.LINK_TWICE),
        ("004", finding.LINK_TWICE),
        ("005", finding.BROKEN_LINK),
    }


def test_pointers_of_git_lfs_are_named(tmp_path: Path) -> None:
    for person in ("001", "002"):
        write_pickle(tmp_path / person / "nm-01" / "090" / "090.pkl", walks()[1, "nm-01", 90])
    pointer = tmp_path / "002" / "nm-01" / "090" / "090.pkl"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    sequences = open_sequences(tmp_path)
    assert sequences.labels == ("001",)
    assert left_out(sequences, tmp_path) == {("002/nm-01/090/090.pkl", POINTER)}
    (tmp_path / "001" / "nm-01" / "090" / "090.pkl").write_bytes(pointer.read_bytes())
    refused(tmp_path, "git lfs pull")


def test_a_folder_that_cannot_be_opened_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, *(f"{person}/nm-01/090/1.png" for person in ("001", "002", "003")))
    scandir = os.scandir

    def closed(path: str) -> object:
        if path == str(tmp_path / "002" / "nm-01"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    sequences = open_sequences(tmp_path)
    assert sequences.labels == ("001", "003")
    assert sequences.left_out == ((str(tmp_path / "002" / "nm-01"), walk.CLOSED, "Permission denied"),)


def test_people_are_compared_in_the_composed_form(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        touch(tmp_path, f"{unicodedata.normalize(form, 'José')}/nm-01/090/090.pkl")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system has one form of names only")
    sequences = open_sequences(tmp_path)
    assert set(sequences.labels) == {unicodedata.normalize("NFC", "José")}
    assert len(set(sequences.names)) == 2
    assert any("share their names" in note for note in sequences.notes)


def test_numbers_that_differ_by_leading_zeros_are_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{person}/nm-01/090/090.pkl" for person in ("1", "001", "002", "a b\n")))
    sequences = open_sequences(tmp_path)
    assert set(sequences.labels) == {"1", "001", "002", "a b\n"}
    assert any("001 and 1" in note for note in sequences.notes)


def test_one_person_only_is_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"CASIA-B/{person}/walk/1.png" for person in ("ann", "bob")))
    sequences = open_sequences(tmp_path)
    assert set(sequences.labels) == {"CASIA-B"}
    assert any("one person, CASIA-B" in note for note in sequences.notes)


def test_several_data_sets_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"CASIA-B/{person}/nm-01/090/1.png" for person in ("001", "002")))
    touch(tmp_path, *(f"OUMVLP/Silhouette_090-00/{person}/0001.png" for person in ("00001", "00002")))
    refused(tmp_path, "CASIA-B (casia-b)", "OUMVLP (oumvlp)", "--layout folders")


def test_a_mixture_of_layouts_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "001/nm-01/090/1.png", "ann/walk/1.png", "bob/walk/1.png")
    refused(tmp_path, "casia-b (33 %", "ann/walk/1.png", "--layout casia-b or --layout folders")
    assert open_sequences(tmp_path, "casia-b").names == ("001/nm-01/090",)
    assert len(open_sequences(tmp_path, "folders")) == 3


def test_parts_of_a_data_set_are_no_people(tmp_path: Path) -> None:
    touch(tmp_path, "gallery/ann/1.png", "probe/ann/1.png")
    refused(tmp_path, "gallery, probe", "--layout folders")
    assert set(open_sequences(tmp_path, "folders").labels) == {"gallery", "probe"}


@pytest.mark.parametrize("layout", ["opengait", "casia-b", "gait3d", "sustech1k"])
def test_a_root_that_is_too_low_is_refused(layout: str, roots: dict[str, Path], expected: object) -> None:
    root = roots[layout] / "data" / ("2D_Silhouettes" if layout == "gait3d" else "")
    person = min(path for path in root.iterdir() if path.is_dir())
    refused(person, "one person", layout, "--layout folders")
    assert len(open_sequences(person, "folders")) >= 4


def test_nothing_to_open_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing", "missing", "nothing there")
    refused(tmp_path, "an empty folder")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    refused(tmp_path / "link", "a link to nothing")
    (tmp_path / "link").unlink()
    touch(tmp_path, "001.tar.gz")
    refused(tmp_path, "archives such as 001.tar.gz", "unpack")
    refused(tmp_path, "casia-b", "001/nm-01/090/", layout="casia-b")
    with pytest.raises(ValueError, match="did you mean 'casia-b'"):
        open_sequences(tmp_path, "casiab")
    with pytest.raises(ValueError, match="at least one"):
        open_together([])


def test_a_packed_file_is_opened_alone(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"ARROW1" + bytes(10))
    touch(tmp_path, "ann/1.png")
    sequences = open_together([tmp_path / "a.arrow", tmp_path / "ann"])
    with pytest.raises(SilhouetteError, match=r"suffix \.arrow, an Arrow file \(a packed file is opened alone\)"):
        sequences.read(sequences.names.index("a"))


def test_a_file_is_one_sequence(tmp_path: Path) -> None:
    np.save(tmp_path / "ann.npy", walks()[1, "nm-01", 90])
    sequences = open_sequences(tmp_path / "ann.npy")
    assert sequences.names == ("ann",)
    assert np.array_equal(sequences.read(0), walks()[1, "nm-01", 90])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mp4", "hstl-fast silhouettes"),
        ("a.tar.gz", "unpack"),
        ("1.png", "single picture"),
        ("p.json", "--partition"),
    ],
)
def test_other_files_are_refused(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"1234")
    refused(tmp_path / name, name, words)


def test_several_paths_are_one_data_set(
    roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]], tmp_path: Path
) -> None:
    np.save(tmp_path / "ann.npy", walks()[1, "nm-01", 90])
    together = open_together([roots["casia-b"] / "data", tmp_path, roots["opengait"] / "data"])
    assert set(together.names) >= {*expected["casia-b"], "ann"}
    assert len(together) == 2 * len(expected["casia-b"]) + 1
    assert any("share their names" in note for note in together.notes)
    assert together.layout == "casia-b, folders, opengait"


def test_an_input_that_is_named_twice_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/001/nm-01/090/090.pkl", "data/002/nm-01/090/090.pkl")
    sequences = open_together([tmp_path / "data", tmp_path])
    assert sequences.names == ("001/nm-01/090", "002/nm-01/090")
    assert any("1 of 2 inputs" in note for note in sequences.notes)


def test_one_of_several_files_may_be_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "ann.npy", walks()[1, "nm-01", 90])
    (tmp_path / "notes.txt").touch()
    sequences = open_together([tmp_path / "ann.npy", tmp_path / "notes.txt"])
    assert sequences.names == ("ann", "notes")
    with pytest.raises(SilhouetteError, match="notes"):
        sequences.read(1)
    with pytest.raises(DataError, match="missing: expected a data set, got nothing there"):
        open_together([tmp_path / "ann.npy", tmp_path / "missing"])


def test_sequences_can_be_sent_to_other_processes(
    roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    sequences = open_sequences(roots["opengait"] / "data", max_frames=3)
    copied = pickle.loads(pickle.dumps(sequences))
    assert copied.items == sequences.items
    assert np.array_equal(copied.read(2), expected["opengait"][copied.names[2]][:3])


def test_chosen_sequences_stay_what_they_are(
    roots: dict[str, Path], expected: dict[str, dict[str, Silhouettes]]
) -> None:
    sequences = open_sequences(roots["opengait"] / "data").subset([5, 1])
    for i, name in enumerate(sequences.names):
        assert sequences.path(i) == str(roots["opengait"] / "data" / name / f"{name[-3:]}.pkl")
        assert np.array_equal(sequences.read(i), expected["opengait"][name])


def test_links_to_themselves_and_pipes_do_not_stop_the_others(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_pickle(root / "001" / "nm-01" / "090" / "090.pkl", walks()[1, "nm-01", 90])
    (root / "self").symlink_to("self")
    (root / "002" / "nm-01" / "090").mkdir(parents=True)
    os.mkfifo(root / "002" / "nm-01" / "090" / "090.pkl")
    sequences = open_sequences(root)
    assert sequences.names == ("001/nm-01/090",)
    assert {
        ("self", finding.BROKEN_LINK),
        ("002/nm-01/090/090.pkl", walk.STRAY_FILE),
    } <= left_out(sequences, root)
