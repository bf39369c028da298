"""Why a name was given: how far the next person is, and which parts of the body speak for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.distances import check_metric
from hstl_fast.models.config import HSTLConfig
from hstl_fast.models.levels import levels

# So many stretches of the body that speak against a name are written out.
_WRITTEN = 3


class Region(NamedTuple):
    """A region of the body that one part stands for.

    Attributes:
        part: The number of the part.
        top: Where the region begins, as a share of the height from the top.
        bottom: Where it ends.
        distance: The part's distance to the first person.
        second: Its distance to the second person.
    """

    part: int
    top: float
    bottom: float
    distance: float
    second: float

    @property
    def agrees(self) -> bool:
        """Whether the part is nearer to the first person than to the second."""
        return self.distance < self.second


@dataclass(frozen=True)
class LevelAgreement:
    """The regions of one level of the network's hierarchy.

    Attributes:
        title: The level, as in `hstl_fast.models.levels`.
        regions: Its regions from head to feet.
    """

    title: str
    regions: tuple[Region, ...]

    @property
    def agreeing(self) -> int:
        """How many of its parts are nearer to the first person than to the second."""
        return sum(region.agrees for region in self.regions)


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the first person and not the second.

    Attributes:
        distance: The distance to the first person, the mean over the parts.
        margin: How much farther the second is, or None where there is no second.
        parts: Distances of the parts to the first person, float32 `[P]`.
        agreement: The share of the parts that are nearer to the first person than to the second, or None.
        levels: The agreement by level and region; empty without a second person or where the network is not given.
    """

    distance: float
    margin: float | None
    parts: NDArray[np.float32]
    agreement: float | None
    levels: tuple[LevelAgreement, ...]

    def words(self, first: str, second: str | None = None) -> list[str]:
        """Say the explanation for a terminal.

        Args:
            first: The name of the first person.
            second: The name of the second person, or None.

        Returns:
            Sentences.
        """
        if self.margin is None or self.agreement is None:
            return [f"{first}: distance {self.distance:.4g}; nobody else to compare with."]
        other, total = second or "the next person", len(self.parts)
        more = f" ({100 * self.margin / self.distance:.0f} %)" if self.distance > 0 else ""
        text = [f"{first}: distance {self.distance:.4g}; {other} is {self.margin:.4g}{more} farther."]
        by_level = ", ".join(f"{level.title}: {level.agreeing} of {len(level.regions)}" for level in self.levels)
        agreeing = round(self.agreement * total)
        text.append(f"{agreeing} of {total} parts are nearer to {first}" + (f" ({by_level})." if by_level else "."))
        if against := self._against():
            text.append(f"Nearer to {other}, of the height from the top: {against}.")
        return text

    def as_json(self) -> dict[str, Any]:
        """Return the explanation as JSON holds it."""
        shown = [
            {
                "level": level.title,
                "agreeing": level.agreeing,
                "regions": [{**region._asdict(), "agrees": region.agrees} for region in level.regions],
            }
            for level in self.levels
        ]
        numbers = {"distance": self.distance, "margin": self.margin, "agreement": self.agreement}
        return {**numbers, "parts": [float(each) for each in self.parts], "levels": shown}

    def _against(self) -> str:
        """The stretches of the finest regions that are not nearer to the first person."""
        stretches: list[tuple[float, float]] = []
        for region in self.levels[-1].regions if self.levels else ():
            if region.agrees:
                continue
            if stretches and stretches[-1][1] == region.top:
                stretches[-1] = (stretches[-1][0], region.bottom)
            else:
                stretches.append((region.top, region.bottom))
        longest = sorted(sorted(stretches, key=lambda each: each[0] - each[1])[:_WRITTEN])
        text = ", ".join(f"{100 * top:.0f} to {100 * bottom:.0f} %" for top, bottom in longest)
        return text + (" and elsewhere" if len(stretches) > _WRITTEN else "")


