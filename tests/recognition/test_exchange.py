"""Exports and imports: everything that a gallery knows, in a file that others read, all of it or nothing."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hstl_fast.evaluation import Embeddings, load_embeddings, save_embeddings
from hstl_fast.network import Network
from hstl_fast.recognition import Fingerprint, Gallery, GalleryError
from tests.recognition.conftest import WalkMaker


@pytest.fixture
def gallery(url: str, network: Network, walk: WalkMaker) -> Gallery:
    """Two people, three recordings, a threshold."""
    with Gallery(url, network=network) as opened:
        opened.enroll("Ada", [walk(1), walk(2, fps=None)], keep_days=3)
        opened.enroll("Zoë", [walk(3, "a/b.mp4")], keep_silhouettes=False)
        opened.store_threshold(0.5, 0.1)
        yield opened


def rows(gallery: Gallery) -> list[Any]:
    """All that is known about the recordings but their numbers."""
    return [[getattr(row, name) for name in vars(row) if name != "id"] for row in gallery.recordings()]


def rewrite(path: Path, change: Any) -> None:
    """Write an export anew with another `gallery.json`."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    content = json.loads(members["gallery.json"])
    change(content, members)
    members["gallery.json"] = json.dumps(content).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def test_an_import_gives_back_what_was_exported(gallery: Gallery, tmp_path: Path, network: Network) -> None:
    path = tmp_path / "people.npz"
    assert gallery.export(path) == 3
    with Gallery(tmp_path / "copy.db", network=network) as copy:
        assert copy.import_(path) == (2, 3, 0)
        assert rows(copy) == rows(gallery)
        np.testing.assert_array_equal(copy.vectors().vectors, gallery.vectors().vectors)
        assert copy.stored_threshold() == (0.5, 0.1)
        assert copy.check() == 3
        again = tmp_path / "again.npz"
        copy.export(again)
        with Gallery(tmp_path / "third.db") as third:
            third.import_(again)
            assert third.fingerprint == Fingerprint.of(network)


def test_an_export_is_read_without_us(gallery: Gallery, tmp_path: Path, walk: WalkMaker) -> None:
    path = tmp_path / "people.npz"
    gallery.export(path)
    embeddings = load_embeddings(path)
    assert embeddings.names == (f"Ada/{walk(1).source}", f"Ada/{walk(2).source}", "Zoë/a/b.mp4")
    np.testing.assert_array_equal(embeddings.vectors, gallery.vectors().vectors)
    np.testing.assert_array_equal(embeddings.fps, [25, np.nan, 25])
    with np.load(path) as arrays:
        description = json.loads(arrays["gallery.json"])
        first, _, last = description["recordings"]
        assert (first["person"], last["silhouettes"]) == ("Ada", None)
        np.testing.assert_array_equal(arrays[first["silhouettes"].removesuffix(".npy")], walk(1).silhouettes)


def test_names_that_are_taken(gallery: Gallery, tmp_path: Path, walk: WalkMaker) -> None:
    path = tmp_path / "people.npz"
    gallery.export(path)
    before = gallery.revision(), rows(gallery)
    with pytest.raises(GalleryError, match="2 of the names, such as 'Ada', are taken already"):
        gallery.import_(path)
    assert (gallery.revision(), rows(gallery)) == before
    gallery.remove_recording(gallery.recordings("Ada")[0].id)
    gallery.enroll("Ada", [walk(7)], add=True)
    assert gallery.import_(path, add=True) == (0, 1, 2)
    assert {person.name: person.recordings for person in gallery.people()} == {"Ada": 3, "Zoë": 1}
    assert gallery.import_(path, add=True) == (0, 0, 3)
    gallery.rename("Ada", "Eve")
    with pytest.raises(GalleryError, match=r"this walk is in the gallery already, as recording \d+ of 'Eve'"):
        gallery.import_(path, add=True)
    assert len(gallery.people()) == 2


