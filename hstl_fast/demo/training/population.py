"""A population of rendered walkers as a data set with the layout of CASIA-B, divided by people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hstl_fast.data import Item, Partition, Sequences, open_packed, pack
from hstl_fast.files import atomic_file
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.walkers import CASIA_B_TAKES, render
from hstl_fast.version import __version__


class Population(Sequences):
    """Walkers in all takes of CASIA-B, rendered when they are read.

    Args:
        people: Number of walkers, who are called 001 and up.
        train: How many of them, from the first, are for training; the others are for the test.
        views: Directions of the camera in whole degrees.
        frames: Frames of each sequence.
        seed: Seed of the population.
    """

    def __init__(self, people: int, train: int, views: Sequence[int], frames: int, seed: int) -> None:
        names = [f"{number:03d}" for number in range(1, people + 1)]
        items = [
            Item(label, take, f"{view:03d}", f"{label}/{take}/{view:03d}")
            for label in names
            for take in sorted(CASIA_B_TAKES)
            for view in sorted(views)
        ]
        source = f"population {seed} of rendered walkers"
        super().__init__(items, source, "casia-b", Partition(tuple(names[:train]), tuple(names[train:])))
        self._frames, self._seed = frames, seed

    def describe(self) -> str:
        """Say in JSON what the silhouettes follow from."""
        facts = {"names": self.names, "frames": self._frames, "seed": self._seed, "hstl_fast": __version__}
        return json.dumps({**facts, "partition": self.partition})

    def reading(self, index: int) -> Reading:
        """Render a sequence."""
        item = self.items[index]
        condition, _, take = item.type.partition("-")
        clip = render(
            int(item.label),
            view=int(item.view),
            condition=condition,
            take=int(take),
            frames=self._frames,
            seed=self._seed,
        )
        return Reading(clip)

    def num_frames(self, index: int) -> int:
        """Count the frames of a sequence, which are as many in all."""
        return self._frames


def render_population(population: Population, path: Path, progress: Progress = silent) -> Sequences:
    """Render a population into a packed file, on all cores; what an earlier run has rendered is used.

    Args:
        population: The walkers.
        path: The packed file.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The packed file as a data set, with its partition.

    Raises:
        OSError: The file cannot be written.
        ImportError: pyarrow is missing, from the extra `[train]`.
    """

    def advance(stage: str, done: int, total: int) -> None:
        if stage == "packing":
            progress("rendering", done, total)

    described = path.with_suffix(".json")
    if not (path.exists() and described.exists() and described.read_text(encoding="utf-8") == population.describe()):
        described.unlink(missing_ok=True)
        pack(population, path, progress=advance)
        with atomic_file(described) as draft:
            draft.write_text(population.describe(), encoding="utf-8")
    return open_packed(path)
