"""Names for tracks: what the windows of a track say together, held steady, from a gallery that may change meanwhile."""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation import Embeddings
from hstl_fast.network import Network
from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.records import Answer, Fingerprint, GalleryVectors
from hstl_fast.version import __version__

Vector = NDArray[np.float32]
# The answer about a track rests on so many of its last windows.
WINDOWS = 8
# A name stands until so many answers in a row say otherwise.
STEADY = 2
# The gallery is asked at most this often, in seconds, whether it has changed.
ASKED_EVERY = 1.0


class KnowsPeople(Protocol):
    """The part of a `Gallery` that naming needs."""

    @property
    def network(self) -> Network:
        """The network of the embeddings."""

    @property
    def fingerprint(self) -> Fingerprint | None:
        """The origin of the gallery's embeddings, or None where it never had any."""

    def state(self) -> str:
        """Return a text that is another one after every change."""

    def vectors(self) -> GalleryVectors:
        """Return the embeddings of the people."""

    def identify_embeddings(
        self,
        probes: Embeddings,
        threshold: float | None = None,
        *,
        false_accept_rate: float | None = None,
    ) -> list[Answer]:
        """Answer who is in probes that were embedded."""


@dataclass(eq=False)
class Name:
    """All that is known about a track.

    Attributes:
        vectors: The embeddings `[P, C]` of its last windows.
        answer: The answer that stands, or None before the first.
        against: How many answers in a row have said otherwise.
        frames: The silhouettes of these windows.
    """

    vectors: deque[Vector] = field(default_factory=lambda: deque(maxlen=WINDOWS))
    answer: Answer | None = None
    against: int = 0
    frames: int = 0

    def add(self, vector: Vector, frames: int) -> None:
        """Take the embedding `[P, C]` of the next window, which has so many silhouettes."""
        self.vectors.append(vector)
        self.frames = frames * len(self.vectors)

    def hear(self, answer: Answer, at_once: bool) -> None:
        """Take a new answer.

        Args:
            answer: The answer.
            at_once: Whether it stands even if the one before said otherwise, since the gallery has changed.
        """
        self.against = self.against + 1 if self.answer is not None and answer.name != self.answer.name else 0
        if self.answer is None or at_once or self.against in (0, STEADY):
            self.answer, self.against = answer, 0


class Naming:
    """Names for tracks.

    The windows of a track are combined by the mean of their embeddings, `WINDOWS` of them at most: its distances lie
    where those of a longer clip lie, so that a threshold that was chosen from whole recordings holds, and every track
    is one probe, however many windows it has. The mean of the windows' distances found people about as often (60
    of them do not tell the two apart), but lies farther from everybody.

    Args:
        gallery: The gallery.
        threshold: The greatest distance at which a name is given, as for `Gallery.identify`.
        false_accept_rate: The share of strangers who may be named, as for `Gallery.identify`.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        gallery: KnowsPeople,
        threshold: float | None,
        false_accept_rate: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gallery, self._clock = gallery, clock
        self._threshold, self._false_accept_rate = threshold, false_accept_rate
        self._names: dict[int, Name] = {}
        self._state, self._asked = gallery.state(), clock()
        # Whether the gallery has changed since all tracks were asked for.
        self._changed = self._has_answered = False
        self._said = ""

    def hear(self, windows: Mapping[int, NDArray[np.uint8]], source: str, fps: float | None) -> dict[int, Answer]:
        """Answer who walks in the windows of tracks.

        Args:
            windows: A new window `[T, 64, 64]` of each of some tracks, by number.
            source: The name of the source.
            fps: Frames a second of the windows, or None.

        Returns:
            The answers that stand now, of all tracks that have one and are not forgotten.
        """
        if windows:
            embedded = self._gallery.network.model.embed(windows.values()).float().cpu().numpy()
            for number, vector in zip(windows, embedded, strict=True):
                if np.isfinite(vector).all():
                    self._names.setdefault(number, Name()).add(vector, len(windows[number]))
        self._changed = self._has_changed() or (self._changed and bool(self._names))
        asked = [number for number in self._names if self._changed or number in windows]
        if asked and (answers := self._answers(asked, source, fps)):
            for number, answer in answers.items():
                self._names[number].hear(answer, at_once=self._changed)
            self._changed = False
        return {number: name.answer for number, name in self._names.items() if name.answer is not None}

    def forget(self, track: int) -> None:
        """Forget a track that has ended."""
        self._names.pop(track, None)

    def _answers(self, tracks: list[int], source: str, fps: float | None) -> dict[int, Answer]:
        """Answers about tracks; none, with a warning, where a gallery that has answered before cannot answer now."""
        try:
            answers = self._search(tracks, [f"{source}-track{number}" for number in tracks], fps)
        except GalleryError as error:
            if not self._has_answered:
                raise
            if str(error) != self._said:
                self._said = str(error)
                warnings.warn(f"names stay as they are: {error}", GalleryWarning, stacklevel=4)
            if self._changed:
                self._take_back_names()
            return {}
        self._has_answered, self._said = True, ""
        return dict(zip(tracks, answers, strict=True))

    def _take_back_names(self) -> None:
        """Let nobody have the name of a person who is no longer in the gallery, even if it cannot be searched."""
        try:
            known = self._gallery.vectors()
            is_comparable = self._gallery.fingerprint == Fingerprint.of(self._gallery.network)
        except GalleryError:
            return
        there = {known.names[person] for person in known.people} if is_comparable else set()
        for name in self._names.values():
            if name.answer is not None and name.answer.name is not None and name.answer.name not in there:
                name.hear(replace(name.answer, name=None, matches=(), margin=None), at_once=True)

    def _search(self, tracks: list[int], names: list[str], fps: float | None) -> list[Answer]:
        if not len(self._gallery.vectors().ids):
            no_parts = np.empty(0, np.float32)
            return [Answer(name, None, (), self._threshold, self._false_accept_rate, None, no_parts) for name in names]
        network = self._gallery.network
        probes = Embeddings(
            vectors=np.stack([np.mean(self._names[number].vectors, axis=0) for number in tracks]),
            names=tuple(names),
            lengths=np.array([self._names[number].frames for number in tracks], np.int64),
            preset=network.preset,
            weights=network.weights,
            version=__version__,
            fps=None if fps is None else np.full(len(tracks), fps),
        )
        return self._gallery.identify_embeddings(probes, self._threshold, false_accept_rate=self._false_accept_rate)

    def _has_changed(self) -> bool:
        """Whether the gallery is another one than when this was asked last; asked at most once a second."""
        if self._clock() - self._asked < ASKED_EVERY:
            return False
        self._asked = self._clock()
        try:
            before, self._state = self._state, self._gallery.state()
        except GalleryError:  # said when it is asked for names
            return False
        return before != self._state
