"""Reading a gallery in a transaction."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Select, exists, func, select

from hstl_fast.recognition.clips import decompressed
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.exchange import Described
from hstl_fast.recognition.records import Fingerprint, Person, Recording
from hstl_fast.recognition.storage.tables import changes, embeddings, meta, networks, people, recordings, thresholds


class StoredNetwork(NamedTuple):
    """A network whose embeddings a gallery holds.

    Attributes:
        number: Its number in the gallery.
        fingerprint: What tells it from others.
        parts: Parts of its embeddings.
        channels: Channels of its embeddings.
    """

    number: int
    fingerprint: Fingerprint
    parts: int
    channels: int


class State(NamedTuple):
    """A state of a gallery, told from any other one: also where the database was replaced by a backup, and where a
    recording's time has come, which no change tells.

    Attributes:
        gallery: The random name of the gallery.
        revision: The number of the latest change.
        token: The random name of that change, or None where it has none.
        expired: How many recordings are to be deleted by now.
    """

    gallery: str
    revision: int
    token: str | None
    expired: int


class Index(NamedTuple):
    """All of a gallery that a search needs, but for the vectors.

    Attributes:
        state: The state of the gallery.
        network: The network in use, or None in a gallery that is empty and has none.
        ids: Numbers of the embeddings, int64 `[k]`, increasing.
        recordings: Numbers of the recordings, int64 `[k]`.
        people: Rows into `names`, int64 `[k]`.
        names: The people.
        sources: Where the recordings come from.
        fps: Frames a second, float64 `[k]`, NaN where unknown.
    """

    state: State
    network: StoredNetwork | None
    ids: NDArray[np.int64]
    recordings: NDArray[np.int64]
    people: NDArray[np.int64]
    names: tuple[str, ...]
    sources: tuple[str, ...]
    fps: NDArray[np.float64]


_RECORDING = (
    recordings.c.id,
    people.c.name,
    recordings.c.source,
    recordings.c.frames,
    recordings.c.fps,
    recordings.c.created,
    recordings.c.keep_until,
    recordings.c.silhouettes.is_not(None),
)


def revision(connection: Connection) -> int:
    """Read the number of the latest change.

    Args:
        connection: A transaction.

    Returns:
        The revision.
    """
    return int(connection.execute(select(meta.c.revision)).scalar_one())


def gallery(connection: Connection) -> str:
    """Read the random name that tells this gallery from any other.

    Args:
        connection: A transaction.

    Returns:
        The name, 32 hexadecimal digits.
    """
    return str(connection.execute(select(meta.c.gallery)).scalar_one())


def state(connection: Connection, now: datetime) -> State:
    """Read what tells the state of a gallery from any other.

    Args:
        connection: A transaction.
        now: The time in UTC.

    Returns:
        The state.
    """
    expired = select(func.count()).where(recordings.c.keep_until <= now).scalar_subquery()
    latest = select(meta.c.gallery, meta.c.revision, changes.c.token, expired)
    return State(*connection.execute(latest.outerjoin(changes, changes.c.revision == meta.c.revision)).one())


def token(connection: Connection, revision: int) -> str | None:
    """Find the token of a change by its revision, or None: it is not among the latest, or there was none.

    Args:
        connection: A transaction.
        revision: The revision.

    Returns:
        The token, or None.
    """
    return connection.execute(select(changes.c.token).where(changes.c.revision == revision)).scalar()


def size(connection: Connection) -> tuple[int, StoredNetwork | None]:
    """Count the embeddings of the network in use.

    Args:
        connection: A transaction.

    Returns:
        Their number, and the network, or None where there is none yet.
    """
    network = network_in_use(connection)
    number = None if network is None else network.number
    count = select(func.count()).select_from(embeddings).where(embeddings.c.network_id == number)
    return connection.execute(count).scalar_one(), network


def network_in_use(connection: Connection) -> StoredNetwork | None:
    """Find the network whose embeddings are searched, or None where there is none yet.

    Args:
        connection: A transaction.

    Returns:
        The network, or None.
    """
    row = connection.execute(select(networks).join(meta, meta.c.network_id == networks.c.id)).first()
    return None if row is None else _network(row)


def network_of(connection: Connection, fingerprint: Fingerprint) -> StoredNetwork | None:
    """Find a network by its fingerprint, or None.

    Args:
        connection: A transaction.
        fingerprint: The fingerprint.

    Returns:
        The network, or None.
    """
    wanted = zip((networks.c.preset, networks.c.weights, networks.c.preprocessing), fingerprint, strict=True)
    row = connection.execute(select(networks).where(*(column == value for column, value in wanted))).first()
    return None if row is None else _network(row)


def _network(row: Any) -> StoredNetwork:
    return StoredNetwork(row.id, Fingerprint(row.preset, row.weights, row.preprocessing), row.parts, row.channels)


def threshold(connection: Connection) -> tuple[float, float | None] | None:
    """Read the threshold of the network in use with its false-accept rate, or None.

    Args:
        connection: A transaction.

    Returns:
        Both, or None.
    """
    chosen = select(thresholds.c.distance, thresholds.c.false_accept_rate)
    row = connection.execute(chosen.join(meta, meta.c.network_id == thresholds.c.network_id)).first()
    return None if row is None else (row.distance, row.false_accept_rate)


def list_people(connection: Connection) -> list[Person]:
    """List people by name.

    Args:
        connection: A transaction.

    Returns:
        The people.
    """
    count = func.count(recordings.c.id)
    query = select(people.c.name, count, people.c.created).outerjoin(recordings).group_by(people.c.id)
    return sorted((Person(*row) for row in connection.execute(query)), key=lambda person: person.name)


def list_recordings(connection: Connection, name: str | None) -> list[Recording]:
    """List the recordings of a person, or all, by number.

    Args:
        connection: A transaction.
        name: The person, or None for everybody.

    Returns:
        The recordings.
    """
    query = select(*_RECORDING).join(people).order_by(recordings.c.id)
    if name is not None:
        query = query.where(people.c.name == name)
    return [Recording(*row) for row in connection.execute(query)]


def recordings_by_number(connection: Connection, numbers: Sequence[int]) -> dict[int, Recording]:
    """Find recordings; those that are gone are left out.

    Args:
        connection: A transaction.
        numbers: Their numbers.

    Returns:
        The recordings by number.
    """
    query = select(*_RECORDING).join(people).where(recordings.c.id.in_(numbers))
    return {row[0]: Recording(*row) for row in connection.execute(query)}


def described(connection: Connection, numbers: Sequence[int]) -> list[Described]:
    """Describe recordings for an export, in the order of their numbers that is given.

    Args:
        connection: A transaction.
        numbers: Their numbers.

    Returns:
        The descriptions.
    """
    columns = ("source", "frames", "fps", "created", "keep_until", "digest")
    kept = recordings.c.silhouettes.is_not(None)
    query = select(recordings.c.id, people.c.name, *(recordings.c[name] for name in columns), kept).join(people)
    found: dict[int, Described] = {}
    for number, person, *row, has_silhouettes in connection.execute(query):
        values = dict(zip(columns, row, strict=True))
        member = f"silhouettes/{number:06d}.npy" if has_silhouettes else None
        found[number] = Described(person, silhouettes=member, **values)
    return [found[number] for number in numbers]


def person_number(connection: Connection, name: str) -> int | None:
    """Find a person by name, or None.

    Args:
        connection: A transaction.
        name: The person.

    Returns:
        The number of the person, or None.
    """
    return connection.execute(select(people.c.id).where(people.c.name == name)).scalar()


def known_digests(connection: Connection, digests: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Find the recordings, by number and person, that have one of some digests.

    Args:
        connection: A transaction.
        digests: The digests.

    Returns:
        Numbers of recordings and names of people by digest.
    """
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(digests), 500):
        some = digests[start : start + 500]
        query = select(recordings.c.digest, recordings.c.id, people.c.name).join(people)
        found |= {row[0]: (row[1], row[2]) for row in connection.execute(query.where(recordings.c.digest.in_(some)))}
    return found


