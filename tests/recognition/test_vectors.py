"""The embeddings of a large gallery in a memory-mapped file, which follows the database."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, GalleryError, GalleryWarning, vector_file, vectors
from tests.recognition.conftest import WalkMaker


@pytest.fixture(autouse=True)
def large(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let every gallery count as a large one."""
    monkeypatch.setattr(vectors, "MAPPED_BYTES", 1)
    monkeypatch.setattr(vectors, "_AT_ONCE", 2)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def gallery(url: str, network: Network, walk: WalkMaker) -> Iterator[Gallery]:
    with Gallery(url, network=network) as opened:
        opened.enroll("Ada", [walk(i) for i in range(4)])
        yield opened


def mapped(gallery: Gallery) -> np.ndarray:
    found = gallery.vectors().vectors
    assert isinstance(found, np.memmap)
    return found


def in_memory(gallery: Gallery) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "MAPPED_BYTES", 1 << 40)
        loaded = vectors.Vectors(gallery._database)
        patch.setattr(loaded, "remove_file", lambda: None)
        return loaded.load()[1]


def files(gallery: Gallery) -> list[Path]:
    folder = gallery._loader.folder()
    return sorted(folder.iterdir()) if folder.exists() else []


def test_the_file_follows_the_database(gallery: Gallery, url: str, walk: WalkMaker, network: Network) -> None:
    assert gallery.identify([walk(3)])[0].matches[0].source == walk(3).source
    np.testing.assert_array_equal(mapped(gallery), in_memory(gallery))
    before = mapped(gallery)
    with Gallery(url, network=network) as other:
        other.enroll("Bob", [walk(4)])
        assert mapped(other).shape[0] == 5
    assert gallery.identify([walk(4)])[0].name == "Bob"
    gallery.remove_recording(gallery.recordings()[0].id)
    np.testing.assert_array_equal(mapped(gallery), in_memory(gallery))
    # A map that is held stays as it was.
    assert before.shape[0] == 4


def test_what_is_deleted_is_in_no_file(gallery: Gallery, url: str, network: Network, walk: WalkMaker) -> None:
    gallery.enroll("Bob", [walk(4)])
    trace = np.array(mapped(gallery)[4]).tobytes()
    assert any(trace in path.read_bytes() for path in files(gallery))
    with Gallery(url, network=network) as other:
        other.remove("Bob")
    assert files(gallery)
    assert not any(trace in path.read_bytes() for path in files(gallery))


def test_a_gallery_that_is_small_again_has_no_file(
    gallery: Gallery, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    mapped(gallery)
    assert files(gallery)
    monkeypatch.setattr(vectors, "MAPPED_BYTES", 1 << 20)
    gallery.enroll("Bob", [walk(4)])
    assert gallery.identify([walk(4)])[0].name == "Bob"
    assert not files(gallery)


def test_a_restored_backup_has_its_own_vectors(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    """The numbers that it gives to new embeddings were those of others, which the file has."""
    path, backup = tmp_path / "people.db", tmp_path / "backup.db"
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
    shutil.copyfile(path, backup)
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Bob", [walk(2)])
        mapped(gallery)
    shutil.copyfile(backup, path)
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Eve", [walk(3)])
        assert files(gallery)
        np.testing.assert_array_equal(mapped(gallery), in_memory(gallery))


def test_without_a_place_for_the_file_memory_is_used(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        (tmp_path / "people.db.vectors").write_text("in the way")
        with pytest.warns(GalleryWarning, match=r"people\.db\.vectors: cannot be written"):
            assert gallery.identify([walk(1)])[0].name == "Ada"


def test_a_damaged_embedding_is_named(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    path = tmp_path / "people.db"
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        vector = in_memory(gallery).tobytes()
    data = path.read_bytes()
    at = data.index(vector[:64])
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    with (
        Gallery(path, network=network) as gallery,
        pytest.raises(GalleryError, match="the embedding of recording 1"),
    ):
        gallery.vectors()


def test_a_file_of_an_unknown_state_is_not_trusted(
    tmp_path: Path, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process was killed as soon as the file had its vectors, and a backup was restored."""
    path, backup = tmp_path / "people.db", tmp_path / "backup.db"
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        mapped(gallery)
        shutil.copyfile(path, backup)
        gallery.enroll("Bob", [walk(2)])
        with monkeypatch.context() as patch:
            patch.setattr(vector_file.VectorFile, "_map", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                gallery.vectors()
    shutil.copyfile(backup, path)
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Eve", [walk(3)])
        np.testing.assert_array_equal(mapped(gallery), in_memory(gallery))


def test_a_deletion_reaches_the_file_by_any_link(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    path, link = tmp_path / "people.db", tmp_path / "link.db"
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada", [walk(1), walk(2)])
        gallery.enroll("Bob", [walk(3)])
        trace = np.array(mapped(gallery)[2]).tobytes()
        link.symlink_to(path)
        with Gallery(link, network=network) as other:
            mapped(other)
        gallery.remove("Bob")
    assert files(gallery)
    assert not any(trace in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())


def test_what_others_keep_in_a_folder_of_that_name_stays(
    tmp_path: Path, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "MAPPED_BYTES", 1 << 40)
    thesis = tmp_path / "people.db.vectors" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        gallery.vectors()
    assert thesis.read_text() == "mine"
