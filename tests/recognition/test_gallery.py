"""Galleries: what is enrolled is there, whole, and what is deleted is gone."""

import shutil
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hstl_fast.models import HSTL
from hstl_fast.network import Network
from hstl_fast.recognition import (
    Clip,
    Fingerprint,
    Gallery,
    GalleryError,
    GalleryWarning,
    clock,
    thresholds,
    vectors,
)
from hstl_fast.recognition import clips as walks
from tests.recognition.conftest import WalkMaker


@pytest.fixture
def gallery(url: str, network: Network) -> Gallery:
    with Gallery(url, network=network) as opened:
        yield opened


def names(gallery: Gallery) -> dict[str, int]:
    return {person.name: person.recordings for person in gallery.people()}


def test_enrols_and_identifies(gallery: Gallery, walk: WalkMaker, network: Network) -> None:
    assert gallery.fingerprint is None
    assert gallery.people() == []
    first, second = gallery.enroll("Ada", [walk(1), walk(2, fps=None)])
    gallery.enroll("Bob", iter([walk(3)]), keep_silhouettes=False)
    assert gallery.fingerprint == Fingerprint.of(network)
    assert names(gallery) == {"Ada": 2, "Bob": 1}
    assert (first.person, first.source, first.frames, first.fps) == ("Ada", walk(1).source, 6, 25.0)
    assert second.fps is None
    assert [recording.has_silhouettes for recording in gallery.recordings()] == [True, True, False]
    assert gallery.recordings("Ada") == [first, second]
    answers = gallery.identify([walk(3, "probe"), walk(2)])
    assert [(answer.source, answer.name) for answer in answers] == [("probe", "Bob"), (walk(2).source, "Ada")]
    match, other = answers[1].matches
    assert (match.person, match.recording, match.source, match.agreement) == ("Ada", second.id, second.source, 1.0)
    # The same clip among others in a batch is off by rounding; between people it is not.
    assert match.distance < 1e-3 * other.distance
    assert answers[1].margin == other.distance - match.distance
    assert answers[1].parts.shape == (gallery.vectors().vectors.shape[1],)


def test_vectors_are_those_of_the_network(gallery: Gallery, walk: WalkMaker, network: Network) -> None:
    gallery.enroll("Bob", [walk(1)])
    gallery.enroll("Ada", [walk(2), walk(3)])
    found = gallery.vectors()
    assert [found.names[row] for row in found.people] == ["Bob", "Ada", "Ada"]
    assert found.recordings.tolist() == [recording.id for recording in gallery.recordings()]
    assert found.sources == tuple(walk(i).source for i in (1, 2, 3))
    assert gallery.vectors() is found
    expected = [network.model.embed([walk(1).silhouettes]), network.model.embed(walk(i).silhouettes for i in (2, 3))]
    np.testing.assert_array_equal(found.vectors, np.concatenate(expected))
    gallery.remove("Bob")
    np.testing.assert_array_equal(gallery.vectors().vectors, expected[1])
    assert gallery.vectors().names == ("Ada",)


def test_vectors_are_read_in_pieces(
    gallery: Gallery, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch, network: Network
) -> None:
    monkeypatch.setattr(vectors, "_AT_ONCE", 2)
    gallery.enroll("Ada", [walk(i) for i in range(5)])
    expected = network.model.embed(walk(i).silhouettes for i in range(5))
    np.testing.assert_array_equal(gallery.vectors().vectors, expected)


def test_enrols_all_clips_or_none(gallery: Gallery, walk: WalkMaker) -> None:
    gallery.enroll("Ada", [walk(1)])
    before = gallery.revision()
    short = walk(4, "short.mp4", frames=4)
    for name, clips, message in (
        ("Bob", [walk(2), short], "short.mp4: at least 5 silhouettes are needed.* got 4"),
        (
            "Bob",
            [walk(2), walk(1, "again.mp4")],
            "again.mp4: this walk is in the gallery already, as recording 1 of 'Ada'",
        ),
        ("Bob", [walk(2), walk(2, "twice.mp4")], "twice.mp4: the same walk is among the clips twice"),
        ("Bob", [], "at least one clip"),
        ("Ada", [walk(2)], "the name 'Ada' is taken already"),
        ("Bob", [walk(2), replace(walk(3), fps=float("nan"))], "fps must be a positive number"),
        ("Bob", [Clip("a.png", np.zeros((9, 64, 44), np.uint8))], r"a.png: silhouettes must be uint8 \[T, 64, 64\]"),
        ("Bob", [Clip("blank", np.zeros((9, 64, 64), np.uint8))], "blank: at least 5 silhouettes are needed.* got 0"),
        (" ", [walk(2)], "name must have at least one letter"),
        ("A\nB", [walk(2)], r"name must have no control characters; got 'A\\nB'"),
        ("A/B", [walk(2)], "name must have no slash"),
        ("x" * 201, [walk(2)], "at most 200 letters; got 201"),
    ):
        with pytest.raises(GalleryError, match=message):
            gallery.enroll(name, clips)
    with pytest.raises(GalleryError, match="keep_days must be a number of days"):
        gallery.enroll("Bob", [walk(2)], keep_days=0)
    assert gallery.revision() == before
    assert names(gallery) == {"Ada": 1}
    gallery.enroll("Ada", [walk(2)], add=True)
    assert names(gallery) == {"Ada": 2}


