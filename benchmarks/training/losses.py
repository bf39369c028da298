"""Time and memory of the triplet loss and its gradient: ours, the definition, and another algorithm.

    python -m benchmarks.training.losses [--sizes 32x8 ...] [--threads N] [--rounds N] [--json FILE]

A size is a number of identities times their sequences. Every implementation is checked against the definition in
float64 first; then they take turns. Memory is the growth of a process of its own above its inputs. What takes longer
than `--longest` seconds is measured once; what would need more than `--memory` GiB is left out.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.core import machine
from benchmarks.core.correctness import Answer, errors
from benchmarks.core.interleaving import interleaved, summarise, timed
from benchmarks.cpu.memory import PEAK_RESET, ROOT, growth
from hstl_fast import reference
from hstl_fast.losses import triplet_loss

MARGIN, GIB = 0.2, 2**30
# All are allowed float32's rounding of distances, which cancel; the counts of terms change with it.
BOUND = 1e-3


class Size(NamedTuple):
    """A batch of so many identities and sequences of each."""

    people: int
    sequences: int
    parts: int
    channels: int

    @property
    def n(self) -> int:
        return self.people * self.sequences

    def __str__(self) -> str:
        return f"{self.people}x{self.sequences}x{self.parts}x{self.channels}"

    def batch(self) -> tuple[Tensor, Tensor]:
        """Embeddings of people who lie as far from each other as their sequences, and labels out of order."""
        generator = torch.Generator().manual_seed(0)
        labels = torch.arange(self.n) % self.people
        shape = (self.parts, self.channels)
        people = torch.randn(self.people, *shape, generator=generator)
        return people[labels] + torch.randn(self.n, *shape, generator=generator), labels


def by_autograd(loss: Callable[..., Tensor], embeddings: Tensor, labels: Tensor) -> Answer:
    """The loss and its gradient."""
    leaf = embeddings.detach().requires_grad_()
    value = loss(leaf, labels, MARGIN)
    return Answer([value.detach()], torch.autograd.grad(value, leaf))


def part_by_part(embeddings: Tensor, labels: Tensor) -> Answer:
    """The definition, with the triplets of one part at a time."""
    answers = [by_autograd(reference.triplet_loss, part, labels) for part in embeddings.split(1, 1)]
    values, gradients = ([getattr(answer, name)[0] for answer in answers] for name in Answer._fields)
    return Answer([torch.stack(values).mean()], [torch.cat(gradients, 1) / len(answers)])


def by_sorting(embeddings: Tensor, labels: Tensor) -> Answer:
    """The negatives of every anchor sorted, and their sums and numbers below a positive's limit looked up."""
    same, n = labels[:, None] == labels, len(labels)
    step = max(1, (4 << 20) // (8 * n * n))
    losses, gradients = zip(
        *(_sorted(x.double().transpose(0, 1), same) for x in embeddings.split(step, 1)), strict=True
    )
    parts = embeddings.shape[1]
    gradient = torch.cat([each.transpose(0, 1) for each in gradients], 1) / parts
    return Answer([torch.cat(losses).mean().float()], [gradient.float()])


def _sorted(x: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Losses `[p]` and the gradient of their sum for `x` `[p, n, c]`."""
    products = x @ x.mT
    norms = products.diagonal(dim1=1, dim2=2)
    distance = (norms[:, :, None] + norms[:, None, :] - 2 * products).relu().sqrt()  # p anchor other
    negatives, order = distance.masked_fill(same, torch.inf).sort(2)
    sums = torch.cat([x.new_zeros(*order.shape[:2], 1), negatives.masked_fill(negatives.isinf(), 0).cumsum(2)], 2)
    limits = distance + MARGIN
    below = torch.searchsorted(negatives, limits) * same  # how many negatives a positive exceeds
    total = below.sum((1, 2)).clamp(min=1)
    loss = ((below * limits - sums.gather(2, below)) * same).sum((1, 2)) / total
    ends = torch.zeros_like(sums).scatter_add_(2, below, same.to(x.dtype).expand_as(distance))
    exceeding = ends.flip(2).cumsum(2).flip(2)[:, :, 1:]  # how many positives exceed the negative of a rank
    slopes = below - torch.zeros_like(distance).scatter_(2, order, exceeding)
    slopes /= distance.masked_fill(distance == 0, torch.inf)
    slopes = slopes + slopes.mT
    return loss, (slopes.sum(2, keepdim=True) * x - slopes @ x) / total[:, None, None]


class Implementation(NamedTuple):
    """A way to compute the loss and its gradient.

    cubes: how many tensors `[n, n, n]` it holds at once for so many parts.
    """

    compute: Callable[[Tensor, Tensor], Answer]
    cubes: Callable[[int], int] = lambda parts: 0


IMPLEMENTATIONS = {
    "hstl_fast": Implementation(partial(by_autograd, triplet_loss)),
    "sorted negatives": Implementation(by_sorting),
    "definition, part by part": Implementation(part_by_part, lambda parts: 5),
    "definition": Implementation(partial(by_autograd, reference.triplet_loss), lambda parts: 5 * parts),
}


def check() -> dict[str, str | None]:
    """The fault of each implementation, or None, on a batch that the definition affords in float64."""
    embeddings, labels = Size(8, 6, 3, 64).batch()
    expected = by_autograd(reference.triplet_loss, embeddings.double(), labels)
    found = {name: errors(each.compute(embeddings, labels), expected) for name, each in IMPLEMENTATIONS.items()}
    wrong = {name: [error for error in each if error is None or not error <= BOUND] for name, each in found.items()}
    return {name: f"WRONG: off by {faults}" if faults else None for name, faults in wrong.items()}


def peak(name: str, size: Size) -> int:
    """Bytes of the loss and its gradient above the inputs, in a new process with this one's number of threads."""
    command = [sys.executable, "-m", "benchmarks.training.losses", "--peak-of", name, "--sizes", str(size)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return int(run.stdout.split()[-1])


def measure(size: Size, rounds: int, longest: float, memory: float, faults: dict[str, str | None]) -> dict[str, Any]:
    """Times and memory of every implementation that is right and can be afforded."""
    batch, described, calls = size.batch(), {}, {}
    for name, each in IMPLEMENTATIONS.items():
        needed = 4 * each.cubes(size.parts) * size.n**3 / GIB
        reason = faults[name] or (f"needs about {needed:.0f} GiB" if needed > memory else None)
        described[name] = {"left_out": reason}
        if reason is None:
            call = partial(each.compute, *batch)
            first = timed(call)
            described[name] |= {"bytes": peak(name, size) if PEAK_RESET.exists() else None, "seconds": [first]}
            if first <= longest:
                calls[name] = partial(timed, call)
    for name, seconds in interleaved(calls, rounds).items():
        described[name]["seconds"] = seconds
    for known in described.values():
        if "seconds" in known:
            known |= summarise(known["seconds"])._asdict()
    return described


def show(size: Size, described: dict[str, Any]) -> None:
    """Print the results of a size."""
    print(f"{size.people} x {size.sequences} sequences, {size.parts} parts of {size.channels}")
    for name, known in described.items():
        if known["left_out"]:
            print(f"  {name:26}{known['left_out']}")
            continue
        memory = "?" if known["bytes"] is None else f"{known['bytes'] / 2**20:.0f}"
        print(f"  {name:26}{known['median']:8.3f} s (fastest {known['fastest']:.3f}) {memory:>7} MiB")


def size_of(text: str) -> Size:
    """The size that a user names: identities x sequences, and optionally x parts x channels."""
    people, sequences, *rest = map(int, text.split("x"))
    return Size(people, sequences, *(rest or (50, 256)))


def main() -> None:
    """Measure, print, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    sizes = ["8x8x73x128", "32x8", "64x8", "4x64"]
    parser.add_argument("--sizes", type=size_of, nargs="+", default=list(map(size_of, sizes)))
    parser.add_argument("--threads", type=int, help="torch's own number without it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=float, default=5.0, help="seconds")
    parser.add_argument("--memory", type=float, default=4.0, help="GiB")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak-of", choices=IMPLEMENTATIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        compute = IMPLEMENTATIONS[options.peak_of].compute
        compute(*Size(2, 2, 1, 4).batch())  # loads what is loaded once
        print(growth(partial(compute, *options.sizes[0].batch())))
        return
    with machine.threads(options.threads):
        faults = check()
        described = machine.description()
        print(f"{described['cpu']}; torch {torch.__version__}; {torch.get_num_threads()} threads")
        results = {}
        for size in options.sizes:
            results[str(size)] = measure(size, options.rounds, options.longest, options.memory, faults)
            show(size, results[str(size)])
    if options.json:
        stored = {"triplet_loss": results, "machine": described}
        options.json.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