def distances_of_parts(
    probe: NDArray[np.float32], others: NDArray[np.float32], metric: str = "euclidean"
) -> NDArray[np.float64]:
    """Compute the distance of each part of a probe to the same part of others.

    Args:
        probe: An embedding `[P, C]`.
        others: Embeddings `[m, P, C]`.
        metric: `euclidean` or `cosine`, as in `part_distances`.

    Returns:
        Distances float64 `[m, P]`, whose means over the parts are those of `part_distances`.

    Raises:
        ValueError: The shapes do not fit together, the metric is unknown, or an embedding has NaN or infinity in it.
    """
    check_metric(metric)
    if probe.ndim != 2 or others.ndim != 3 or others.shape[1:] != probe.shape or not probe.size:
        raise ValueError(
            "the probe must be [P, C] and others [m, P, C] with the same parts and channels; "
            f"got {list(probe.shape)} and {list(others.shape)}"
        )
    for name, vectors in (("probe", probe), ("others", others)):
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name} must be finite; got NaN or infinity")
    a, b = probe.astype(np.float64), others.astype(np.float64)
    if metric == "euclidean":
        return np.asarray(np.linalg.norm(a - b, axis=2))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=2)
    products = (a * b).sum(axis=2)
    return np.asarray(1 - np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))


def agreements(
    probe: NDArray[np.float32], matches: NDArray[np.float32], metric: str = "euclidean"
) -> list[float | None]:
    """Compute the share of the parts that speak for each of some people.

    Args:
        probe: An embedding `[P, C]`.
        matches: The nearest recording of each person `[m, P, C]`, nearest person first.
        metric: `euclidean` or `cosine`, as in `part_distances`.

    Returns:
        For each person the share of the parts that are nearer to him than to the nearest of the others, who is the
        second for the first person and the first for all others; None where there is nobody else.

    Raises:
        ValueError: As `distances_of_parts`.
    """
    distances = distances_of_parts(probe, matches, metric)
    if len(distances) < 2:
        return [None] * len(distances)
    others = [distances[1], *[distances[0]] * (len(distances) - 1)]
    return [float((mine < other).mean()) for mine, other in zip(distances, others, strict=True)]


def explain(
    probe: NDArray[np.float32],
    first: NDArray[np.float32],
    second: NDArray[np.float32] | None = None,
    config: HSTLConfig | None = None,
    metric: str = "euclidean",
) -> Explanation:
    """Explain why one person is nearer to a probe than the next.

    Args:
        probe: An embedding `[P, C]`.
        first: The nearest recording of the nearest person `[P, C]`.
        second: The nearest recording of the next person `[P, C]`, or None where there is nobody else.
        config: The network, which says what region each part stands for; None leaves that out.
        metric: `euclidean` or `cosine`, as in `part_distances`.

    Returns:
        The explanation.

    Raises:
        ValueError: As `distances_of_parts`, or the network has another number of parts.
    """
    if config is not None and config.parts != len(probe):
        raise ValueError(f"the embedding has {len(probe)} parts; the network of config has {config.parts}")
    others = first[None] if second is None else np.stack([first, second])
    distances = distances_of_parts(probe, others, metric)
    mine, parts = distances[0], distances[0].astype(np.float32)
    if second is None:
        return Explanation(float(mine.mean()), None, parts, None, ())
    other = distances[1]
    found = () if config is None else _by_level(config, mine, other)
    return Explanation(
        float(mine.mean()), float(other.mean() - mine.mean()), parts, float((mine < other).mean()), found
    )


def _by_level(config: HSTLConfig, mine: Sequence[float], other: Sequence[float]) -> tuple[LevelAgreement, ...]:
    return tuple(
        LevelAgreement(
            level.title,
            tuple(
                Region(part, top, bottom, float(mine[part]), float(other[part]))
                for part, (top, bottom) in zip(level.parts, level.spans, strict=True)
            ),
        )
        for level in levels(config)
    )
