"""GaitGL as OpenGait writes it, before and after `hstl_fast.accelerate`: inference and training steps, interleaved.

    python -m benchmarks.cpu.accelerated [--clips N...] [--modes MODE...] [--rounds R] [--json FILE]

The model is the tests' own, in plain torch, in both published configurations. The results of both are compared first.
What takes long can be measured in parts: rows of earlier runs stay in FILE unless they are measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.core import machine, turns
from benchmarks.core.interleaving import summarise
from hstl_fast import accelerate
from tests.helpers.gaitgl import SHAPES, OpenGaitGL

INFERENCE, TRAINING = MODES = ("inference", "training")
# What the outputs may differ by, of the largest.
BOUND = 1e-4


def measure(name: str, clips: int, training: bool, rounds: int, frames: int = 30) -> dict[str, Any]:
    """Milliseconds of inference or of a training step, in torch alone and accelerated."""
    torch.manual_seed(0)
    model = OpenGaitGL(name, classes=74)
    networks = {"torch": model, "accelerated": copy.deepcopy(model)}
    accelerate(networks["accelerated"])
    silhouettes = torch.rand(clips, 1, frames, 64, 44).round()
    step = training_step if training else inference
    calls: dict[str, Callable[[], Tensor]] = {
        which: partial(step, network.train(training), silhouettes) for which, network in networks.items()
    }
    expected, got = (call() for call in calls.values())
    error = float((got - expected).abs().max() / expected.abs().max())
    if error > BOUND:
        raise AssertionError(f"expected outputs that differ by at most {BOUND} of the largest, got {error:.1e}")
    found = turns.in_turns(calls, rounds)
    series = {which: summarise([1e3 * each.seconds for each in times]) for which, times in found.items()}
    what = {"configuration": name, "clips": clips, "frames": frames, "training": training, "rounds": rounds}
    medians = {which: each.median for which, each in series.items()}
    return {
        **what,
        "error": error,
        "median_ms": medians,
        "quartiles_ms": {which: (each.low, each.high) for which, each in series.items()},
        "ratio": medians["torch"] / medians["accelerated"],
    }


def inference(model: nn.Module, silhouettes: Tensor) -> Tensor:
    """The features of silhouettes."""
    with torch.no_grad():
        features: Tensor = model(silhouettes)[0]
    return features


def training_step(model: nn.Module, silhouettes: Tensor) -> Tensor:
    """Forward and backward; the features."""
    model.zero_grad()
    features, logits = model(silhouettes)
    (features.square().mean() + logits.square().mean()).backward()
    return torch.as_tensor(features.detach())


def main(arguments: list[str] | None = None) -> None:
    """Measure everything and print a line of JSON each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", nargs="+", default=list(SHAPES))
    parser.add_argument("--clips", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows there, with the machine and the rows it holds")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    rows = []
    for name, clips, mode in product(options.configurations, options.clips, options.modes):
        rows.append(measure(name, clips, mode == TRAINING, options.rounds, options.frames))
        print(json.dumps(rows[-1]), flush=True)
    if options.json:
        write(options.json, rows, options.threads)


def write(path: Path, rows: Sequence[dict[str, Any]], threads: int) -> None:
    """Write rows beside those of earlier runs on this processor with as many threads, which they replace."""
    described = machine.description()
    kept: dict[str, dict[str, Any]] = {}
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        if before["machine"]["processor"] != described["processor"] or before["threads"] != threads:
            raise SystemExit(f"--json must be a new file or one of this processor and {threads} threads, got {path}")
        kept = {_key(row): row for row in before["rows"]}
    kept |= {_key(row): row for row in rows}
    ordered = [kept[key] for key in sorted(kept)]
    content = {"machine": described, "threads": threads, "timing": turns.described(), "rows": ordered}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _key(row: dict[str, Any]) -> str:
    return f"{row['configuration']} {row['training']} {row['frames']} {row['clips']}"


if __name__ == "__main__":
    main()
