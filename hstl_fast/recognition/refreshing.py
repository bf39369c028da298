"""Embedding a gallery again with another network, from the silhouettes that it keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.network import Network
from hstl_fast.progress import Progress
from hstl_fast.recognition import clips as walks
from hstl_fast.recognition.records import Clip, Fingerprint, Recording

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hstl_fast.recognition.storage.database import Database

# Recordings that are embedded and stored together.
_AT_ONCE = 16


class Refreshed(NamedTuple):
    """The outcome of a refresh.

    Attributes:
        done: Recordings that were embedded now.
        without_silhouettes: Recordings that cannot be, since their silhouettes are not kept. While there are any, the
            gallery keeps its former network.
    """

    done: int
    without_silhouettes: list[Recording]


def refresh(database: Database, network: Network, progress: Progress) -> Refreshed:
    """Embed all recordings with a network, and take its embeddings into use once all are there.

    Each step is stored at once, so that a refresh that was stopped goes on where it was.

    Args:
        database: The gallery.
        network: The network.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        What came of it.

    Raises:
        GalleryError: Silhouettes are damaged, or the database cannot be written.
    """
    from hstl_fast.recognition.storage import queries, writing

    shape = (network.model.config.parts, network.model.config.channels)
    stored = database.change(lambda connection: writing.store_network(connection, Fingerprint.of(network), shape))

    def pending(connection: Connection) -> list[int]:
        return list(connection.execute(queries.without_embedding(stored.number, True)).scalars())

    def finish(connection: Connection) -> list[Recording] | None:
        """Switch if nothing is left; None where somebody enrolled meanwhile."""
        lacking = list(connection.execute(queries.without_embedding(stored.number, False)).scalars())
        if lacking:
            return list(queries.recordings_by_number(connection, lacking).values())
        if pending(connection):
            return None
        writing.switch_network(connection, stored.number)
        return []

    done = 0
    while True:
        left = database.read(pending)
        total = done + len(left)
        for start in range(0, len(left), _AT_ONCE):
            progress("embedding", done, total)
            done += _embed(database, network, stored.number, left[start : start + _AT_ONCE])
        progress("embedding", done, done)
        # What cannot be embedded now could not be either after another round.
        if (without := database.change(finish)) is not None:
            return Refreshed(done, sorted(without, key=lambda recording: recording.id))


def _embed(database: Database, network: Network, number: int, recordings: list[int]) -> int:
    """Embed some recordings; those that were removed or embedded by another process meanwhile are left out."""
    from hstl_fast.recognition.storage import queries, writing

    frames = database.read(lambda connection: {i: queries.silhouettes(connection, i) for i in recordings})
    clips = {i: Clip(f"recording {i}", kept) for i, kept in frames.items() if kept is not None}
    if not clips:
        return 0
    vectors: dict[int, NDArray[np.float32]] = dict(zip(clips, walks.embed(network.model, list(clips.values()))))

    def store(connection: Connection) -> int:
        there = set(connection.execute(queries.without_embedding(number, True)).scalars())
        for recording in there & set(vectors):
            writing.add_embedding(connection, number, recording, vectors[recording])
        return len(there & set(vectors))

    return database.change(store)
