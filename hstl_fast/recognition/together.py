"""A gallery that several processes search together: the first asks and answers, the others search their shares.

Every process opens the gallery itself, and holds or maps the embeddings of all; it compares probes with its share.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch.distributed
from numpy.typing import NDArray

from hstl_fast.distributed import ProcessError
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import GalleryVectors
from hstl_fast.recognition.search import Nearest
from hstl_fast.recognition.shards import Shards

_CHANGED = "the gallery was changed while several processes began to search it; ask again"


class _Asked(NamedTuple):
    """A search that is to begin: how many people to find, and in which state of the gallery."""

    people: int
    state: int


@contextmanager
def leading(gallery: Gallery, shards: Shards) -> Iterator[None]:
    """Let a gallery search with all processes in this block; the others call `follow` meanwhile.

    Args:
        gallery: The gallery of process 0.
        shards: The processes.

    Yields:
        Nothing; `gallery.identify` and `gallery.identify_embeddings` answer as by one process.
    """
    if shards.size == 1:
        yield
        return

    def search(probes: NDArray[np.float32], known: GalleryVectors, count: int) -> Nearest:
        asked = _Asked(count, _state(known))
        _tell(asked)
        return _searched(shards, probes, known, asked)

    alone, gallery.search = gallery.search, search
    try:
        yield
    finally:
        gallery.search = alone
        _tell(None)


def follow(gallery: Gallery, shards: Shards) -> None:
    """Search the share of this process whenever process 0 asks, until it ends its block of `leading`.

    What goes wrong in a search is an error of process 0.

    Args:
        gallery: The same gallery, opened by this process.
        shards: The processes.
    """
    while (asked := _tell(None)) is not None:
        with suppress(ValueError, ProcessError):
            try:
                known: GalleryVectors | str = gallery.vectors()
            except GalleryError as error:
                known = str(error)
            _searched(shards, None, known, asked)


def _tell(asked: _Asked | None) -> _Asked | None:
    """Hand the value of process 0 to all processes."""
    told: list[Any] = [asked]
    torch.distributed.broadcast_object_list(told, src=0)
    found: _Asked | None = told[0]
    return found


def _searched(
    shards: Shards, probes: NDArray[np.float32] | None, known: GalleryVectors | str, asked: _Asked
) -> Nearest:
    """Search all shares, once all processes have the same state of the gallery.

    Args:
        shards: The processes.
        probes: The probes in process 0.
        known: The gallery, or why this process cannot read it.
        asked: The search.

    Returns:
        The nearest people.

    Raises:
        GalleryError: A process cannot read the gallery, or finds it in another state.
    """
    trouble = known if isinstance(known, str) else "" if _state(known) == asked.state else _CHANGED
    troubles: list[Any] = [None] * shards.size
    torch.distributed.all_gather_object(troubles, trouble)
    for each in troubles:
        if each:
            raise GalleryError(each)
    assert not isinstance(known, str)
    share = shards.share(len(known.ids))
    return shards.nearest_people(probes, known.vectors[share], known.people[share], asked.people)


def _state(known: GalleryVectors) -> int:
    """A number that tells one state of a gallery from another: which embeddings it holds, and whose they are."""
    names = "\n".join(known.names).encode()
    return zlib.crc32(known.ids.tobytes() + known.people.tobytes() + names)
