"""The hierarchy of body regions: a tree over strips of the body, its cuts, and its file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hstl_fast.files import atomic_file
from hstl_fast.hierarchy.clustering import LINKAGES, METRICS, Merge, merge_neighbours, splits_of
from hstl_fast.models.config import ROWS, check_splits, is_count
from hstl_fast.names import check_fields, one_of

_LONGEST_FILE = 2**20
_FIELDS = (
    "strips",
    "features",
    "linkage",
    "metric",
    "sequences",
    "frames",
    "merges",
    "clusters",
    "splits",
    "bootstrap",
)
_OPTIONAL = ("bootstrap",)


@dataclass(frozen=True)
class Bootstrap:
    """How often the same regions are found in other samples of the data.

    Attributes:
        resamples: Number of samples that were drawn.
        unit: The things that were drawn with replacement: "sequences" or "people".
        shares: For each of the hierarchy's cuts, the share of samples whose tree has the same regions there.
    """

    resamples: int
    unit: str
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Hierarchy:
    """A tree over equal strips of the body, whose clusters are contiguous, and some cuts of it.

    Attributes:
        strips: Number of strips, from head to feet.
        linkage: The linkage that merged them.
        metric: The distance of strips.
        merges: The `strips - 1` merges in their order.
        features: Name of the features of the strips.
        sequences: Number of sequences that they were measured on; 0 if that is not known.
        frames: Number of frames of these.
        clusters: Numbers of regions of the chosen cuts, increasing; may be empty.
        bootstrap: How stable the chosen cuts are, or None.
    """

    strips: int
    linkage: str
    metric: str
    merges: tuple[Merge, ...]
    features: str = "given"
    sequences: int = 0
    frames: int = 0
    clusters: tuple[int, ...] = ()
    bootstrap: Bootstrap | None = None

    def splits(self, clusters: Sequence[int] | None = None) -> list[list[int]]:
        """Cut the tree.

        Args:
            clusters: Numbers of regions, increasing, each from 1 to the number of strips; None for the chosen cuts.

        Returns:
            A split for each number, in strips from head to feet; each refines the one before, as
            `HSTLConfig.with_splits` takes them.

        Raises:
            ValueError: The numbers do not increase, or one is out of range.
        """
        wanted = _checked_clusters(self.clusters if clusters is None else clusters, self.strips)
        return [splits_of(self.strips, self.merges, number) for number in wanted]

    def with_clusters(self, clusters: Sequence[int]) -> Hierarchy:
        """Choose cuts.

        Args:
            clusters: Numbers of regions, increasing.

        Returns:
            The hierarchy with these cuts, without a bootstrap of others.

        Raises:
            ValueError: The numbers do not increase, or one is out of range.
        """
        return replace(self, clusters=_checked_clusters(clusters, self.strips), bootstrap=None)

    @property
    def inversions(self) -> int:
        """The number of merges whose distance is smaller than that of a merge before."""
        return sum(merge.distance < merge.height for merge in self.merges)

    def linkage_matrix(self) -> NDArray[np.float64]:
        """Write the tree as SciPy does, for `scipy.cluster.hierarchy.dendrogram`.

        Returns:
            `[strips - 1, 4]`: for each merge the numbers of its two clusters, its height, and its number of strips. The
            strips are clusters 0 to `strips - 1`, merge `i` makes cluster `strips + i`. Heights do not fall.
        """
        numbers = {(strip, strip + 1): strip for strip in range(self.strips)}
        rows = []
        for i, merge in enumerate(self.merges):
            upper, lower = numbers[merge.start, merge.border], numbers[merge.border, merge.stop]
            rows.append([*sorted((upper, lower)), merge.height, merge.stop - merge.start])
            numbers[merge.start, merge.stop] = self.strips + i
        return np.array(rows, np.float64)

    def to_dict(self) -> dict[str, Any]:
        """Describe the hierarchy by lists, dicts and plain numbers, as its JSON file holds it.

        Returns:
            The fields by name, with `splits` of the chosen cuts; `from_dict` reads them.
        """
        fields: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS[:6]}
        fields["merges"] = [merge._asdict() for merge in self.merges]
        fields |= {"clusters": list(self.clusters), "splits": self.splits()}
        if self.bootstrap is not None:
            fields["bootstrap"] = {**vars(self.bootstrap), "shares": list(self.bootstrap.shares)}
        return fields

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Hierarchy:
        """Read what `to_dict` has written.

        Args:
            content: The fields by name.

        Returns:
            The hierarchy.

        Raises:
            ValueError: A field is missing, unknown or wrong, the splits do not refine each other or do not sum to the
                strips, or the merges are no tree with these cuts; the message names it.
        """
        check_fields("hierarchy", content, _FIELDS, _OPTIONAL)
        strips = _checked_strips(content["strips"])
        linkage, metric = one_of(content["linkage"], LINKAGES, "linkage"), one_of(content["metric"], METRICS, "metric")
        sequences, frames = (_whole(name, content[name]) for name in ("sequences", "frames"))
        if not isinstance(content["features"], str):
            raise ValueError(f"features must be a name, got {content['features']!r}")
        merges = _checked_merges(content["merges"], strips)
        clusters = _checked_clusters(content["clusters"], strips)
        _check_cuts(content["splits"], strips, merges, clusters)
        bootstrap = _bootstrap(content.get("bootstrap"), len(clusters))
        return cls(strips, linkage, metric, merges, content["features"], sequences, frames, clusters, bootstrap)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the hierarchy as JSON; the file appears whole or not at all.

        Args:
            path: The file.

        Raises:
            OSError: The file cannot be written.
        """
        with atomic_file(Path(path)) as draft:
            draft.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Hierarchy:
        """Read a file that `save` or `hstl-fast hierarchy` has written.

        Args:
            path: The JSON file.

        Returns:
            The hierarchy.

        Raises:
            ValueError: It is no such file; the message names the file and what is wrong.
            OSError: The file cannot be read.
        """
        source = Path(path)
        if source.stat().st_size > _LONGEST_FILE:
            raise ValueError(f"{source}: expected a hierarchy of at most {_LONGEST_FILE} bytes, got a larger file")
        try:
            content = json.loads(source.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{source}: expected a hierarchy as JSON, got a file that is none ({error})") from error
        try:
            return cls.from_dict(content)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def cluster(features: ArrayLike, linkage: str, metric: str) -> Hierarchy:
    """Merge neighbouring strips, the nearest first, until one cluster is left.

    Args:
        features: Finite numbers `[strips, d]`, one row for each strip, from head to feet.
        linkage: One of `LINKAGES`.
        metric: One of `METRICS`; Ward's linkage takes "euclidean" alone.

    Returns:
        The tree.

    Raises:
        ValueError: An argument does not fit; the message names it.
        ImportError: scikit-learn is not installed.
    """
    values = np.asarray(features, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"features must be numbers [strips, d], got an array of shape {list(values.shape)}")
    strips = _checked_strips(len(values), "the rows of features")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"features must be finite, got NaN or infinity for strip {row}")
    one_of(linkage, LINKAGES, "linkage")
    one_of(metric, METRICS, "metric")
    if linkage == "ward" and metric != "euclidean":
        raise ValueError(f"metric must be 'euclidean' with Ward's linkage, got {metric!r}")
    return Hierarchy(strips, linkage, metric, merge_neighbours(values, linkage, metric))