def test_equal_names_are_equal_however_they_are_composed(gallery: Gallery, walk: WalkMaker) -> None:
    gallery.enroll(" Zoe\u0308 ", [walk(1)])
    assert names(gallery) == {"Zo\u00eb": 1}
    with pytest.raises(GalleryError, match="is taken"):
        gallery.enroll("Zo\u00eb", [walk(2)])
    assert gallery.remove("Zoe\u0308") == 1


def test_renames_and_removes(gallery: Gallery, walk: WalkMaker) -> None:
    ada = gallery.enroll("Ada", [walk(1), walk(2)])
    bob = gallery.enroll("Bob", [walk(3)])
    revisions = [gallery.revision()]
    for old, new, message in (("Adda", "X", "nobody called 'Adda'.*; did you mean 'Ada'"), ("Ada", "Bob", "is taken")):
        with pytest.raises(GalleryError, match=message):
            gallery.rename(old, new)
    gallery.rename("Ada", "Ada")
    gallery.rename("Ada", "Eve")
    assert names(gallery) == {"Bob": 1, "Eve": 2}
    gallery.remove_recording(ada[0].id)
    revisions.append(gallery.revision())
    assert names(gallery) == {"Bob": 1, "Eve": 1}
    gallery.remove_recording(bob[0].id)
    assert names(gallery) == {"Eve": 1}
    with pytest.raises(GalleryError, match=f"no recording {bob[0].id}"):
        gallery.remove_recording(bob[0].id)
    with pytest.raises(GalleryError, match="nobody called 'Bob'"):
        gallery.recordings("Bob")
    assert gallery.remove("Eve") == 1
    assert gallery.people() == []
    # Numbers are never used again.
    assert gallery.enroll("Bob", [walk(3)])[0].id > bob[0].id
    revisions.append(gallery.revision())
    assert revisions == sorted(set(revisions))


def test_threshold_says_nobody(gallery: Gallery, walk: WalkMaker) -> None:
    with pytest.raises(GalleryError, match="the gallery is empty"):
        gallery.identify([walk(1)])
    with pytest.raises(GalleryError, match="the gallery is empty"):
        gallery.store_threshold(1.0)
    gallery.enroll("Ada", [walk(1)])
    (far,) = gallery.identify([walk(9)])
    distance = far.matches[0].distance
    assert (far.name, far.threshold, far.margin, far.matches[0].agreement) == ("Ada", None, None, None)
    (below,) = gallery.identify([walk(9)], np.nextafter(distance, 0))
    assert below.name is None
    assert below.matches == far.matches
    (at,) = gallery.identify([walk(9)], distance)
    assert at.name == "Ada"
    gallery.store_threshold(distance / 2, 0.01)
    assert gallery.stored_threshold() == (distance / 2, 0.01)
    (stored,) = gallery.identify([walk(9)])
    assert (stored.name, stored.threshold, stored.false_accept_rate) == (None, distance / 2, 0.01)
    gallery.store_threshold(None)
    assert gallery.identify([walk(9)])[0].name == "Ada"
    for arguments in ({"threshold": -1.0}, {"threshold": float("nan")}, {"false_accept_rate": 2.0}, {"count": 0}):
        with pytest.raises(GalleryError):
            gallery.identify([walk(9)], **arguments)
    with pytest.raises(GalleryError, match="must not both be given"):
        gallery.identify([walk(9)], 1.0, false_accept_rate=0.1)