def index(connection: Connection, now: datetime) -> Index:
    """Read all that a search needs but the vectors, without recordings that are to be deleted by now.

    Args:
        connection: A transaction.
        now: The time in UTC.

    Returns:
        The index.
    """
    network = network_in_use(connection)
    number = None if network is None else network.number
    query = (
        select(embeddings.c.id, recordings.c.id, recordings.c.person_id, recordings.c.fps, recordings.c.source)
        .join(recordings, recordings.c.id == embeddings.c.recording_id)
        .where(embeddings.c.network_id == number, _is_kept(now))
        .order_by(embeddings.c.id)
    )
    rows = connection.execute(query).all()
    named = connection.execute(select(people.c.id, people.c.name).order_by(people.c.id)).all()
    places = {row[0]: place for place, row in enumerate(named)}
    return Index(
        state(connection, now),
        network,
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([places[row[2]] for row in rows], np.int64),
        tuple(row[1] for row in named),
        tuple(row[4] for row in rows),
        np.array([np.nan if row[3] is None else row[3] for row in rows], np.float64),
    )


def has_expired(connection: Connection, now: datetime) -> bool:
    """Tell whether there are recordings that are to be deleted by now.

    Args:
        connection: A transaction.
        now: The time in UTC.

    Returns:
        Whether there are.
    """
    return connection.execute(select(recordings.c.id).where(~_is_kept(now)).limit(1)).first() is not None


