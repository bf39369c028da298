"""Live recognition from frames to updates: tracks, names, sightings, and what ends it, on rendered streets."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("cv2")
pytest.importorskip("edgefirst.tracker")
pytest.importorskip("sqlalchemy")

from hstl_fast.network import Network
from hstl_fast.recognition import Gallery
from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.live import naming, people, watcher
from hstl_fast.recognition.live.events import Frame, Sighting, Update
from hstl_fast.recognition.live.watcher import Watcher
from hstl_fast.silhouettes import SilhouetteError
from tests.recognition.live.watching import FPS, SIZE, Played, street
from tests.silhouettes.video.scenes import Scene, walker
from tests.silhouettes.video.scoring import box_iou

Picture = NDArray[np.uint8]
OPTIONS: dict[str, Any] = {"window": 15, "every": 5}
# The figures of the street by the tracks that show them.
FIGURES = {1: 0, 2: 1, 3: 2}


@dataclass(frozen=True)
class Watched:
    """A watcher and all that it gave."""

    watcher: Watcher
    updates: list[Update]

    @property
    def sightings(self) -> list[Sighting]:
        return [sighting for update in self.updates for sighting in update.sightings]

    def last(self, track: int) -> Sighting:
        return [sighting for sighting in self.sightings if sighting.track == track][-1]


def watched(gallery: Gallery, images: list[Picture], is_live: bool = False, **options: Any) -> Watched:
    made = Watcher(gallery, **OPTIONS, **options)
    return Watched(made, list(made.updates(Played(images, is_live))))


@pytest.fixture(scope="module")
def scene() -> Scene:
    return street()


@pytest.fixture(scope="module")
def images(scene: Scene) -> list[Picture]:
    return list(scene.frames())


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, network: Network) -> Iterator[Gallery]:
    with Gallery(tmp_path_factory.mktemp("empty") / "people.db", network=network) as gallery:
        yield gallery


@pytest.fixture(scope="module")
def first(empty: Gallery, images: list[Picture]) -> Watched:
    """The street as a gallery sees it that knows nobody."""
    return watched(empty, images)


@pytest.fixture
def gallery(tmp_path: Path, network: Network, first: Watched) -> Iterator[Gallery]:
    """A gallery that knows Ann from the first time that she walks by."""
    clip = first.watcher.clip(1)
    assert clip is not None
    with Gallery(tmp_path / "people.db", network=network) as gallery:
        gallery.enroll("Ann", [clip])
        yield gallery


@pytest.fixture(scope="module")
def again(first: Watched, images: list[Picture], tmp_path_factory: pytest.TempPathFactory, network: Network) -> Watched:
    """The street as a gallery without a threshold sees it that knows Ann."""
    clip = first.watcher.clip(1)
    assert clip is not None
    with Gallery(tmp_path_factory.mktemp("again") / "people.db", network=network) as gallery:
        gallery.enroll("Ann", [clip])
        return watched(gallery, images)


def test_every_walk_is_a_track_of_its_own(first: Watched, scene: Scene) -> None:
    shown: dict[int, list[float]] = {}
    for update in first.updates:
        for seen in update.seen:
            bodies = {body.figure: body for body in scene.bodies[update.frame.number]}
            shown.setdefault(seen.track, []).append(box_iou(seen.box, bodies[FIGURES[seen.track]].box))
    assert list(shown) == [1, 2, 3]
    for overlaps in shown.values():
        assert len(overlaps) >= 35
        assert np.mean(overlaps) > 0.8


@pytest.mark.slow
def test_two_people_who_cross_are_not_shown_by_each_others_numbers(empty: Gallery) -> None:
    figures = [
        walker(-20, 102, 60, identity=3, speed=3.4, first=52),
        walker(260, 105, 60, identity=8, speed=3.4, direction=-1, first=52),
    ]
    crossing = Scene(figures, 150, (150, 240))
    owners: dict[int, int] = {}
    for update in watched(empty, list(crossing.frames())).updates[:-1]:
        bodies = crossing.bodies[update.frame.number]
        for seen in update.seen:
            nearest = max(bodies, key=lambda body: box_iou(seen.box, body.box))
            if box_iou(seen.box, nearest.box) > 0.7:
                assert owners.setdefault(seen.track, nearest.figure) == nearest.figure, update.frame.number
    assert sorted(owners.values()) == [0, 0, 1, 1]


def test_there_is_an_update_for_every_frame_and_one_for_the_end(first: Watched, images: list[Picture]) -> None:
    assert [update.frame.number for update in first.updates] == [*range(len(images)), len(images) - 1]
    assert first.updates[-1].seen == ()
    assert [(sighting.track, sighting.ended) for sighting in first.updates[-1].sightings] == [(3, True)]
    assert all(update.delay >= 0 and update.dropped == 0 for update in first.updates)


def test_sightings_tell_of_first_answers_and_ends(first: Watched) -> None:
    told = [(sighting.track, sighting.ended) for sighting in first.sightings]
    assert told == [(1, False), (2, False), (1, True), (2, True), (3, False), (3, True)]
    for sighting in first.sightings:
        assert (sighting.name, sighting.distance, sighting.margin) == (None, None, None)
    ended = first.last(1)
    assert 1.8 < (ended.last - ended.first).total_seconds() < 2.6
    assert 40 <= ended.frames <= 60


def test_clips_of_tracks_that_have_just_ended_can_be_had(first: Watched, scene: Scene) -> None:
    clip = first.watcher.clip(2)
    assert clip is not None
    assert (clip.source, clip.fps) == ("street.mp4-track2", FPS)
    assert clip.silhouettes.shape == (first.last(2).frames, 64, 64)
    assert clip.silhouettes.dtype == np.uint8
    assert first.watcher.clip(4) is None


@pytest.mark.slow
def test_a_threshold_tells_somebody_known_from_a_stranger(
    again: Watched, gallery: Gallery, images: list[Picture]
) -> None:
    distances = [again.last(track).distance for track in (1, 2, 3)]
    ann, ben, ann_again = (distance for distance in distances if distance is not None)
    assert max(ann, ann_again) < ben
    got = watched(gallery, images, threshold=(max(ann, ann_again) + ben) / 2)
    assert [got.last(track).name for track in (1, 2, 3)] == ["Ann", None, "Ann"]
    answers = {seen.track: seen.answer for update in got.updates for seen in update.seen}
    assert answers[2] is not None
    assert answers[2].matches[0].person == "Ann"
    assert answers[3] is not None
    assert answers[3].source == "street.mp4-track3"


@pytest.mark.slow
def test_without_a_threshold_the_nearest_is_named(again: Watched) -> None:
    assert {sighting.name for sighting in again.sightings} == {"Ann"}


@pytest.mark.slow
def test_somebody_enrolled_meanwhile_is_named(
    gallery: Gallery, first: Watched, images: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(naming, "ASKED_EVERY", 0.0)
    clip = first.watcher.clip(2)
    assert clip is not None
    sightings = []
    for update in Watcher(gallery, **OPTIONS).updates(Played(images[:150])):
        sightings += update.sightings
        if update.frame.number == 100:
            gallery.enroll("Ben", [clip])
    assert [s.name for s in sightings if s.track == 2] == ["Ann", "Ben", "Ben"]
    assert {s.name for s in sightings if s.track == 1} == {"Ann"}


@pytest.mark.slow
def test_live_frames_go_on_while_people_are_embedded(
    gallery: Gallery, images: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()
    embed = gallery.network.model.embed

    def slow(clips: Any) -> Any:
        begun.set()
        assert released.wait(60)
        return embed(clips)

    def learning_at_once(*args: Any, waits: bool) -> people.People:
        return people.People(*args, waits=True)

    monkeypatch.setattr(watcher, "People", learning_at_once)
    monkeypatch.setattr(gallery.network.model, "embed", slow, raising=False)
    source = Played(paced(images, begun, released), is_live=True)
    sightings = [s for update in Watcher(gallery, **OPTIONS).updates(source) for s in update.sightings]
    assert released.is_set()
    assert {sighting.name for sighting in sightings if sighting.ended} == {"Ann"}


def paced(images: list[Picture], begun: threading.Event, released: threading.Event) -> Iterator[Picture]:
    """Frames of which one is repeated until the first embedding begins, which may end ten frames later."""
    yield from images[:100]
    while not begun.is_set():
        yield images[100]
    yield from images[100:110]
    assert not released.is_set()
    released.set()
    yield from images[110:]


def test_nobody_is_seen_where_nobody_walks(empty: Gallery, images: list[Picture]) -> None:
    got = watched(empty, images[:50])
    assert len(got.updates) == 50
    assert not got.sightings
    assert not any(update.seen for update in got.updates)


def test_a_source_without_frames_gives_nothing(empty: Gallery) -> None:
    assert watched(empty, []).updates == []


@pytest.mark.slow
def test_nobody_is_followed_over_a_gap(empty: Gallery, images: list[Picture]) -> None:
    source = Played(images[:150], seconds=lambda number: number / FPS + 10 * (number >= 80))
    updates = list(Watcher(empty, **OPTIONS).updates(source))
    before = {seen.track for update in updates[:80] for seen in update.seen}
    after = {seen.track for update in updates[80:] for seen in update.seen}
    assert before == {1}
    assert after == {2, 3}


def test_a_camera_may_come_back_with_another_size(empty: Gallery, images: list[Picture]) -> None:
    lower = [image[:-2] for image in images[3:6]]
    updates = Watcher(empty).updates(Played([*images[:3], *lower, images[6]]))
    with pytest.warns(GalleryWarning) as said:
        assert [update.frame.number for update in updates] == list(range(7))
    assert [str(warning.message) for warning in said] == [
        "street.mp4: 200 x 150 until now, 200 x 148 from frame 3 on; people are followed anew",
        "street.mp4: 200 x 148 until now, 200 x 150 from frame 6 on; people are followed anew",
    ]


@pytest.mark.slow
def test_nobody_is_followed_from_one_size_to_another(empty: Gallery, images: list[Picture], scene: Scene) -> None:
    higher = [np.pad(image, ((12, 0), (0, 0), (0, 0)), "edge") for image in images]
    with pytest.warns(GalleryWarning, match="200 x 162 from frame 80 on"):
        updates = watched(empty, [*images[:80], *higher]).updates
    before = {seen.track for update in updates[:80] for seen in update.seen}
    assert before == {1}
    assert [seen for update in updates[80:130] for seen in update.seen] == []
    overlaps = []
    for update in updates[80:-1]:
        bodies = [body.box for body in scene.bodies[update.frame.number - 80]]
        moved = [(x, y + 12, width, height) for x, y, width, height in bodies]
        overlaps += [max(box_iou(seen.box, box) for box in moved) for seen in update.seen]
        assert before.isdisjoint(seen.track for seen in update.seen)
    assert len(overlaps) > 100
    assert np.mean(overlaps) > 0.8


@pytest.mark.slow
def test_large_frames_are_reduced(
    empty: Gallery, images: list[Picture], scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "MOST_PIXELS", SIZE[0] * SIZE[1] // 2)
    got = watched(empty, images[:110])
    overlaps = [
        max(box_iou(seen.box, body.box) for body in scene.bodies[update.frame.number])
        for update in got.updates
        for seen in update.seen
    ]
    assert len(overlaps) > 30
    assert np.mean(overlaps) > 0.75


def test_another_thread_stops_a_source_that_waits(empty: Gallery, images: list[Picture]) -> None:
    taken = threading.Event()

    class Waiting(Played):
        def __iter__(self) -> Iterator[Frame]:
            yield from super().__iter__()
            taken.set()
            assert self.closed.wait(60)

    at_work, source = Watcher(empty, **OPTIONS), Waiting(images[:100], is_live=True)
    updates: list[Update] = []
    thread = threading.Thread(target=lambda: updates.extend(at_work.updates(source)))
    thread.start()
    assert taken.wait(60)
    at_work.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert source.closed.is_set()
    assert len(updates) in (100, 101)


def test_a_watcher_that_was_stopped_takes_no_frame(empty: Gallery, images: list[Picture]) -> None:
    stopped, source = Watcher(empty), Played(images)
    stopped.stop()
    assert list(stopped.updates(source)) == []
    assert source.closed.is_set()


def test_whoever_leaves_the_updates_closes_the_source(empty: Gallery, images: list[Picture]) -> None:
    source = Played(images)
    updates = Watcher(empty).updates(source)
    next(updates)
    updates.close()
    assert source.closed.is_set()


@pytest.mark.slow
def test_a_gallery_that_fails_later_leaves_names_as_they_are(
    gallery: Gallery, images: list[Picture], monkeypatch: pytest.MonkeyPatch
) -> None:
    identify, calls = gallery.identify_embeddings, []

    def failing(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > 2:
            raise GalleryError("people.db: the database does not answer")
        return identify(*args, **options)

    monkeypatch.setattr(gallery, "identify_embeddings", failing)
    with pytest.warns(GalleryWarning, match="names stay as they are: people.db: the database does not answer") as said:
        got = watched(gallery, images[:150])
    assert len([warning for warning in said if warning.category is GalleryWarning]) == 1
    assert got.last(1).name == "Ann"


def test_a_gallery_that_fails_at_once_ends_the_updates(gallery: Gallery, images: list[Picture]) -> None:
    with pytest.raises(GalleryError, match="a threshold needs a gallery of 2 people or more"):
        watched(gallery, images, false_accept_rate=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window": 4}, "window must be 5 to 150 frames, got 4"),
        ({"window": 151}, "window must be 5 to 150 frames, got 151"),
        ({"every": 0}, "every must be 1 to 25 frames, got 0"),
        ({"every": 26}, "every must be 1 to 25 frames, got 26"),
        ({"min_height": 15}, "min_height must be at least 16 pixels, got 15"),
    ],
)
def test_arguments_out_of_range_are_refused(empty: Gallery, options: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Watcher(empty, **options)


def test_an_unknown_segmenter_is_refused(empty: Gallery) -> None:
    at_work, source = Watcher(empty, segmenter="magic"), Played([])
    for _ in range(2):
        with pytest.raises(SilhouetteError, match="segmenter"):
            list(at_work.updates(source))
    assert source.closed.is_set()


def test_a_watcher_at_work_takes_no_other_source(empty: Gallery, images: list[Picture]) -> None:
    at_work = Watcher(empty)
    updates = at_work.updates(Played(images))
    next(updates)
    with pytest.raises(RuntimeError, match="at work already"):
        next(at_work.updates(Played(images)))
    updates.close()