def test_count_bounds_the_matches(gallery: Gallery, walk: WalkMaker) -> None:
    for i, name in enumerate(("Ada", "Bob", "Eve")):
        gallery.enroll(name, [walk(2 * i), walk(2 * i + 1)])
    (answer,) = gallery.identify([walk(9)], count=2)
    assert len(answer.matches) == 2
    (whole,) = gallery.identify([walk(9)])
    assert whole.matches[0].distance < whole.matches[1].distance < whole.matches[2].distance
    assert [match.person for match in answer.matches] == [match.person for match in whole.matches[:2]]


def test_threshold_of_a_false_accept_rate(gallery: Gallery, walk: WalkMaker, network: Network) -> None:
    for number in range(4):
        gallery.enroll(f"person {number}", [walk(2 * number), walk(2 * number + 1)])
    found = gallery.vectors()
    expected = thresholds.from_gallery(found.vectors, found.people, 0.2)
    (answer,) = gallery.identify([walk(99)], false_accept_rate=0.2)
    assert (answer.threshold, answer.false_accept_rate) == (expected.distance, expected.false_accept_rate)
    assert gallery.threshold(0.2) == expected.distance
    assert (answer.name is None) == (answer.matches[0].distance > expected.distance)
    with pytest.raises(GalleryError, match="cannot be told from 8 recordings of 4 people"):
        gallery.identify([walk(99)], false_accept_rate=0.01)
    # After a change the threshold is another one.
    gallery.remove("person 0")
    found = gallery.vectors()
    expected = thresholds.from_gallery(found.vectors, found.people, 0.2)
    assert gallery.identify([walk(99)], false_accept_rate=0.2)[0].threshold == expected.distance


def test_another_network_is_refused(
    gallery: Gallery, url: str, walk: WalkMaker, network: Network, other_network: Network
) -> None:
    gallery.enroll("Ada", [walk(1)])
    with Gallery(url, network=other_network) as other:
        assert names(other) == {"Ada": 1}
        for action in (lambda: other.enroll("Bob", [walk(2)]), lambda: other.identify([walk(1)])):
            with pytest.raises(GalleryError, match=r"weights seed:0 and seed:1.*hstl-fast gallery refresh"):
                action()
    with (
        Gallery(url) as unknown,
        pytest.raises(GalleryError, match=r"network custom .* seed:0; pass it as --checkpoint"),
    ):
        unknown.enroll("Bob", [walk(2)])
    gallery.remove("Ada")
    with Gallery(url, network=other_network) as other:
        other.enroll("Bob", [walk(2)])
        assert other.fingerprint == Fingerprint.of(other_network)


def test_frame_rates_that_differ_are_said_once(gallery: Gallery, walk: WalkMaker, recwarn: Any) -> None:
    gallery.enroll("Ada", [walk(1, fps=25.0)])
    gallery.identify([walk(2, fps=27.0), walk(3, fps=None)])
    assert not [warning for warning in recwarn if warning.category is GalleryWarning]
    with pytest.warns(GalleryWarning, match="filmed at 25 frames per second and the probes at 30"):
        gallery.identify([walk(2, fps=30.0)])
    recwarn.clear()
    gallery.identify([walk(3, fps=30.0)])
    assert not [warning for warning in recwarn if warning.category is GalleryWarning]


