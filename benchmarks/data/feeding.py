"""Frames a second of random windows in training batches: from a packed file, and from pickles as OpenGait stores them.

    python -m benchmarks.data.feeding [--people N] [--frames N] [--workers N] [--rounds N] [--json FILE]

All loaders give the same batches; the first round checks it. The files are warm: they were just written.
"""

import argparse
import json
import pickle
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from benchmarks.core.interleaving import interleaved, summarise, timed
from benchmarks.core.machine import description
from hstl_fast.data import (
    IdentityBalancedSampler,
    Sequences,
    TrainingBatch,
    TrainingData,
    Window,
    Workers,
    open_sequences,
    pack,
    training_loader,
)
from hstl_fast.silhouettes import walkers
from hstl_fast.silhouettes.io import Reading

# A batch of CASIA-B's configuration.
PEOPLE, SEQUENCES, WINDOW = 8, 8, Window(30, 30)
TAKES, VIEWS = ("nm-01", "nm-02", "cl-01"), (0, 54, 90)
BATCHES = 60


class Unpickled(Sequences):
    """The same sequences by `pickle.load`, which runs what a file tells it to; a baseline."""

    def __init__(self, files: Sequences, root: Path) -> None:
        super().__init__(files.items, str(root), "opengait")
        self.paths = [next((root / i.label / i.type / i.view).glob("*.pkl")) for i in files.items]

    def reading(self, index: int) -> Reading:
        with self.paths[index].open("rb") as file:
            return Reading(pickle.load(file))


def write_tree(root: Path, people: int, frames: int) -> None:
    """Walkers as OpenGait stores them."""
    for clip in walkers.recordings(range(people), views=VIEWS, takes=TAKES, frames=frames):
        folder = root / f"{clip.identity:03d}" / clip.take / f"{clip.view:03g}"
        folder.mkdir(parents=True)
        with (folder / f"{clip.view:03g}.pkl").open("wb") as file:
            pickle.dump(clip.silhouettes, file)


def loader(sequences: Sequences, workers: int) -> DataLoader[TrainingBatch]:
    """Training batches without end."""
    sampler = IdentityBalancedSampler(sequences.labels, PEOPLE, SEQUENCES, seed=0, steps=10**9)
    return training_loader(TrainingData(sequences, WINDOW), sampler, Workers(workers))


def taking(batches: Iterator[TrainingBatch]) -> Callable[[], float]:
    """Measure the frames a second of some batches."""

    def take() -> None:
        for _ in range(BATCHES):
            next(batches)

    return lambda: BATCHES * PEOPLE * SEQUENCES * WINDOW.frames / timed(take)


def main() -> None:
    """Measure, print a table, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--people", type=int, default=24)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tree, packed = Path(folder) / "tree", Path(folder) / "walkers.pack"
        write_tree(tree, options.people, options.frames)
        files = open_sequences(tree)
        pack(files, packed)
        sources = {
            "packed file": open_sequences(packed),
            "pickles": files,
            "pickles, pickle.load": Unpickled(files, tree),
        }
        running = {name: iter(loader(source, options.workers)) for name, source in sources.items()}
        firsts = [next(batches) for batches in running.values()]
        assert all(torch.equal(firsts[0].silhouettes, other.silhouettes) for other in firsts[1:])
        found = interleaved({name: taking(batches) for name, batches in running.items()}, options.rounds)
        sizes = {"packed file": packed.stat().st_size, "pickles": sum(p.stat().st_size for p in tree.rglob("*.pkl"))}
    for name, rates in found.items():
        print(f"{name:22} {summarise(rates).median:10.0f} frames a second")
    print(f"{len(files)} sequences of {options.frames} frames; bytes: {sizes}; {options.workers} workers")
    if options.json:
        rates = {name: summarise(each)._asdict() for name, each in found.items()}
        result = {"frames_a_second": rates, "bytes": sizes, "sequences": len(files), "workers": options.workers}
        options.json.write_text(json.dumps({**result, "machine": description()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
