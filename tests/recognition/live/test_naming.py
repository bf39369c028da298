"""Names of tracks: windows taken together, held steady, and asked anew when the gallery changes."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

pytest.importorskip("sqlalchemy")

from hstl_fast.evaluation import Embeddings
from hstl_fast.network import Network
from hstl_fast.recognition import Gallery, clock
from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.live.naming import ASKED_EVERY, STEADY, WINDOWS, Name, Naming
from hstl_fast.recognition.records import Answer, Clip, Fingerprint

NO_PARTS = np.empty(0, np.float32)


def answer(name: str | None) -> Answer:
    return Answer("door", name, (), None, None, None, NO_PARTS)


def window(value: int) -> NDArray[np.uint8]:
    """A window whose embedding is `value`."""
    return np.full((30, 64, 64), value, np.uint8)


class Known:
    """A gallery whose people are called by the numbers that their embeddings are nearest to."""

    def __init__(self) -> None:
        self.network: Any = SimpleNamespace(model=self, preset="custom", weights="seed:0")
        self.asked: list[Embeddings] = []
        self.size, self.at, self.fails = 1, 1, ""
        self.names, self.is_away = ("10 at 1", "50 at 1"), False
        self.fingerprint = Fingerprint("custom", "seed:0")

    def embed(self, clips: Iterable[NDArray[np.uint8]]) -> torch.Tensor:
        values = [255.0 if clip[0, 0, 0] == 255 else float(clip.mean()) for clip in clips]
        return torch.tensor([[[np.nan if value == 255 else value]] for value in values])

    def state(self) -> str:
        return str(self.at)

    def vectors(self) -> Any:
        if self.is_away:
            raise GalleryError("the database is down")
        return SimpleNamespace(ids=np.arange(self.size), names=self.names, people=np.arange(len(self.names)))

    def identify_embeddings(
        self, probes: Embeddings, threshold: float | None = None, *, false_accept_rate: float | None = None
    ) -> list[Answer]:
        if self.fails:
            raise GalleryError(self.fails)
        self.asked.append(probes)
        return [answer(f"{vector.item():g} at {self.at}") for vector in probes.vectors]


def naming(gallery: Known, times: list[float] | None = None) -> Naming:
    return Naming(gallery, None, None, lambda: times[0] if times else 0.0)


def names(answers: dict[int, Answer]) -> dict[int, str | None]:
    return {number: each.name for number, each in answers.items()}


def test_windows_of_a_track_are_one_probe_their_mean() -> None:
    gallery = Known()
    asked = naming(gallery)
    assert names(asked.hear({1: window(10), 2: window(50)}, "door", 25.0)) == {1: "10 at 1", 2: "50 at 1"}
    asked.hear({1: window(20)}, "door", 25.0)
    probes = gallery.asked[-1]
    assert (probes.names, probes.vectors.tolist(), probes.lengths.tolist()) == (("door-track1",), [[[15.0]]], [60])
    assert probes.fps is not None
    assert probes.fps.tolist() == [25.0]


def test_only_the_last_windows_count() -> None:
    gallery = Known()
    asked = naming(gallery)
    for value in [200] * 5 + [8] * WINDOWS:
        asked.hear({1: window(value)}, "door", None)
    assert gallery.asked[-1].vectors.tolist() == [[[8.0]]]
    assert gallery.asked[-1].lengths.tolist() == [30 * WINDOWS]


def test_a_name_stands_until_others_come_twice() -> None:
    name = Name()
    for heard, stands in (("Ann", "Ann"), ("Ben", "Ann"), ("Ann", "Ann"), (None, "Ann"), (None, None), ("Ann", None)):
        name.hear(answer(heard), at_once=False)
        assert name.answer is not None
        assert name.answer.name == stands
    assert STEADY == 2


def test_a_new_answer_with_the_same_name_takes_the_place_of_the_old_one() -> None:
    name, newer = Name(), answer("Ann")
    name.hear(answer("Ann"), at_once=False)
    name.hear(newer, at_once=False)
    assert name.answer is newer


def test_a_changed_gallery_is_asked_about_everybody_at_once() -> None:
    gallery, times = Known(), [0.0]
    asked = naming(gallery, times)
    asked.hear({1: window(10), 2: window(50)}, "door", None)
    gallery.at, times[0] = 2, ASKED_EVERY / 2
    assert names(asked.hear({}, "door", None)) == {1: "10 at 1", 2: "50 at 1"}
    times[0] = ASKED_EVERY
    assert names(asked.hear({}, "door", None)) == {1: "10 at 2", 2: "50 at 2"}
    calls = len(gallery.asked)
    times[0] = 2 * ASKED_EVERY
    asked.hear({}, "door", None)
    assert len(gallery.asked) == calls


def test_an_empty_gallery_knows_nobody() -> None:
    gallery = Known()
    gallery.size = 0
    assert names(naming(gallery).hear({1: window(10)}, "door", None)) == {1: None}
    assert gallery.asked == []


def test_an_embedding_that_is_not_finite_is_no_probe() -> None:
    gallery = Known()
    assert names(naming(gallery).hear({1: window(255), 2: window(5)}, "door", None)) == {2: "5 at 1"}


def test_forgotten_tracks_have_no_answer() -> None:
    asked = naming(Known())
    asked.hear({1: window(10), 2: window(50)}, "door", None)
    asked.forget(1)
    asked.forget(7)
    assert names(asked.hear({}, "door", None)) == {2: "50 at 1"}


def test_a_failure_is_raised_before_the_first_answer_and_said_once_after_it() -> None:
    gallery = Known()
    asked = naming(gallery)
    gallery.fails = "the database is down"
    with pytest.raises(GalleryError, match=r"^the database is down$"):
        asked.hear({1: window(10)}, "door", None)
    gallery.fails = ""
    asked.hear({1: window(10)}, "door", None)
    gallery.fails = "the database is down"
    with pytest.warns(GalleryWarning, match=r"^names stay as they are: the database is down$") as said:
        heard = [names(asked.hear({1: window(90)}, "door", None)) for _ in range(3)]
    assert heard == 3 * [{1: "10 at 1"}]
    assert len(said) == 1


def test_a_removed_person_has_no_name_even_if_nobody_can_be_searched_for_any_more() -> None:
    gallery, times = Known(), [0.0]
    asked = naming(gallery, times)
    asked.hear({1: window(10), 2: window(50)}, "door", None)
    gallery.fails, gallery.at, gallery.names, times[0] = "too few people for a threshold", 2, ("50 at 1",), ASKED_EVERY
    with pytest.warns(GalleryWarning, match="too few people for a threshold"):
        assert names(asked.hear({}, "door", None)) == {1: None, 2: "50 at 1"}


def test_another_network_takes_all_names_back() -> None:
    gallery, times = Known(), [0.0]
    asked = naming(gallery, times)
    asked.hear({1: window(10)}, "door", None)
    gallery.fails, gallery.at, times[0] = "embeddings of two networks cannot be compared", 2, ASKED_EVERY
    gallery.fingerprint = Fingerprint("custom", "seed:1")
    with pytest.warns(GalleryWarning, match="cannot be compared"):
        assert names(asked.hear({}, "door", None)) == {1: None}


def walk(number: int) -> Clip:
    return Clip("door", np.random.default_rng(number).integers(0, 2, (30, 64, 64), np.uint8) * 255)


def test_nobody_keeps_the_name_of_a_recording_that_has_expired(
    tmp_path: Path, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, times = clock.now, [0.0]
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ada", [walk(1)], keep_days=1)
        gallery.enroll("Ben", [walk(2)])
        asked = Naming(gallery, 0.0, None, lambda: times[0])
        assert names(asked.hear({1: walk(1).silhouettes}, "door", None)) == {1: "Ada"}
        monkeypatch.setattr(clock, "now", lambda: real() + timedelta(days=2))
        times[0] = ASKED_EVERY
        answers = asked.hear({}, "door", None)
    assert names(answers) == {1: None}
    assert [match.person for match in answers[1].matches] == ["Ben"]


def test_a_gallery_that_was_replaced_by_another_is_asked_anew(tmp_path: Path, network: Network) -> None:
    """Its revision is that of the former one by chance."""
    path, other, times = tmp_path / "people.db", tmp_path / "other.db", [0.0]
    for place, name in ((path, "Ada"), (other, "Eve")):
        with Gallery(place, network=network) as gallery:
            gallery.enroll(name, [walk(1)])
    with Gallery(path, network=network) as gallery:
        asked = Naming(gallery, None, None, lambda: times[0])
        assert names(asked.hear({1: walk(1).silhouettes}, "door", None)) == {1: "Ada"}
        other.replace(path)
        times[0] = ASKED_EVERY
        assert names(asked.hear({}, "door", None)) == {1: "Eve"}


def test_a_change_is_not_lost_while_the_gallery_is_away() -> None:
    gallery, times = Known(), [0.0]
    asked = naming(gallery, times)
    asked.hear({1: window(10)}, "door", None)
    gallery.is_away, gallery.at, times[0] = True, 2, ASKED_EVERY
    with pytest.warns(GalleryWarning, match="the database is down"):
        assert names(asked.hear({}, "door", None)) == {1: "10 at 1"}
    gallery.is_away = False
    assert names(asked.hear({}, "door", None)) == {1: "10 at 2"}