def test_expired_recordings_are_not_searched_and_deleted(
    gallery: Gallery, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    (short,) = gallery.enroll("Ada", [walk(1)], keep_days=1.5)
    gallery.enroll("Ada", [walk(2)], add=True, keep_days=3)
    gallery.enroll("Bob", [walk(3)])
    # The time of enrolment is read after the clips were checked.
    assert timedelta(0) <= short.created + timedelta(days=1.5) - short.keep_until < timedelta(hours=1)
    assert len(gallery.vectors().ids) == 3
    assert gallery.delete_expired() == 0
    real = clock.now
    later = timedelta(days=2)
    monkeypatch.setattr(clock, "now", lambda: real() + later)
    assert gallery.vectors().sources == (walk(2).source, walk(3).source)
    assert names(gallery) == {"Ada": 2, "Bob": 1}
    assert gallery.delete_expired() == 1
    assert names(gallery) == {"Ada": 1, "Bob": 1}
    later = timedelta(days=4)
    gallery.rename("Bob", "Eve")
    assert names(gallery) == {"Eve": 1}


def test_a_change_by_another_is_seen(gallery: Gallery, url: str, walk: WalkMaker, network: Network) -> None:
    gallery.enroll("Ada", [walk(1)])
    gallery.vectors()
    before = gallery.revision()
    with Gallery(url, network=network) as other:
        other.enroll("Bob", [walk(2)])
    assert gallery.revision() > before
    assert gallery.identify([walk(2)])[0].name == "Bob"


def test_threads_may_share_a_gallery(gallery: Gallery, walk: WalkMaker) -> None:
    gallery.enroll("Ada", [walk(0)])
    errors = []

    def work(number: int) -> None:
        try:
            gallery.enroll(f"person {number}", [walk(number)])
            assert gallery.identify([walk(number)])[0].name == f"person {number}"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(gallery.people()) == 5


def test_the_shipped_network_is_taken_where_none_is_given(tmp_path: Path) -> None:
    with Gallery(tmp_path / "people.db") as gallery:
        assert gallery.network.knows_walkers_only
    with Gallery(tmp_path / "people.db", create=False) as gallery:
        assert gallery.people() == []


def test_deleted_bytes_are_overwritten(tmp_path: Path, walk: WalkMaker, network: Network) -> None:
    path = tmp_path / "people.db"
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada Lovelace", [walk(1)])
        gallery.enroll("Bob", [walk(2)])
        vector = gallery.vectors().vectors[0].tobytes()
        with closing(sqlite3.connect(path)) as connection:
            ((silhouettes,),) = connection.execute("SELECT silhouettes FROM hstl_recordings WHERE id = 1").fetchall()
        traces = [vector[:64], silhouettes[100:164], b"Ada Lovelace"]
        assert all(trace in path.read_bytes() for trace in traces)
        gallery.remove("Ada Lovelace")
        assert not any(trace in path.read_bytes() for trace in traces)
        assert list(tmp_path.iterdir()) == [path]
        size = path.stat().st_size
        gallery.enroll("Eve", [walk(i, frames=30) for i in (3, 4)])
        gallery.remove("Eve")
        assert path.stat().st_size > size
        gallery.compact()
        assert path.stat().st_size <= size


def test_others_may_not_read_a_new_gallery_or_its_export(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        assert (tmp_path / "people.db").stat().st_mode & 0o077 == 0
        gallery.enroll("Ada", [walk(1)])
        gallery.export(tmp_path / "people.npz")
        assert (tmp_path / "people.npz").stat().st_mode & 0o077 == 0


def test_a_gallery_that_was_replaced_is_read_again(tmp_path: Path, walk: WalkMaker, network: Network) -> None:
    """Its revision may be that of the former one by chance."""
    path, backup, other = tmp_path / "people.db", tmp_path / "backup.db", tmp_path / "other.db"
    with Gallery(other, network=network) as gallery:
        gallery.enroll("Eve", [walk(3)])
    with Gallery(path, network=network) as gallery:
        gallery.enroll("Ada", [walk(1)])
        shutil.copyfile(path, backup)
        gallery.enroll("Bob", [walk(2)])
        assert gallery.identify([walk(2)])[0].name == "Bob"
        backup.replace(path)
        with Gallery(path, network=network) as restored:
            restored.enroll("Cho", [walk(2)])
            assert restored.revision() == 2
        assert gallery.identify([walk(2)])[0].name == "Cho"
        gallery.remove("Cho")
        assert gallery.identify([walk(2)])[0].name == "Ada"
        other.replace(path)
        gallery.rename("Eve", "Eva")
        gallery.rename("Eva", "Eve")
        assert gallery.revision() == 3
        assert gallery.identify([walk(2)])[0].name == "Eve"


def test_a_network_that_changes_while_probes_are_embedded_is_refused(
    gallery: Gallery,
    url: str,
    walk: WalkMaker,
    network: Network,
    other_network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gallery.enroll("Ada", [walk(1)])
    embed = walks.embed

    def refreshed(model: HSTL, given: list[Clip]) -> Any:
        monkeypatch.setattr(walks, "embed", embed)
        with Gallery(url) as other:
            other.refresh(other_network)
        return embed(model, given)

    monkeypatch.setattr(walks, "embed", refreshed)
    with pytest.raises(GalleryError, match="embeddings of two networks cannot be compared"):
        gallery.identify([walk(1)])


def test_people_whose_time_is_over_can_be_removed_and_enrolled(
    url: str, network: Network, walk: WalkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gallery(url, network=network) as gallery:
        real = clock.now
        for expected, action in (
            ({}, lambda: gallery.remove("Ada")),
            ({}, lambda: gallery.remove_recording(gallery.recordings()[0].id)),
            ({"Ada": 2}, lambda: gallery.enroll("Ada", [walk(1), walk(2)])),
        ):
            monkeypatch.setattr(clock, "now", real)
            gallery.enroll("Ada", [walk(1)], keep_days=1)
            monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=2))
            action()
            assert names(gallery) == expected