def test_embedding_files_are_imported(
    url: str, tmp_path: Path, network: Network, other_network: Network, walk: WalkMaker
) -> None:
    path = tmp_path / "embedded.npz"
    vectors = network.model.embed(walk(i).silhouettes for i in range(3)).numpy()
    names = ("001/nm-01/090", "001/nm-02/090", "Zoe\u0308")
    lengths = np.array([6, 6, 6])
    save_embeddings(path, Embeddings(vectors, names, lengths, network.preset, network.weights, "0"))
    with Gallery(url, network=other_network) as gallery:
        with pytest.raises(GalleryError, match="weights seed:1 and seed:0"):
            gallery.import_(path)
        assert gallery.people() == []
    with Gallery(url, network=network) as gallery:
        assert gallery.import_(path) == (2, 3, 0)
        assert [(row.person, row.source, row.has_silhouettes) for row in gallery.recordings()] == [
            ("001", "nm-01/090", False),
            ("001", "nm-02/090", False),
            ("Zo\u00eb", "Zo\u00eb", False),
        ]
        assert gallery.identify([walk(2)])[0].name == "Zo\u00eb"
        (answer, *_) = gallery.identify_embeddings(load_embeddings(path), count=1)
        assert (answer.source, answer.name, answer.matches[0].distance) == (names[0], "001", 0)
        assert gallery.import_(path, add=True) == (0, 0, 3)
        elsewhere = Embeddings(vectors, names, lengths, network.preset, "seed:9", "0")
        with pytest.raises(GalleryError, match="weights seed:0 and seed:9"):
            gallery.identify_embeddings(elsewhere)


def test_files_that_are_none_are_refused(gallery: Gallery, tmp_path: Path) -> None:
    path, other = tmp_path / "people.npz", tmp_path / "other.npz"
    before = gallery.revision()
    with pytest.raises(FileNotFoundError):
        gallery.import_(tmp_path / "nothing.npz")
    other.write_bytes(b"PK none")
    with pytest.raises(GalleryError, match="is not an embedding file"):
        gallery.import_(other)

    def newer(content: Any, members: Any) -> None:
        content["format"] = 2

    def fewer(content: Any, members: Any) -> None:
        content["recordings"].pop()

    def unnamed(content: Any, members: Any) -> None:
        content["recordings"][1]["person"] = "a/b"

    def undated(content: Any, members: Any) -> None:
        content["recordings"][0]["created"] = "yesterday"

    def without(content: Any, members: Any) -> None:
        del members[content["recordings"][0]["silhouettes"]]

    def swapped(content: Any, members: Any) -> None:
        first, second = (content["recordings"][i]["silhouettes"] for i in (0, 1))
        members[first], members[second] = members[second], members[first]

    for change, message in (
        (newer, "must have the format 1; got 2"),
        (fewer, "must describe the 3 recordings"),
        (unnamed, "name must have no slash"),
        (undated, "yesterday"),
        (without, "silhouettes of 'door-1.mp4-track01' cannot be read"),
        (swapped, "silhouettes of 'door-1.mp4-track01' are not those that were exported"),
    ):
        gallery.export(path)
        rewrite(path, change)
        with pytest.raises(GalleryError, match=message):
            gallery.import_(path, add=True)
    assert gallery.revision() == before


def test_an_empty_gallery_is_not_exported(tmp_path: Path, network: Network) -> None:
    empty = Gallery(tmp_path / "people.db", network=network)
    with empty, pytest.raises(GalleryError, match="the gallery is empty"):
        empty.export(tmp_path / "people.npz")
    assert not (tmp_path / "people.npz").exists()


@pytest.mark.parametrize("threshold", ["NaN", "Infinity", "-1"])
def test_a_threshold_that_is_none_is_refused(gallery: Gallery, tmp_path: Path, threshold: str) -> None:
    path = tmp_path / "people.npz"
    gallery.export(path)
    rewrite(path, lambda content, _: content.update(threshold=float(threshold)))
    with Gallery(tmp_path / "copy.db") as copy:
        with pytest.raises(GalleryError, match="threshold must be a distance, 0 or more"):
            copy.import_(path)
        assert copy.people() == []
