"""Who is in a gallery: people enrolled, renamed and removed, each change whole or not made at all."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from hstl_fast.models.config import PRESETS
from hstl_fast.network import Network, shipped_weights
from hstl_fast.recognition import clips as walks
from hstl_fast.recognition import clock
from hstl_fast.recognition.errors import GalleryError
from hstl_fast.recognition.lazily import Lazily
from hstl_fast.recognition.names import check_name, check_new_name, clean_source, refuse_twins
from hstl_fast.recognition.records import Clip, Fingerprint, Person, Recording
from hstl_fast.silhouettes import extras

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from typing_extensions import Self

    from hstl_fast.recognition.storage import queries, writing
    from hstl_fast.recognition.storage.queries import State
    from hstl_fast.recognition.storage.writing import NewRecording
else:
    queries, writing = (Lazily(f"hstl_fast.recognition.storage.{name}") for name in ("queries", "writing"))

T = TypeVar("T")


class Roster:
    """The people of a gallery and their recordings; `Gallery` adds what they are kept for.

    Attributes:
        url: The URL of the gallery, without password.
    """

    url: str

    def __init__(
        self,
        url: str | os.PathLike[str] = "sqlite:///people.db",
        *,
        network: Network | None = None,
        create: bool = True,
    ) -> None:
        """Open a gallery.

        Args:
            url: A file, as a path or as `sqlite:///PATH`, or `postgresql://USER:PASSWORD@HOST/DATABASE`.
            network: What embeds clips. None takes the network that made the gallery's embeddings, where it is the one
                that the package brings along or has random weights from a seed, or in a new gallery the former.
            create: Whether to make a gallery where there is none.

        Raises:
            GalleryError: There is no gallery and none may be made; or it is damaged, of a newer version, something
                else, or cannot be reached.
            ImportError: The extra `[recognition]` is not installed.
        """
        extras.sqlalchemy()
        from hstl_fast.recognition.storage import opening
        from hstl_fast.recognition.storage.addresses import Address

        address = Address.parse(url)
        if address.server is not None:
            extras.psycopg()
        self.url = address.shown
        self._name = address.name
        self._network = network
        self._database = opening.open_database(address, create)
        self._lock = threading.RLock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    @property
    def network(self) -> Network:
        """The network that embeds clips.

        Raises:
            GalleryError: The gallery's embeddings were made with a checkpoint, which was not given.
        """
        with self._lock:
            if self._network is None:
                self._network = _network_of(self.fingerprint)
            return self._network

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The origin of the gallery's embeddings, or None in a gallery that never had any."""
        found = self._database.read(queries.network_in_use)
        return None if found is None else found.fingerprint

    def revision(self) -> int:
        """Return the number of the latest change, which grows with every change by any process.

        Returns:
            The revision.
        """
        return self._database.read(queries.revision)

    def state(self) -> str:
        """Return a text that tells the gallery as it is now from what it was.

        Returns:
            The text, which is another one after every change, where the database was replaced by another one, such as
            a backup, and where the time of a recording has come.
        """
        return " ".join(map(str, self._state()))

    def _state(self) -> State:
        # Not the revision alone: a backup that was restored may have the same one.
        return self._database.read(partial(queries.state, now=clock.now()))

    def enroll(
        self,
        name: str,
        clips: Iterable[Clip],
        *,
        add: bool = False,
        keep_silhouettes: bool = True,
        keep_days: float | None = None,
    ) -> list[Recording]:
        """Enrol walks of a person: all of them or, after an error, none.

        Args:
            name: The person.
            clips: The walks.
            add: Whether the person may be in the gallery already, and gets more recordings.
            keep_silhouettes: Whether the gallery keeps the silhouettes, so that another network can embed them.
            keep_days: Days after which the recordings are to be deleted, or None.

        Returns:
            The recordings.

        Raises:
            GalleryError: The name is none or is taken, a clip is none or is enrolled already, the gallery's embeddings
                are of another network, or the database cannot be written.
        """
        name, checked = check_name(name), walks.check_clips(clips)
        digests = [walks.digest(clip.silhouettes) for clip in checked]
        until = _keep_until(keep_days)
        self.delete_expired()  # so that their names and walks may be enrolled
        self._database.read(lambda connection: self._refuse_early(connection, name, add, digests, checked))
        fingerprint, created = Fingerprint.of(self.network), clock.now()
        vectors = walks.embed(self.network.model, checked)
        new = [
            writing.NewRecording(
                *(name, clean_source(clip.source), len(clip.silhouettes), clip.fps, created, until, digest),
                silhouettes=walks.compressed(clip.silhouettes) if keep_silhouettes else None,
                vector=vector,
            )
            for clip, digest, vector in zip(checked, digests, vectors)
        ]
        return self._change(lambda connection: self._add(connection, fingerprint, new, add))

    def _refuse_early(
        self, connection: Connection, name: str, add: bool, digests: list[str], clips: list[Clip]
    ) -> None:
        """Refuse before the clips are embedded what the transaction would refuse afterwards."""
        if queries.person_number(connection, name) is None:
            refuse_twins([check_new_name(name)], (person.name for person in queries.list_people(connection)))
        elif not add:
            raise GalleryError(writing.taken([name]))
        known = queries.known_digests(connection, digests)
        for clip, digest in zip(clips, digests):
            if digest in known:
                raise GalleryError(writing.already_there(clip.source, *known[digest]))
        if len(set(digests)) < len(digests):
            first = next(i for i, digest in enumerate(digests) if digest in digests[:i])
            raise GalleryError(f"{clips[first].source}: the same walk is among the clips twice")
        self._check_network(connection)

    def _check_network(self, connection: Connection) -> None:
        used = queries.network_in_use(connection)
        if used is None or self._network is None:
            return
        given = Fingerprint.of(self._network)
        if used.fingerprint != given and queries.counts(connection)[1]:
            raise GalleryError(writing.differing(used.fingerprint, given))

    def _add(
        self, connection: Connection, fingerprint: Fingerprint, new: list[NewRecording], add: bool
    ) -> list[Recording]:
        parts, channels = new[0].vector.shape
        network = writing.use_network(connection, fingerprint, (parts, channels))
        numbers = writing.add_recordings(connection, network, new, add)
        found = queries.recordings_by_number(connection, numbers)
        return [found[number] for number in numbers]

    def remove(self, name: str) -> int:
        """Delete a person with all recordings.

        Args:
            name: The person.

        Returns:
            The number of recordings that were deleted.

        Raises:
            GalleryError: There is nobody of that name.
        """
        person = check_name(name)
        return self._deleted(self._change(lambda connection: writing.remove_person(connection, person)))

    def remove_recording(self, id: int) -> None:
        """Delete a recording; with the last one of a person, the person, too.

        Args:
            id: The number of the recording.

        Raises:
            GalleryError: There is no such recording.
        """
        self._change(lambda connection: writing.remove_recording(connection, int(id)))
        self._deleted(1)

    def rename(self, old: str, new: str) -> None:
        """Give a person another name.

        Args:
            old: The name.
            new: The other one.

        Raises:
            GalleryError: There is nobody of the old name, or somebody of the new one, or the new one is no name.
        """
        names = check_name(old), check_new_name(new)
        self._change(lambda connection: writing.rename(connection, *names))

    def people(self) -> list[Person]:
        """Return the people by name.

        Returns:
            The people.
        """
        return self._database.read(queries.list_people)

    def recordings(self, name: str | None = None) -> list[Recording]:
        """List recordings by number.

        Args:
            name: The person, or None for everybody.

        Returns:
            The recordings.

        Raises:
            GalleryError: There is nobody of that name.
        """
        person = None if name is None else check_name(name)

        def listed(connection: Connection) -> list[Recording]:
            if person is not None:
                writing.find_person(connection, person)
            return queries.list_recordings(connection, person)

        return self._database.read(listed)

    def delete_expired(self) -> int:
        """Delete recordings whose time has come, with people who have no other, and return how many recordings.

        Returns:
            The number of recordings.

        Raises:
            GalleryError: The database cannot be written.
        """
        if not self._database.read(partial(queries.has_expired, now=clock.now())):
            return 0
        return self._deleted(self._database.change(lambda connection: writing.delete_expired(connection, clock.now())))

    def stored_threshold(self) -> tuple[float, float | None] | None:
        """Return the threshold that is stored for the network with its false-accept rate, or None.

        Returns:
            The distance and the rate, which is None where it is not known; or None.
        """
        return self._database.read(queries.threshold)

    def store_threshold(self, distance: float | None, false_accept_rate: float | None = None) -> None:
        """Store the threshold that `identify` takes where none is given; it belongs to the network in use.

        Args:
            distance: The greatest distance at which a name is given, or None to remove the threshold.
            false_accept_rate: The share of strangers who are named at it, or None where it is not known.

        Raises:
            GalleryError: The gallery has no embeddings yet, or a number is not one.
        """
        check_limits(distance, false_accept_rate)

        def store(connection: Connection) -> None:
            used = queries.network_in_use(connection)
            if used is None:
                raise GalleryError(self._empty())
            writing.set_threshold(connection, used.number, distance, false_accept_rate)

        self._change(store)

    def _change(self, work: Callable[[Connection], T]) -> T:
        def change(connection: Connection) -> tuple[T, int]:
            # Whoever is to be removed is found also on the day on which his time is over.
            return work(connection), writing.delete_expired(connection, clock.now())

        done, expired = self._database.change(change)
        self._deleted(expired)
        return done

    def _deleted(self, count: int) -> int:
        """Let a server make the room of deleted rows free; it does so by itself later where it refuses."""
        if count and not self._database.is_file:
            with suppress(GalleryError):
                self._database.outside_transactions("VACUUM hstl_embeddings", "VACUUM hstl_recordings")
        return count

    def compact(self) -> None:
        """Rewrite the gallery without the room of deleted recordings; others have to wait meanwhile.

        Raises:
            GalleryError: The database refuses, such as on a full disk.
        """
        whole = "VACUUM" if self._database.is_file else "VACUUM FULL hstl_embeddings, hstl_recordings, hstl_people"
        self._database.outside_transactions(whole)

    def _empty(self) -> str:
        return f"{self._name}: the gallery is empty; enrol somebody first, such as by `hstl-fast enroll NAME VIDEO`"


