"""The programs that kill processes which change a gallery, and let several share one: short runs of each."""

import multiprocessing
from pathlib import Path

import pytest

from benchmarks.recognition import killing, sharing
from benchmarks.recognition.small import refuse_people, small_network
from hstl_fast.recognition import Gallery, GalleryError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"),
]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'people.db'}"
    return request.getfixturevalue("postgres_url")


def test_kills_lose_nothing(url: str) -> None:
    result = killing.run(url, kills=4, seed=1)
    assert (result["kills"], sum(result["killed_while"].values())) == (4, 4)


def test_kills_while_a_gallery_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    result = killing.run(None, kills=4, seed=2)
    assert sum(result["killed_while"].values()) == 4


def test_several_share_a_gallery(url: str) -> None:
    result = sharing.run(url, seconds=2)
    assert result["searches"]["count"] > 0
    assert all(changes["count"] > 0 for changes in result["changes"])


def test_the_check_sees_what_is_lost_or_half_there(tmp_path: Path) -> None:
    network, url = small_network(), f"sqlite:///{tmp_path / 'people.db'}"
    enrolled = killing.Change("enroll", "Ada")
    with Gallery(url, network=network) as gallery:
        enrolled.make(gallery, killing.np.random.default_rng(0))
    assert killing.check(url, network, {"Ada": killing.CLIPS}, None) == ({"Ada": killing.CLIPS}, False)
    assert killing.check(url, network, {}, enrolled) == ({"Ada": killing.CLIPS}, True)
    with pytest.raises(SystemExit, match=r"acknowledged: {'Bob': 3}"):
        killing.check(url, network, {"Bob": 3}, None)
    with Gallery(url, network=network) as gallery:
        gallery.remove_recording(gallery.recordings()[0].id)
    with pytest.raises(SystemExit, match=r"in progress: .*Ada"):
        killing.check(url, network, {}, enrolled)
    with pytest.raises(GalleryError, match="expected an empty gallery"):
        refuse_people(url, network)
