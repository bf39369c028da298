"""A training step, divided into data, forward, loss, backward and optimiser: ours beside the same loop in plain torch.

    python -m benchmarks.training.step [--preset NAME] [--people P] [--sequences K] [--plain-people P] [--json FILE]

Both loops draw windows of rendered walkers from a packed file by the same loader. The plain loop computes the network
and the triplet loss as the specification reads; where its memory does not suffice for the whole batch, it takes fewer
people (`--plain-people`), and its time and memory are projected in proportion to the sequences.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.core import machine
from benchmarks.core.interleaving import interleaved
from benchmarks.core.plain import plain
from benchmarks.cpu.memory import growth
from hstl_fast import HSTL, losses, reference
from hstl_fast.data import (
    IdentityBalancedSampler,
    TrainingBatch,
    TrainingData,
    Window,
    Workers,
    open_sequences,
    pack,
    training_loader,
)
from hstl_fast.silhouettes import walkers
from hstl_fast.training import TrainingConfig

OURS, PLAIN = "hstl_fast", "plain torch"
STAGES = ("data", "forward", "loss", "backward", "optimiser")
Seconds = dict[str, float]


class Loop(NamedTuple):
    """A training: a network, its triplet loss, its optimiser, and its batches without end."""

    network: nn.Module
    triplet: Callable[[Tensor, Tensor], Tensor]
    optimizer: torch.optim.Optimizer
    batches: Iterator[TrainingBatch]
    config: TrainingConfig

    def step(self) -> Seconds:
        """Take one step; return the seconds of its stages."""
        marks = [time.perf_counter()]

        def mark() -> None:
            marks.append(time.perf_counter())

        batch = next(self.batches)
        mark()
        self.optimizer.zero_grad()
        embeddings, logits = self.network(batch.silhouettes)
        mark()
        loss = self.config.loss
        total = self.triplet(embeddings, batch.targets)
        total = total + losses.cross_entropy(logits, batch.targets, loss.scale, loss.smoothing)
        mark()
        total.backward()
        mark()
        self.optimizer.step()
        mark()
        return {name: end - start for name, start, end in zip(STAGES, marks, marks[1:])}


def loops(options: argparse.Namespace, packed: Path) -> dict[str, Loop]:
    """Both loops, with the same weights at the start."""
    config = TrainingConfig.from_preset(options.preset)
    model = HSTL.from_preset(options.preset)
    copied = plain(copy.deepcopy(model).train())
    return {
        OURS: _loop(model.train(), losses.triplet_loss, options.people, options, config, packed),
        PLAIN: _loop(copied, reference.triplet_loss, options.plain_people or options.people, options, config, packed),
    }


def _loop(
    network: nn.Module,
    triplet: Callable[[Tensor, Tensor], Tensor],
    people: int,
    options: argparse.Namespace,
    config: TrainingConfig,
    packed: Path,
) -> Loop:
    sequences = open_sequences(packed)
    sampler = IdentityBalancedSampler(sequences.labels, people, options.sequences, seed=0, steps=10**9)
    data = TrainingData(sequences, Window(options.frames, options.frames))
    batches = iter(training_loader(data, sampler, Workers(options.workers)))
    return Loop(network, triplet, _optimizer(network, config), batches, config)


def _optimizer(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    chosen = config.optimizer
    if chosen.name == "adam":
        return torch.optim.Adam(network.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
    options = {"momentum": chosen.momentum, "weight_decay": chosen.weight_decay}
    return torch.optim.SGD(network.parameters(), lr=chosen.lr, **options)


def medians(steps: Sequence[Seconds]) -> Seconds:
    """The median of every stage and of whole steps, in seconds."""
    found = {name: median(step[name] for step in steps) for name in STAGES}
    return {**found, "step": median(sum(step.values()) for step in steps)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of both loops."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_walkers(root / "walkers", options.people, options.sequences, 2 * options.frames)
        pack(open_sequences(root / "walkers"), root / "walkers.pack")
        running = loops(options, root / "walkers.pack")
        for loop in running.values():  # what is compiled, or learnt, at the first step
            loop.step()
        found = interleaved({name: loop.step for name, loop in running.items()}, options.rounds)
        memory = {name: growth(loop.step) for name, loop in running.items()}
    sizes = {OURS: options.people, PLAIN: options.plain_people or options.people}
    result = {
        name: {
            "sequences": sizes[name] * options.sequences,
            "seconds": medians(found[name]),
            "memory_bytes": memory[name],
        }
        for name in running
    }
    batch = f"{options.people} x {options.sequences} x {options.frames}"
    return {"preset": options.preset, "batch": batch, "rounds": options.rounds, "loops": result}


def write_walkers(root: Path, people: int, sequences: int, frames: int) -> None:
    """A data set as folders, with just enough walkers."""
    takes = [f"nm-{number:02d}" for number in range(1, sequences + 1)]
    for clip in walkers.recordings(range(people), views=(90,), takes=takes, frames=frames):
        folder = root / f"{clip.identity:03d}" / clip.take / "090"
        folder.mkdir(parents=True)
        np.save(folder / "090.npy", clip.silhouettes)


def report(result: dict[str, Any]) -> str:
    """Both loops as lines of text; the plain one projected to the whole batch where it took fewer people."""
    ours, other = result["loops"][OURS], result["loops"][PLAIN]
    scale = ours["sequences"] / other["sequences"]
    lines = [f"{result['preset']}, {result['batch']} frames; medians of {result['rounds']} steps, in seconds"]
    header = "".join(f"{name:>11}" for name in (*STAGES, "step", "GiB"))
    lines.append(f"{'':24}{header}")
    for name, loop, factor in ((OURS, ours, 1.0), (PLAIN, other, scale)):
        values = [*(loop["seconds"][stage] for stage in (*STAGES, "step")), loop["memory_bytes"] / 2**30]
        label = name if factor == 1 else f"{name} (from {loop['sequences']})"
        lines.append(f"{label:24}" + "".join(f"{factor * value:11.3f}" for value in values))
    ratio = scale * other["seconds"]["step"] / ours["seconds"]["step"]
    lines.append(f"{PLAIN} / {OURS}: {ratio:.2f} in time")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="casia-b")
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--plain-people", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = {**measure(options), "machine": machine.description()}
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