def _checked_strips(strips: object, name: str = "strips") -> int:
    if not isinstance(strips, int) or isinstance(strips, bool) or strips < 2 or ROWS % strips:
        raise ValueError(f"{name} must be at least 2 strips and a divisor of {ROWS} rows, got {strips!r}")
    return strips


def _checked_clusters(clusters: object, strips: int) -> tuple[int, ...]:
    if not isinstance(clusters, Sequence) or isinstance(clusters, str) or not all(map(is_count, clusters)):
        raise ValueError(f"clusters must be positive numbers of regions, got {clusters!r}")
    if any(number > strips for number in clusters):
        raise ValueError(f"clusters must be at most the {strips} strips, got {list(clusters)}")
    if any(below <= above for above, below in pairwise(clusters)):
        raise ValueError(f"clusters must increase, got {list(clusters)}")
    return tuple(clusters)


def _checked_merges(merges: object, strips: int) -> tuple[Merge, ...]:
    if not isinstance(merges, list) or len(merges) != strips - 1:
        got = f"{len(merges)} merges" if isinstance(merges, list) else repr(merges)
        raise ValueError(f"merges must be a list of {strips - 1} merges, one fewer than strips; got {got}")
    borders, checked, height = list(range(strips + 1)), [], 0.0
    for i, merge in enumerate(merges):
        check_fields(f"merges[{i}]", merge, Merge._fields)
        span = [merge[name] for name in ("start", "border", "stop")]
        triples = [list(triple) for triple in zip(borders, borders[1:], borders[2:])]
        if span not in triples or not all(type(end) is int for end in span):
            raise ValueError(f"merges[{i}] must join two neighbouring clusters, got strips {span}")
        borders.remove(span[1])
        distance = _distance(f"merges[{i}].distance", merge["distance"])
        height = max(height, distance)
        if _distance(f"merges[{i}].height", merge["height"]) != height:
            raise ValueError(
                f"merges[{i}].height must be the largest distance so far, {height:g}; got {merge['height']:g}"
            )
        checked.append(Merge(span[0], span[1], span[2], distance, height))
    return tuple(checked)


def _check_cuts(splits: object, strips: int, merges: tuple[Merge, ...], clusters: tuple[int, ...]) -> None:
    if not isinstance(splits, list) or not all(isinstance(split, list) for split in splits):
        raise ValueError(f"splits must be a list of lists of strips, got {splits!r}")
    if len(splits) != len(clusters):
        raise ValueError(f"splits must be one for each of the clusters {list(clusters)}, got {len(splits)}")
    check_splits(splits, ROWS)
    for i, (split, number) in enumerate(zip(splits, clusters, strict=True)):
        if sum(split) != strips:
            raise ValueError(f"splits[{i}] must sum to the {strips} strips, got {split}, which sums to {sum(split)}")
        if split != (cut := splits_of(strips, merges, number)):
            raise ValueError(f"splits[{i}] must be {cut}, where the merges leave {number} regions; got {split}")


def _bootstrap(content: object, cuts: int) -> Bootstrap | None:
    if content is None:
        return None
    check_fields("bootstrap", content, ("resamples", "unit", "shares"))
    assert isinstance(content, Mapping)
    shares = content["shares"]
    if not isinstance(shares, list) or len(shares) != cuts:
        raise ValueError(f"bootstrap.shares must be a list of {cuts} shares, one for each cut; got {shares!r}")
    if not all(isinstance(share, (int, float)) and 0 <= share <= 1 for share in shares):
        raise ValueError(f"bootstrap.shares must be from 0 to 1, got {shares}")
    unit = one_of(content["unit"], ("sequences", "people"), "bootstrap.unit")
    return Bootstrap(_whole("bootstrap.resamples", content["resamples"]), unit, tuple(map(float, shares)))


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{name} must be a whole number from 0, got {value!r}")
    return value


def _distance(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a finite number from 0, got {value!r}")
    return float(value)
