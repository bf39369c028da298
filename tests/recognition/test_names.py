"""Names of people: what nobody can see is refused, and so is what looks like somebody else."""

import sqlite3
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")

from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, names
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.names import check_name, check_new_name
from tests.recognition.conftest import WalkMaker

SEEN = (
    "Jos\u00e9 \u00c5s",
    "\u0639\u0644\u06cc\u200c\u0631\u0636\u0627",  # Persian, with a non-joiner
    "\u0915\u094d\u200d\u0937",  # Devanagari, with a joiner behind a virama
    "\u09b0\u200d\u09cd\u09af\u09be\u099a\u09c7\u09b2",  # Bengali, with a joiner before a virama
    "\u0e01\u0e33",  # Thai, whose last letter has a compatible form
)


@pytest.mark.parametrize("name", SEEN)
def test_names_of_all_scripts_are_taken(name: str) -> None:
    assert check_new_name(name) == name


@pytest.mark.parametrize(
    "character",
    ["\u200b", "\u200c", "\u200d", "\u200e", "\u200f", "\u061c", "\u2060", "\ufeff", "\u00ad", "\u3164", "\ufe0f"],
)
def test_what_nobody_sees_is_refused(character: str) -> None:
    name = f"An{character}n"
    with pytest.raises(GalleryError, match=r"^name must have no characters that cannot be seen; got 'An\\") as refused:
        check_new_name(name)
    assert ascii(character)[1:-1] in str(refused.value)
    # Somebody who got such a name before can be removed and renamed.
    assert check_name(name) == name


@pytest.mark.parametrize("twin", ["\uff21da Lee", "Ada\u00a0Lee", "Ada  Lee"])
def test_names_that_look_the_same_are_refused(tmp_path: Path, network: Network, walk: WalkMaker, twin: str) -> None:
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada Lee", [walk(1)])
        gallery.enroll("Bob", [walk(2)])
        for action in (lambda: gallery.enroll(twin, [walk(3)]), lambda: gallery.rename("Bob", twin)):
            with pytest.raises(GalleryError, match=r"is written almost like 'Ada Lee' .*, who is in the gallery"):
                action()
        gallery.rename("Ada Lee", twin)
        assert [person.name for person in gallery.people()] == sorted(["Bob", twin])


def test_people_of_earlier_versions_get_more_recordings(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    kept = ("Ada Lee", "Ada  Lee", "An\u200bn")
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        for i, name in enumerate("ABC"):
            gallery.enroll(name, [walk(i)])
        with sqlite3.connect(tmp_path / "people.db") as connection:
            connection.executemany("UPDATE hstl_people SET name = ? WHERE name = ?", zip(kept, "ABC"))
        connection.close()
        for i, name in enumerate(kept, 3):
            gallery.enroll(name, [walk(i)], add=True)
        assert {person.name: person.recordings for person in gallery.people()} == dict.fromkeys(kept, 2)
        gallery.export(tmp_path / "kept.npz")
        assert gallery.import_(tmp_path / "kept.npz", add=True).skipped == 6
    with Gallery(tmp_path / "new.db", network=network) as gallery:
        with pytest.raises(GalleryError, match="cannot be seen"):
            gallery.import_(tmp_path / "kept.npz")
        assert gallery.people() == []


def test_many_names_are_compared_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    plain = names._plain
    monkeypatch.setattr(names, "_plain", lambda name: compared.append(name) or plain(name))
    names.refuse_twins([f"new {i}" for i in range(50)], [f"old {i}" for i in range(50)])
    assert len(compared) == 100


def test_an_import_brings_no_names_that_look_the_same(tmp_path: Path, network: Network, walk: WalkMaker) -> None:
    with Gallery(tmp_path / "one.db", network=network) as one:
        one.enroll("\uff21da", [walk(1)])
        one.export(tmp_path / "one.npz")
    with Gallery(tmp_path / "two.db", network=network) as two:
        two.enroll("Ada", [walk(2)])
        with pytest.raises(GalleryError, match="is written almost like 'Ada'"):
            two.import_(tmp_path / "one.npz")
        assert [person.name for person in two.people()] == ["Ada"]