def _is_kept(now: datetime) -> Any:
    return recordings.c.keep_until.is_(None) | (recordings.c.keep_until > now)


def vectors(connection: Connection, ids: Sequence[int], shape: tuple[int, int]) -> dict[int, NDArray[np.float32]]:
    """Read some vectors.

    Args:
        connection: A transaction.
        ids: Numbers of embeddings.
        shape: Parts and channels.

    Returns:
        Vectors `[P, C]` by the numbers of their embeddings; those that are gone are left out.

    Raises:
        GalleryError: A vector is damaged; the message names the recording.
    """
    query = select(embeddings.c.id, embeddings.c.recording_id, embeddings.c.crc, embeddings.c.vector)
    found = {}
    for number, recording, crc, data in connection.execute(query.where(embeddings.c.id.in_(ids))):
        if zlib.crc32(data) != crc or len(data) != 4 * shape[0] * shape[1]:
            raise GalleryError(
                f"the embedding of recording {recording} is damaged: its checksum is not that of its bytes; take a "
                f"copy of the gallery, or `hstl-fast gallery remove --recording {recording}` and enrol it again"
            )
        found[number] = np.frombuffer(data, "<f4").reshape(shape)
    return found


def silhouettes(connection: Connection, recording: int) -> NDArray[np.uint8] | None:
    """Read the silhouettes of a recording.

    Args:
        connection: A transaction.
        recording: The number of the recording.

    Returns:
        `[T, 64, 64]` uint8, or None where they are not kept or the recording is gone.

    Raises:
        GalleryError: They are damaged.
    """
    query = select(recordings.c.silhouettes, recordings.c.frames).where(recordings.c.id == recording)
    row = connection.execute(query).first()
    if row is None or row[0] is None:
        return None
    try:
        return decompressed(row[0], row[1])
    except ValueError as error:
        raise GalleryError(f"recording {recording}: {error}") from error


def with_silhouettes(connection: Connection) -> list[int]:
    """List the recordings whose silhouettes are kept.

    Args:
        connection: A transaction.

    Returns:
        Their numbers.
    """
    query = select(recordings.c.id).where(recordings.c.silhouettes.is_not(None)).order_by(recordings.c.id)
    return list(connection.execute(query).scalars())


def without_embedding(network: int, has_silhouettes: bool) -> Select[Any]:
    """Select the numbers of recordings that a network has not embedded, with or without kept silhouettes.

    Args:
        network: The number of the network.
        has_silhouettes: Whether silhouettes are kept.

    Returns:
        The query, which gives numbers in order.
    """
    kept = recordings.c.silhouettes
    done = exists().where(embeddings.c.recording_id == recordings.c.id, embeddings.c.network_id == network)
    state = kept.is_not(None) if has_silhouettes else kept.is_(None)
    return select(recordings.c.id).where(~done, state).order_by(recordings.c.id)


def counts(connection: Connection) -> tuple[int, int]:
    """Count people and recordings.

    Args:
        connection: A transaction.

    Returns:
        Both numbers.
    """
    numbers = (select(func.count()).select_from(table) for table in (people, recordings))
    first, second = (connection.execute(number).scalar_one() for number in numbers)
    return first, second
