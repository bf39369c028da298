"""The gallery: people whom a camera is to recognise, in a file or on a server, which names walkers or says "nobody"."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation import Embeddings, finite_rows, write_embeddings
from hstl_fast.evaluation.rates import compared_rates
from hstl_fast.files import atomic_file
from hstl_fast.network import Network
from hstl_fast.progress import Progress, silent
from hstl_fast.recognition import answering, clock, exchange, refreshing, thresholds
from hstl_fast.recognition import clips as walks
from hstl_fast.recognition.answering import Limit
from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.lazily import Lazily
from hstl_fast.recognition.records import Answer, Clip, Fingerprint, GalleryVectors
from hstl_fast.recognition.refreshing import Refreshed
from hstl_fast.recognition.roster import Roster, check_limits
from hstl_fast.recognition.vectors import Vectors
from hstl_fast.version import __version__

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from hstl_fast.recognition.storage import queries, writing
    from hstl_fast.recognition.storage.queries import Index
    from hstl_fast.recognition.storage.writing import NewRecording
else:
    queries, writing = (Lazily(f"hstl_fast.recognition.storage.{name}") for name in ("queries", "writing"))

# Vectors and silhouettes that are read at once.
_VECTORS_AT_ONCE, _SILHOUETTES_AT_ONCE = 256, 64


class Gallery(Roster):
    """People, their recordings, and embeddings of these, in an SQLite file or a PostgreSQL database.

    Every change is one transaction: killed at any moment, a gallery has all of it or nothing. Several processes may
    write and read at once; a database that is busy or away is tried again for some seconds. A gallery may be used by
    several threads, and is to be opened anew after a fork.

    Deleted is deleted: in an SQLite file the bytes of deleted recordings are overwritten with zeros. PostgreSQL gives
    their room free and overwrites it with what comes later; `compact` rewrites its tables. Neither reaches copies:
    backups, exports, a server's write-ahead log, snapshots of file systems. Recordings whose time has come are not
    searched any more, and are deleted by `delete_expired` and by every other change.

    Attributes:
        url: The URL of the gallery, without password.
        search: The search for the nearest people; `together` divides it over processes.
    """

    def __init__(
        self,
        url: str | os.PathLike[str] = "sqlite:///people.db",
        *,
        network: Network | None = None,
        create: bool = True,
    ) -> None:
        super().__init__(url, network=network, create=create)
        self.search: answering.Search = answering.search
        self._loader = Vectors(self._database)
        self._index: Index | None = None
        self._vectors: GalleryVectors | None = None
        # Thresholds of the vectors, by their false-accept rates.
        self._limits: dict[float, Limit] = {}
        self._said: set[str] = set()

    def vectors(self) -> GalleryVectors:
        """Return the embeddings, without those of recordings whose time has come.

        Returns:
            The embeddings; they are read again only after a change.

        Raises:
            GalleryError: An embedding is damaged, or the database cannot be read.
        """
        return self._searched()[1]

    def _searched(self) -> tuple[Index, GalleryVectors]:
        with self._lock:
            index, known = self._index, self._vectors
            if index is not None and known is not None and index.state == self._state():
                return index, known
            index, vectors = self._loader.load()
            of_rows = (index.ids, index.people, index.names, vectors)
            known = GalleryVectors(*of_rows, index.recordings, index.sources, index.fps)
            self._index, self._vectors, self._limits = index, known, {}
            return index, known

    def _deleted(self, count: int) -> int:
        if count:
            self._loader.follow_deletion()
        return super()._deleted(count)

    def identify(
        self,
        clips: Iterable[Clip],
        threshold: float | None = None,
        *,
        false_accept_rate: float | None = None,
        count: int = 5,
    ) -> list[Answer]:
        """Find who is in clips.

        Args:
            clips: The probes.
            threshold: The greatest distance at which a name is given. None takes that of `false_accept_rate`, or else
                the stored one, or else always gives the name of the nearest person.
            false_accept_rate: Choose the threshold from the gallery so that this share of strangers gets a name.
            count: How many people to find for each clip.

        Returns:
            An answer for each clip.

        Raises:
            GalleryError: The gallery is empty, its embeddings are of another network, a clip is none, or no threshold
                can be chosen from the gallery.
        """
        checked = walks.check_clips(clips)
        given = Fingerprint.of(self.network)
        self._searchable(given)
        limit = self._limit(threshold, false_accept_rate)
        vectors = walks.embed(self.network.model, checked)
        rates = np.array([np.nan if clip.fps is None else clip.fps for clip in checked], np.float64)
        return self._answers([clip.source for clip in checked], vectors, rates, given, limit, count)

    def identify_embeddings(
        self,
        probes: Embeddings,
        threshold: float | None = None,
        *,
        false_accept_rate: float | None = None,
        count: int = 5,
    ) -> list[Answer]:
        """Find who is in sequences that were embedded before.

        Args:
            probes: The embeddings, such as those of an embedding file.
            threshold: As for `identify`.
            false_accept_rate: As for `identify`.
            count: As for `identify`.

        Returns:
            An answer for each sequence.

        Raises:
            GalleryError: The gallery is empty, its embeddings are of another network, or no threshold can be chosen.
        """
        given = Fingerprint(probes.preset, probes.weights)
        self._searchable(given)
        limit = self._limit(threshold, false_accept_rate)
        if not finite_rows(probes.vectors).all():
            raise GalleryError("probes must be finite; got an embedding with NaN or infinity")
        rates = np.full(len(probes.names), np.nan) if probes.fps is None else probes.fps
        return self._answers(probes.names, probes.vectors, rates, given, limit, count)

    def _searchable(self, given: Fingerprint) -> tuple[Index, GalleryVectors]:
        """Return what is searched, if it can be searched for embeddings of a network."""
        index, gallery = self._searched()
        if index.network is None or not len(gallery.ids):
            raise GalleryError(self._empty())
        if index.network.fingerprint != given:
            raise GalleryError(f"{self._name}: {writing.differing(index.network.fingerprint, given)}")
        return index, gallery

    def _answers(
        self,
        sources: Sequence[str],
        vectors: NDArray[np.float32],
        rates: NDArray[np.float64],
        given: Fingerprint,
        limit: Limit,
        count: int,
    ) -> list[Answer]:
        if count < 1:
            raise GalleryError(f"count must be at least 1; got {count}")
        # While the probes were embedded, a refresh may have brought another network into use.
        gallery = self._searchable(given)[1]
        if (sentence := compared_rates(gallery.fps, rates)) is not None and sentence not in self._said:
            self._said.add(sentence)
            warnings.warn(sentence, GalleryWarning, stacklevel=3)
        found = answering.find(vectors, gallery, count, self.search)
        rows = zip(sources, vectors, found)
        return [answering.answer(source, vector, nearest, gallery, limit) for source, vector, nearest in rows]

    def _limit(self, threshold: float | None, rate: float | None) -> Limit:
        check_limits(threshold, rate)
        if threshold is not None and rate is not None:
            raise GalleryError("threshold and false_accept_rate must not both be given; got both")
        if threshold is not None:
            return Limit(float(threshold))
        if rate is not None:
            return self._limit_of_rate(rate)
        return Limit(*(self.stored_threshold() or (None, None)))

    def _limit_of_rate(self, rate: float) -> Limit:
        with self._lock:
            gallery = self.vectors()
            if rate not in self._limits:
                try:
                    # Strangers have no recordings from the video of a probe, so that videos need not be told apart.
                    found = thresholds.from_gallery(gallery.vectors, gallery.people, rate)
                except ValueError as error:
                    raise GalleryError(str(error)) from error
                self._limits[rate] = Limit(found.distance, found.false_accept_rate)
            return self._limits[rate]

    def threshold(self, false_accept_rate: float) -> float:
        """Choose the threshold for a false-accept rate, as `identify` and `identify_embeddings` do.

        Args:
            false_accept_rate: The share of strangers who get a name.

        Returns:
            The greatest distance at which a name is given; it is found again only after a change.

        Raises:
            GalleryError: The gallery is too small to tell it.
        """
        check_limits(None, false_accept_rate)
        distance = self._limit_of_rate(false_accept_rate).distance
        assert distance is not None
        return distance

    def export(self, path: str | os.PathLike[str]) -> int:
        """Write the gallery to one file, atomically; `hstl_fast.recognition.exchange` says what it holds.

        The file is an embedding file, an `.npz` with additions, which numpy and a text editor read.

        Args:
            path: The file; an earlier one is replaced.

        Returns:
            The number of recordings in it.

        Raises:
            GalleryError: The gallery is empty or damaged.
            OSError: The file cannot be written.
        """
        return self._database.read(lambda connection: self._export(connection, Path(path)))

    def _export(self, connection: Connection, path: Path) -> int:
        index = queries.index(connection, clock.now())
        if index.network is None or not len(index.ids):
            raise GalleryError(self._empty())
        fingerprint = index.network.fingerprint
        rows = queries.described(connection, index.recordings.tolist())
        shape = (index.network.parts, index.network.channels)
        embeddings = Embeddings(
            np.broadcast_to(np.float32(0), (len(index.ids), *shape)),
            tuple(f"{row.person}/{row.source}" for row in rows),
            np.array([row.frames for row in rows], np.int64),
            *(fingerprint.preset, fingerprint.weights, __version__),
            None if np.isnan(index.fps).all() else index.fps,
        )
        distance, rate = queries.threshold(connection) or (None, None)
        contents: dict[str, Any] = {"preprocessing": fingerprint.preprocessing, "threshold": distance}
        contents |= {"false_accept_rate": rate, "recordings": [exchange.described(row) for row in rows]}
        with atomic_file(path, durable=True) as draft:
            draft.touch(mode=0o600)  # as a new gallery
            with draft.open("wb") as file:
                write_embeddings(file, embeddings, self._blocks(connection, index.ids, shape))
            exchange.add_description(draft, contents, self._kept(connection, index.recordings, rows))
        return len(rows)

    def _blocks(
        self, connection: Connection, ids: NDArray[np.int64], shape: tuple[int, int]
    ) -> Iterator[NDArray[np.float32]]:
        for start in range(0, len(ids), _VECTORS_AT_ONCE):
            some = ids[start : start + _VECTORS_AT_ONCE].tolist()
            found = queries.vectors(connection, some, shape)
            yield np.stack([found[number] for number in some])

    def _kept(
        self, connection: Connection, numbers: NDArray[np.int64], rows: Sequence[exchange.Described]
    ) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        for number, row in zip(numbers.tolist(), rows):
            frames = queries.silhouettes(connection, number)
            if row.silhouettes is not None and frames is not None:
                yield row.silhouettes, frames

    def import_(self, path: str | os.PathLike[str], *, add: bool = False) -> exchange.Imported:
        """Enrol the people of a file: all of them or, after an error, none.

        Args:
            path: An export, or an embedding file of `hstl-fast embed`: the person is the name up to the first slash.
            add: Whether people may be in the gallery already: they get the recordings that it does not have. Otherwise
                a name that is taken is an error.

        Returns:
            What was new.

        Raises:
            FileNotFoundError: There is no such file.
            GalleryError: It is of another kind or damaged, its embeddings are of another network, or a name is taken.
        """
        contents = exchange.read(Path(path))
        check_limits(contents.threshold, contents.false_accept_rate)
        silhouettes = list(exchange.read_silhouettes(Path(path), contents))
        if self._network is not None and contents.fingerprint != Fingerprint.of(self._network):
            raise GalleryError(f"{path}: {writing.differing(Fingerprint.of(self._network), contents.fingerprint)}")
        fields = ("person", "source", "frames", "fps", "created", "keep_until", "digest")
        values = [{name: getattr(row, name) for name in fields} for row in contents.recordings]
        new = [
            writing.NewRecording(silhouettes=kept, vector=vector, **value)
            for value, kept, vector in zip(values, silhouettes, contents.vectors)
        ]
        self.delete_expired()
        return self._change(lambda connection: self._import(connection, contents, new, add))

    def _import(
        self, connection: Connection, contents: exchange.Contents, new: Sequence[NewRecording], add: bool
    ) -> exchange.Imported:
        parts, channels = contents.vectors.shape[1:]
        network = writing.use_network(connection, contents.fingerprint, (parts, channels))
        known = queries.known_digests(connection, [row.digest for row in new]) if add else {}
        fresh = [row for row in new if row.digest not in known or known[row.digest][1] != row.person]
        before = queries.counts(connection)
        if fresh:
            writing.add_recordings(connection, network, fresh, add)
        if contents.threshold is not None and queries.threshold(connection) is None:
            limit = (contents.threshold, contents.false_accept_rate)
            writing.set_threshold(connection, network.number, *limit)
        after = queries.counts(connection)
        return exchange.Imported(after[0] - before[0], after[1] - before[1], len(new) - len(fresh))

    def refresh(self, network: Network, progress: Progress = silent) -> Refreshed:
        """Embed the gallery with another network, from the silhouettes that it keeps.

        The former embeddings stay until those of all recordings are there. A refresh that was stopped goes on where it
        was when it is started again.

        Args:
            network: The network, which is then the gallery's.
            progress: Called as `progress(stage, done, total)`.

        Returns:
            How many recordings were embedded, and those whose silhouettes are not kept: while there are any, the
            gallery keeps its former network.

        Raises:
            GalleryError: Silhouettes are damaged, or the database cannot be written.
        """
        done = refreshing.refresh(self._database, network, progress)
        if not done.without_silhouettes:
            with self._lock:
                self._network = network
            self._deleted(done.done)
        return done

    def check(self, progress: Progress = silent) -> int:
        """Check every byte of the gallery: the file, the checksums of embeddings, and kept silhouettes.

        Args:
            progress: Called as `progress(stage, done, total)`.

        Returns:
            The number of recordings that were checked.

        Raises:
            GalleryError: Something is damaged; the message names the first.
        """
        from hstl_fast.recognition.storage.opening import quick_check

        quick_check(self._database)
        index = self._database.read(partial(queries.index, now=clock.now()))
        self._loader.read(index)
        numbers = self._database.read(queries.with_silhouettes)
        for start in range(0, len(numbers), _SILHOUETTES_AT_ONCE):
            progress("checking", start, len(numbers))
            some = numbers[start : start + _SILHOUETTES_AT_ONCE]
            self._database.read(partial(_read_silhouettes, numbers=some))
        progress("checking", len(numbers), len(numbers))
        return len(index.recordings)


def _read_silhouettes(connection: Connection, numbers: list[int]) -> None:
    for number in numbers:
        queries.silhouettes(connection, number)
