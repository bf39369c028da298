"""The shape of an HSTL network, and the published presets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from hstl_fast.names import check_fields, one_of

# The size of a silhouette that the network sees.
ROWS, COLUMNS = 64, 44
# So many columns are cut off on each side of a 64 x 64 silhouette.
SIDE = 10
# FTA's shortest window is 3 frames; shorter sequences are repeated until they have as many.
FEWEST_FRAMES = 3


@dataclass(frozen=True)
class Stage:
    """One level of the hierarchy: ARME layers over the regions of `split`, one for each entry of `channels`."""

    split: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True)
class HSTLConfig:
    """The shape of an HSTL network. `PRESETS` holds the published ones.

    Every pooled part has the last stage's channels, C.

    Args:
        stem: output channels of the plain 3x3x3 convolutions on the whole silhouette.
        stages: the levels after it, coarse to fine; FTA follows the first. Splits sum to 64 rows, or to 32 after
            `pool`.
        pool: a 2x2 spatial maximum between the stem and the stages.
        strips: equal strips of rows pooled from the last stage's output.
        num_classes: identities in training, K.

    Raises:
        ValueError: the network cannot be built; the message names the field.
    """

    stem: tuple[int, ...]
    stages: tuple[Stage, ...]
    pool: bool
    strips: int
    num_classes: int

    def __post_init__(self) -> None:
        if not self.stem or not all(is_count(c) for c in self.stem):
            raise ValueError(f"stem must be one or more positive channel counts, got {self.stem}")
        if not self.stages:
            raise ValueError("stages must hold at least one Stage, got none")
        for i, stage in enumerate(self.stages):
            if not stage.channels or not all(is_count(c) for c in stage.channels):
                raise ValueError(f"stages[{i}].channels must be one or more positive counts, got {stage.channels}")
            if not stage.split or not all(is_count(h) for h in stage.split) or sum(stage.split) != self.rows:
                raise ValueError(
                    f"stages[{i}].split must be positive row counts that sum to {self.rows}, got {stage.split}"
                )
        if not is_count(self.strips) or self.rows % self.strips:
            raise ValueError(f"strips must divide {self.rows} rows, got {self.strips}")
        if not is_count(self.num_classes):
            raise ValueError(f"num_classes must be a positive integer, got {self.num_classes!r}")

    @property
    def rows(self) -> int:
        """Rows of the feature maps after the stem."""
        return ROWS // 2 if self.pool else ROWS

    @property
    def channels(self) -> int:
        """Length C of a part's embedding."""
        return self.stages[-1].channels[-1]

    def with_splits(self, splits: Sequence[Sequence[int]]) -> HSTLConfig:
        """Give the network other regions, such as those of a hierarchy that was found from data.

        Args:
            splits: A split for each stage, coarse to fine, in any unit of equal strips of the body: all sum to one
                number, which divides the rows of the feature maps. Each refines the one before.

        Returns:
            The same network with these splits, in rows.

        Raises:
            ValueError: There is not one split for each stage, they do not sum to one number that divides the rows, or a
                boundary of one is missing in the next.
        """
        if not isinstance(splits, (list, tuple)) or not all(isinstance(split, (list, tuple)) for split in splits):
            raise ValueError(f"splits must be lists of counts of strips, got {splits!r}")
        if len(splits) != len(self.stages):
            raise ValueError(f"splits must be one for each of the {len(self.stages)} stages, got {len(splits)}")
        check_splits(splits, self.rows)
        scale = self.rows // sum(splits[0])
        stages = (Stage(tuple(scale * h for h in split), s.channels) for split, s in zip(splits, self.stages))
        return replace(self, stages=tuple(stages))

    def to_dict(self) -> dict[str, Any]:
        """Describe the network by lists, dicts and plain numbers, as JSON and checkpoints hold it.

        Returns:
            The fields by name; `from_dict` reads them.
        """
        return {
            "stem": list(self.stem),
            "stages": [{name: list(values) for name, values in asdict(stage).items()} for stage in self.stages],
            "pool": self.pool,
            "strips": self.strips,
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> HSTLConfig:
        """Read what `to_dict` has written.

        Args:
            content: The fields by name.

        Returns:
            The configuration.

        Raises:
            ValueError: A field is missing, unknown or out of range; the message names it.
        """
        check_fields("network", content, ("stem", "stages", "pool", "strips", "num_classes"))
        if not isinstance(content["pool"], bool):
            raise ValueError(f"pool must be true or false, got {content['pool']!r}")
        stages = []
        for i, stage in enumerate(_listed("stages", content["stages"])):
            check_fields(f"stages[{i}]", stage, ("split", "channels"))
            split, channels = (_listed(f"stages[{i}].{name}", stage[name]) for name in ("split", "channels"))
            stages.append(Stage(split, channels))
        stem = _listed("stem", content["stem"])
        return cls(stem, tuple(stages), content["pool"], content["strips"], content["num_classes"])

    def convolutions(self, frames: int) -> list[Convolution]:
        """List the ARME layers in the order of computation.

        Args:
            frames: Frames of the clip that they are applied to.

        Returns:
            The size of each layer and of its map.
        """
        c, found = 1, []
        for c_out in self.stem:
            found.append(Convolution(c, c_out, (ROWS,), frames, COLUMNS))
            c = c_out
        for i, stage in enumerate(self.stages):
            for c_out in stage.channels:
                size = (frames // 3 if i else frames, COLUMNS // 2 if self.pool else COLUMNS)
                found.append(Convolution(c, c_out, stage.split, *size))
                c = c_out
        return found

    @property
    def pools(self) -> tuple[tuple[int, int | None, tuple[int, ...]], ...]:
        """Input channels, output channels (None: not projected) and split of every ASTP, in the order of the parts."""
        c = self.channels
        first, *others = self.stages
        last = len(others) - 1
        entries: list[tuple[int, int | None, tuple[int, ...]]] = [(self.stem[-1], c, (ROWS,))]
        entries += [(first.channels[-1], c, first.split)] * 2
        entries += [(s.channels[-1], None if i == last else c, s.split) for i, s in enumerate(others)]
        return tuple(entries)

    @property
    def parts(self) -> int:
        """Number P of parts: the regions of every level and the strips."""
        return sum(len(split) for _, _, split in self.pools) + self.strips


class Convolution(NamedTuple):
    """The size of an ARME layer and of its map; the split gives the rows."""

    c_in: int
    c_out: int
    split: tuple[int, ...]
    frames: int
    columns: int


def check_splits(splits: Sequence[Sequence[int]], rows: int) -> None:
    """Check that splits are cuts of one tree: each refines the one before.

    Args:
        splits: Coarse to fine, in any unit of equal strips.
        rows: Rows of the feature maps that they will cut.

    Raises:
        ValueError: The splits do not sum to one number that divides the rows, or a boundary of one is missing in the
            next.
    """
    for i, split in enumerate(splits):
        if not split or not all(is_count(h) for h in split):
            raise ValueError(f"splits[{i}] must be positive counts of strips, got {list(split)}")
        if sum(split) != sum(splits[0]) or rows % sum(split):
            raise ValueError(
                f"splits[{i}] must sum to the same number as the others, a divisor of {rows} rows; "
                f"got {list(split)}, which sums to {sum(split)}"
            )
        if i and not set(_boundaries(splits[i - 1])) <= set(_boundaries(split)):
            raise ValueError(
                f"splits[{i}] must have every boundary of splits[{i - 1}]; "
                f"got {list(split)} after {list(splits[i - 1])}"
            )


def _boundaries(split: Sequence[int]) -> list[int]:
    return [sum(split[:i]) for i in range(1, len(split))]


def _listed(name: str, values: object) -> tuple[Any, ...]:
    if not isinstance(values, (list, tuple)):
        raise ValueError(f"{name} must be a list, got {values!r}")
    return tuple(values)


def is_count(value: object) -> bool:
    """Return whether a value is a positive integer.

    Args:
        value: Any object.

    Returns:
        True for an `int` above 0 that is not a `bool`.
    """
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


_OUMVLP = HSTLConfig(
    stem=(32, 32),
    stages=(
        Stage((4, 24, 4), (64, 64)),
        Stage((4, 4, 12, 8, 4), (128, 128)),
        Stage((4, 4, 12, 4, 4, 4), (256, 256)),
    ),
    pool=True,
    strips=32,
    num_classes=5153,
)

# The published networks. No configuration was released for GREW: comments in the released code point to the OUMVLP
# network, so `grew` is `oumvlp` with another number of identities.
PRESETS: dict[str, HSTLConfig] = {
    "casia-b": HSTLConfig(
        stem=(32,),
        stages=(Stage((40, 24), (32, 64)), Stage((8, 32, 16, 8), (128, 128))),
        pool=False,
        strips=64,
        num_classes=74,
    ),
    "oumvlp": _OUMVLP,
    "grew": replace(_OUMVLP, num_classes=20000),
    "gait3d": HSTLConfig(
        stem=(32, 32),
        stages=(
            Stage((20, 12), (64, 64)),
            Stage((4, 16, 8, 4), (128, 128)),
            Stage((4, 4, 12, 8, 4), (256, 256)),
        ),
        pool=True,
        strips=32,
        num_classes=3000,
    ),
}


def preset(name: str) -> HSTLConfig:
    """Find the configuration of a published network.

    Args:
        name: "casia-b", "oumvlp", "grew" or "gait3d".

    Returns:
        The configuration.

    Raises:
        ValueError: The name is unknown; the nearest one is named.
    """
    return PRESETS[one_of(name, PRESETS, "preset")]
