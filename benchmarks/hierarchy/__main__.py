"""The table of docs/hierarchy.md: which regions each set of features and each linkage finds in a data set.

`python -m benchmarks.hierarchy` measures rendered walkers, `python -m benchmarks.hierarchy INPUT...` other data, such
as the tracks that `hstl-fast silhouettes` cuts out of a video. The network has random weights. Regions of a published
network are in bold type.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from hstl_fast import PRESETS
from hstl_fast.data import Item, Sequences, open_together
from hstl_fast.hierarchy import FEATURES, LINKAGES, body_hierarchy, bootstrap, published_splits, strip_features
from hstl_fast.network import Network
from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.walkers import Recording, recordings

PEOPLE, TAKES, VIEWS, FRAMES = range(1, 17), ("nm-01", "bg-01", "cl-01"), (0, 36, 72, 90, 126), 60
CLUSTERS = (2, 3, 4, 5, 6)
PRESET, SEED, RESAMPLES = "casia-b", 2023, 100


class Rendered(Sequences):
    """Rendered walkers in memory."""

    def __init__(self) -> None:
        self._clips = list(recordings(PEOPLE, takes=TAKES, views=VIEWS, frames=FRAMES))
        super().__init__(map(_item, self._clips), "rendered walkers", "casia-b")

    def reading(self, index: int) -> Reading:
        """Return the silhouettes of a walk."""
        return Reading(self._clips[index].silhouettes)


def _item(clip: Recording) -> Item:
    return Item(f"{clip.identity:03d}", clip.take, f"{clip.view:03g}", clip.name)


def rows(data: Sequences) -> Iterator[str]:
    """Measure a data set, and yield the lines of a Markdown table."""
    model = Network.from_seed(PRESET, SEED).model
    yield "| features | linkage | " + " | ".join(f"{count} regions" for count in CLUSTERS) + " |"
    yield "|---" * (2 + len(CLUSTERS)) + "|"
    for name in FEATURES:
        features = strip_features(data, name, model=model if name == "network" else None)
        for linkage in LINKAGES:
            tree = body_hierarchy(features, linkage, clusters=CLUSTERS)
            shares = bootstrap(tree, features, RESAMPLES, unit="people").shares
            cells = [f"{_printed(split)} {share:.0%}" for split, share in zip(tree.splits(), shares, strict=True)]
            yield f"| {name} | {linkage} | " + " | ".join(cells) + " |"
    yield f"{features.sequences} sequences, {features.frames} frames, {len(set(features.labels))} people"


def _printed(split: list[int]) -> str:
    regions = ",".join(map(str, split))
    return f"**{regions}**" if any(split in published_splits(name) for name in PRESETS) else regions


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="*", help="data sets or sequences; by default walkers are rendered")
    inputs = parser.parse_args().inputs
    for line in rows(open_together(inputs) if inputs else Rendered()):
        print(line, flush=True)


if __name__ == "__main__":
    main()
