"""Records of a gallery and its answers: people, recordings, what made their embeddings, and names for probes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.network import Network

# The way from a mask to the network's input; another number where that way changes, since embeddings change with it.
PREPROCESSING = "silhouettes-64x44-1"


class Fingerprint(NamedTuple):
    """The origin of an embedding. Embeddings of different fingerprints are never compared.

    Attributes:
        preset: The network, as in `Network`.
        weights: `sha256:<digest of the checkpoint file>`, or `seed:<number>` for untrained weights.
        preprocessing: The way from a mask to the network's input, `PREPROCESSING` for this version.
    """

    preset: str
    weights: str
    preprocessing: str = PREPROCESSING

    @classmethod
    def of(cls, network: Network) -> Fingerprint:
        """Return the fingerprint of the embeddings that a network makes now."""
        return cls(network.preset, network.weights)


@dataclass(frozen=True, eq=False)
class Clip:
    """The walk of one person, ready to be embedded.

    Attributes:
        source: Where it comes from, such as `door.mp4-track01`.
        silhouettes: Aligned silhouettes `[T, 64, 64]` uint8.
        fps: Frames a second, or None where the rate is unknown.
    """

    source: str
    silhouettes: NDArray[np.uint8]
    fps: float | None = None


@dataclass(frozen=True)
class Person:
    """Somebody whom a gallery knows.

    Attributes:
        name: The name, unique in the gallery.
        recordings: The number of his recordings.
        created: When he was enrolled, in UTC.
    """

    name: str
    recordings: int
    created: datetime


@dataclass(frozen=True)
class Recording:
    """A walk that a gallery holds.

    Attributes:
        id: The number of the recording, never used twice.
        person: The name of the person.
        source: Where it comes from, as in `Clip`.
        frames: The number of its frames.
        fps: Frames a second, or None where the rate is unknown.
        created: When it was enrolled, in UTC.
        keep_until: When it is to be deleted, in UTC, or None.
        has_silhouettes: Whether its silhouettes are kept, so that another network can embed it.
    """

    id: int
    person: str
    source: str
    frames: int
    fps: float | None
    created: datetime
    keep_until: datetime | None
    has_silhouettes: bool


class GalleryVectors(NamedTuple):
    """The embeddings of a gallery, as a search takes them.

    Attributes:
        ids: Numbers of the embeddings, int64 `[k]`, increasing, never used twice.
        people: The person of each, int64 `[k]`, rows of `names`.
        names: The people.
        vectors: The embeddings, float32 `[k, P, C]`, not to be written to; maybe a memory map.
        recordings: Numbers of the recordings, int64 `[k]`.
        sources: Where the recordings come from.
        fps: Frames a second of the recordings, float64 `[k]`, NaN where unknown.
    """

    ids: NDArray[np.int64]
    people: NDArray[np.int64]
    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    recordings: NDArray[np.int64]
    sources: tuple[str, ...]
    fps: NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """A person who may be the one in a probe.

    Attributes:
        person: The name.
        recording: The number of his recording that is nearest to the probe.
        source: Where that recording comes from.
        distance: Its distance to the probe, as `hstl_fast.evaluation.part_distances` computes it.
        agreement: The share of the parts that are nearer to this recording than to the nearest recording of anybody
            else among the matches; None where there is nobody else.
    """

    person: str
    recording: int
    source: str
    distance: float
    agreement: float | None = None


@dataclass(frozen=True)
class Answer:
    """Who is in a probe.

    Attributes:
        source: Where the probe comes from, as in `Clip`.
        name: The person, or None: nobody whom the gallery knows.
        matches: The nearest people, nearest first, each with his nearest recording.
        threshold: The greatest distance at which a name is given, or None: the nearest person is always named.
        false_accept_rate: The share of strangers who would be named at this threshold, or None where it is not known.
        margin: How much farther the second person is than the first, or None where there is no second.
        parts: Distances of the probe's parts to the nearest recording, float32 `[P]`.
        itself: The number of the recording that the probe itself is, whatever the names of their files; None for a
            probe that the gallery does not have.
    """

    source: str
    name: str | None
    matches: tuple[Match, ...]
    threshold: float | None
    false_accept_rate: float | None
    margin: float | None
    parts: NDArray[np.float32]
    itself: int | None = None
