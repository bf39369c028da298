"""Changing a gallery in a transaction."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, delete, exists, func, insert, select, update

from hstl_fast.names import did_you_mean
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.names import check_new_name, refuse_twins
from hstl_fast.recognition.records import Fingerprint
from hstl_fast.recognition.storage import queries
from hstl_fast.recognition.storage.queries import StoredNetwork
from hstl_fast.recognition.storage.tables import embeddings, meta, networks, people, recordings, thresholds


@dataclass(frozen=True, eq=False)
class NewRecording:
    """A recording that is about to be stored.

    Attributes:
        person: The name of the person, which was checked.
        source: Where it comes from.
        frames: The number of its frames.
        fps: Frames a second, or None.
        created: When it was enrolled.
        keep_until: When it is to be deleted, or None.
        digest: What tells whether another recording is the same walk.
        silhouettes: Compressed silhouettes, or None.
        vector: Its embedding `[P, C]` float32.
    """

    person: str
    source: str
    frames: int
    fps: float | None
    created: datetime
    keep_until: datetime | None
    digest: str
    silhouettes: bytes | None
    vector: NDArray[np.float32]


def use_network(connection: Connection, fingerprint: Fingerprint, shape: tuple[int, int]) -> StoredNetwork:
    """Make sure that a network is the one in use; a gallery without embeddings takes any.

    Args:
        connection: A transaction that holds the lock of writers.
        fingerprint: The network.
        shape: Parts and channels of its embeddings.

    Returns:
        The network as stored.

    Raises:
        GalleryError: The gallery's embeddings are of another network.
    """
    used = queries.network_in_use(connection)
    if used is not None and used.fingerprint == fingerprint and (used.parts, used.channels) == shape:
        return used
    if used is not None and connection.execute(select(embeddings.c.id).limit(1)).first() is not None:
        raise GalleryError(differing(used.fingerprint, fingerprint))
    stored = store_network(connection, fingerprint, shape)
    connection.execute(update(meta).values(network_id=stored.number))
    return stored


def store_network(connection: Connection, fingerprint: Fingerprint, shape: tuple[int, int]) -> StoredNetwork:
    """Find a network, or store it.

    Args:
        connection: A transaction that holds the lock of writers.
        fingerprint: The network.
        shape: Parts and channels of its embeddings.

    Returns:
        The network as stored.

    Raises:
        GalleryError: It is stored with other sizes.
    """
    found = queries.network_of(connection, fingerprint)
    if found is not None and (found.parts, found.channels) != shape:
        sizes = f"{found.parts} x {found.channels}"
        raise GalleryError(f"embeddings of this network must be {sizes} as before; got {shape[0]} x {shape[1]}")
    if found is not None:
        return found
    values = {**fingerprint._asdict(), "parts": shape[0], "channels": shape[1]}
    made = connection.execute(insert(networks).values(values)).inserted_primary_key
    assert made is not None
    return StoredNetwork(made[0], fingerprint, *shape)


def differing(stored: Fingerprint, given: Fingerprint) -> str:
    """Write the sentence about embeddings of two networks.

    Args:
        stored: The gallery's network.
        given: The other one.

    Returns:
        The sentence.
    """
    fields = [name for name in Fingerprint._fields if getattr(stored, name) != getattr(given, name)]
    pairs = ", ".join(f"{name} {getattr(stored, name)} and {getattr(given, name)}" for name in fields)
    return (
        f"embeddings of two networks cannot be compared: the gallery's and those given differ in {pairs or 'size'}"
        "; use the gallery's network, or embed its kept silhouettes again with `hstl-fast gallery refresh`"
    )


def add_people(connection: Connection, names: Sequence[str], add: bool, now: datetime) -> dict[str, int]:
    """Find people by name, or store them.

    Args:
        connection: A transaction that holds the lock of writers.
        names: Their names.
        add: Whether they may be there already.
        now: When they are enrolled.

    Returns:
        Their numbers by name.

    Raises:
        GalleryError: A name is taken, and `add` is false; or a new one looks like another, or has letters unseen.
    """
    known = {name: number for name in names if (number := queries.person_number(connection, name)) is not None}
    if known and not add:
        raise GalleryError(taken(list(known)))
    new = [name for name in dict.fromkeys(names) if name not in known]
    if new:
        refuse_twins([check_new_name(name) for name in new], connection.execute(select(people.c.name)).scalars())
    for name in new:
        made = connection.execute(insert(people).values(name=name, created=now)).inserted_primary_key
        assert made is not None
        known[name] = made[0]
    return known


def taken(names: Sequence[str]) -> str:
    """Write the sentence about names that are taken.

    Args:
        names: The names.

    Returns:
        The sentence.
    """
    several = f"{len(names)} of the names, such as {names[0]!r}, are"
    whose = f"the name {names[0]!r} is" if len(names) == 1 else several
    return f"{whose} taken already: add recordings to the person (--add), or choose another name"


def add_recordings(connection: Connection, network: StoredNetwork, new: Sequence[NewRecording], add: bool) -> list[int]:
    """Store recordings with their people and embeddings.

    Args:
        connection: A transaction that holds the lock of writers.
        network: The network of the embeddings.
        new: The recordings.
        add: Whether the people may be there already.

    Returns:
        The numbers of the recordings.

    Raises:
        GalleryError: A name is taken and `add` is false, or a walk is there already.
    """
    numbers = add_people(connection, list(dict.fromkeys(r.person for r in new)), add, min(r.created for r in new))
    known = queries.known_digests(connection, [recording.digest for recording in new])
    made = []
    for recording in new:
        if recording.digest in known:
            raise GalleryError(already_there(recording.source, *known[recording.digest]))
        made.append(_add(connection, network.number, numbers[recording.person], recording))
        known[recording.digest] = (made[-1], recording.person)
    return made


def already_there(source: str, recording: int, person: str) -> str:
    """Write the sentence about a walk that is enrolled already.

    Args:
        source: Where the walk comes from.
        recording: The recording in the gallery.
        person: Its person.

    Returns:
        The sentence.
    """
    return f"{source}: this walk is in the gallery already, as recording {recording} of {person!r}"


def _add(connection: Connection, network: int, person: int, recording: NewRecording) -> int:
    columns = ("source", "frames", "fps", "created", "keep_until", "digest", "silhouettes")
    values = {name: getattr(recording, name) for name in columns}
    made = connection.execute(insert(recordings).values(person_id=person, **values)).inserted_primary_key
    assert made is not None
    add_embedding(connection, network, made[0], recording.vector)
    return int(made[0])


def add_embedding(connection: Connection, network: int, recording: int, vector: NDArray[np.float32]) -> None:
    """Store an embedding `[P, C]` float32 of a recording by a network.

    Args:
        connection: A transaction that holds the lock of writers.
        network: The number of the network.
        recording: The number of the recording.
        vector: The embedding.
    """
    data = np.ascontiguousarray(vector, "<f4").tobytes()
    values = {"recording_id": recording, "network_id": network, "crc": zlib.crc32(data), "vector": data}
    connection.execute(insert(embeddings).values(values))


def remove_person(connection: Connection, name: str) -> int:
    """Delete a person with all recordings.

    Args:
        connection: A transaction that holds the lock of writers.
        name: The person.

    Returns:
        The number of his recordings.

    Raises:
        GalleryError: There is nobody of that name.
    """
    number = find_person(connection, name)
    count = connection.execute(select(func.count()).where(recordings.c.person_id == number)).scalar_one()
    connection.execute(delete(people).where(people.c.id == number))
    return count


def find_person(connection: Connection, name: str) -> int:
    """Find a person by name.

    Args:
        connection: A transaction.
        name: The person.

    Returns:
        The number of the person.

    Raises:
        GalleryError: There is nobody of that name; the message names the nearest one.
    """
    number = queries.person_number(connection, name)
    if number is None:
        near = did_you_mean(name, connection.execute(select(people.c.name)).scalars())
        raise GalleryError(f"there is nobody called {name!r} in the gallery{near}")
    return number


def remove_recording(connection: Connection, number: int) -> None:
    """Delete a recording, and its person where it was the last.

    Args:
        connection: A transaction that holds the lock of writers.
        number: The recording.

    Raises:
        GalleryError: There is no such recording.
    """
    if not connection.execute(delete(recordings).where(recordings.c.id == number)).rowcount:
        raise GalleryError(f"there is no recording {number} in the gallery")
    _remove_people_without_recordings(connection)


def rename(connection: Connection, old: str, new: str) -> None:
    """Give a person another name.

    Args:
        connection: A transaction that holds the lock of writers.
        old: The name.
        new: The other one.

    Raises:
        GalleryError: There is nobody of the old name, or somebody of the new one or of one that looks like it.
    """
    number = find_person(connection, old)
    refuse_twins([new], connection.execute(select(people.c.name).where(people.c.id != number)).scalars())
    if queries.person_number(connection, new) not in (None, number):
        raise GalleryError(f"the name {new!r} is taken already")
    connection.execute(update(people).where(people.c.id == number).values(name=new))


def delete_expired(connection: Connection, now: datetime) -> int:
    """Delete the recordings that are to be deleted by now, and people without any, and count the recordings.

    Args:
        connection: A transaction that holds the lock of writers.
        now: The time in UTC.

    Returns:
        The number of recordings.
    """
    gone = connection.execute(delete(recordings).where(recordings.c.keep_until <= now)).rowcount
    if gone:
        _remove_people_without_recordings(connection)
    return gone


def _remove_people_without_recordings(connection: Connection) -> None:
    connection.execute(delete(people).where(~exists().where(recordings.c.person_id == people.c.id)))


def set_threshold(connection: Connection, network: int, distance: float | None, rate: float | None) -> None:
    """Store the threshold of a network, or remove it (None).

    Args:
        connection: A transaction that holds the lock of writers.
        network: The number of the network.
        distance: The threshold, or None.
        rate: Its false-accept rate, or None.
    """
    connection.execute(delete(thresholds).where(thresholds.c.network_id == network))
    if distance is not None:
        values = {"network_id": network, "distance": distance, "false_accept_rate": rate}
        connection.execute(insert(thresholds).values(values))


def switch_network(connection: Connection, network: int) -> None:
    """Search the embeddings of another network from now on, and delete those of all others.

    Args:
        connection: A transaction that holds the lock of writers.
        network: The number of the network.
    """
    connection.execute(update(meta).values(network_id=network))
    connection.execute(delete(embeddings).where(embeddings.c.network_id != network))
