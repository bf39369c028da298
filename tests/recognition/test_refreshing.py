"""A gallery embedded with another network, from the silhouettes that it keeps."""

from collections.abc import Iterator

import numpy as np
import pytest

from hstl_fast.network import Network
from hstl_fast.recognition import Fingerprint, Gallery, refreshing
from tests.recognition.conftest import WalkMaker


@pytest.fixture
def gallery(url: str, network: Network, walk: WalkMaker) -> Iterator[Gallery]:
    with Gallery(url, network=network) as opened:
        opened.enroll("Ada", [walk(i) for i in range(4)])
        opened.enroll("Bob", [walk(4)])
        yield opened


def embedded(network: Network, walk: WalkMaker, *numbers: int) -> np.ndarray:
    return np.concatenate([network.model.embed([walk(i).silhouettes]) for i in numbers])


def test_refresh_embeds_everything(gallery: Gallery, walk: WalkMaker, other_network: Network) -> None:
    gallery.store_threshold(1.0)
    seen = []
    done = gallery.refresh(other_network, lambda *step: seen.append(step))
    assert done == (5, [])
    assert seen[0] == ("embedding", 0, 5)
    assert seen[-1] == ("embedding", 5, 5)
    assert gallery.fingerprint == Fingerprint.of(other_network)
    expected = embedded(other_network, walk, *range(5))
    # The same clip among others in a batch is off by rounding.
    np.testing.assert_allclose(gallery.vectors().vectors, expected, atol=1e-5 * np.abs(expected).max())
    assert gallery.stored_threshold() is None
    assert gallery.identify([walk(4)])[0].name == "Bob"
    assert gallery.refresh(other_network) == (0, [])


def test_the_former_network_stays_until_all_are_there(
    gallery: Gallery, walk: WalkMaker, network: Network, other_network: Network
) -> None:
    (lost,) = gallery.enroll("Eve", [walk(5)], keep_silhouettes=False)
    before = gallery.vectors()
    assert gallery.refresh(other_network) == (5, [lost])
    assert gallery.fingerprint == Fingerprint.of(network)
    np.testing.assert_array_equal(gallery.vectors().vectors, before.vectors)
    assert gallery.identify([walk(5)])[0].name == "Eve"
    gallery.remove("Eve")
    assert gallery.refresh(other_network) == (0, [])
    assert gallery.fingerprint == Fingerprint.of(other_network)
    assert len(gallery.vectors().ids) == 5


@pytest.mark.slow
def test_a_stopped_refresh_goes_on(
    gallery: Gallery,
    url: str,
    walk: WalkMaker,
    network: Network,
    other_network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refreshing, "_AT_ONCE", 2)

    def stop(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        gallery.refresh(other_network, stop)
    assert gallery.identify([walk(4)])[0].name == "Bob"
    with Gallery(url, network=network) as other:
        other.remove_recording(other.recordings("Ada")[0].id)
        other.enroll("Eve", [walk(6)])
    # Two of five are done, one of these is gone, and one is new.
    assert gallery.refresh(other_network).done == 4
    assert len(gallery.vectors().ids) == 5


def test_enrolments_meanwhile_are_embedded_too(
    gallery: Gallery, url: str, walk: WalkMaker, network: Network, other_network: Network
) -> None:
    def enrol_once(stage: str, done: int, total: int) -> None:
        if done == 5 and total == 5:
            with Gallery(url, network=network) as other:
                if len(other.people()) == 2:
                    other.enroll("Eve", [walk(6)])

    assert gallery.refresh(other_network, enrol_once) == (6, [])
    assert gallery.identify([walk(6)])[0].name == "Eve"
    assert len(gallery.vectors().ids) == 6
