"""A network of few channels and walks of random silhouettes, so that a gallery's own time is what counts."""

from __future__ import annotations

import numpy as np
import torch

from hstl_fast import HSTL, HSTLConfig
from hstl_fast.models import Stage
from hstl_fast.network import CUSTOM, Network
from hstl_fast.recognition import Clip, Gallery, GalleryError

_CONFIG = HSTLConfig((4,), (Stage((40, 24), (4,)), Stage((20, 20, 24), (4,))), pool=False, strips=4, num_classes=1)


def small_network() -> Network:
    """A network with random weights from one seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Network(HSTL(_CONFIG), CUSTOM, "seed:0")
    # The first clip takes far longer than others, and the forks of this process are to be killed while they write.
    network.model.embed([random_walk(np.random.default_rng(0), "first").silhouettes])
    return network


def random_walk(generator: np.random.Generator, source: str, frames: int = 30) -> Clip:
    """A clip that no other equals."""
    silhouettes = np.zeros((frames, 64, 64), np.uint8)
    silhouettes[:, 8:56, 22:42] = 255 * generator.integers(0, 2, (frames, 48, 20), np.uint8)
    return Clip(source, silhouettes, 25.0)


def refuse_people(url: str, network: Network) -> None:
    """Refuse a gallery in which somebody is already: what is measured changes it."""
    with Gallery(url, network=network) as gallery:
        if gallery.people():
            raise GalleryError(f"{gallery.url}: expected an empty gallery, which is filled here; got people")