def _keep_until(days: float | None) -> datetime | None:
    if days is None:
        return None
    if not (isinstance(days, (int, float)) and math.isfinite(days) and 0 < days <= 36500):
        raise GalleryError(f"keep_days must be a number of days, more than 0 and at most 36500; got {days!r}")
    return clock.now() + timedelta(days=days)


def check_limits(distance: float | None, rate: float | None) -> None:
    """Check a threshold and its false-accept rate.

    Args:
        distance: The distance, or None.
        rate: The rate, or None.

    Raises:
        GalleryError: The distance is negative, or the rate no share.
    """
    if distance is not None and not (math.isfinite(distance) and distance >= 0):
        raise GalleryError(f"threshold must be a distance, 0 or more; got {distance}")
    if rate is not None and not 0 <= rate <= 1:
        raise GalleryError(f"false_accept_rate must be a share, 0 to 1; got {rate}")


def _network_of(fingerprint: Fingerprint | None) -> Network:
    if fingerprint is None or fingerprint.weights == shipped_weights():
        return Network.shipped()
    seed = fingerprint.weights.removeprefix("seed:")
    if seed != fingerprint.weights and seed.isdecimal() and fingerprint.preset in PRESETS:
        return Network.from_seed(fingerprint.preset, int(seed))
    raise GalleryError(
        f"the gallery's embeddings were made by a network {fingerprint.preset} with the checkpoint "
        f"{fingerprint.weights}; pass it as --checkpoint (network=)"
    )
