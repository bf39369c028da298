"""The time that `hstl-fast embed` takes for a test set of CASIA-B's shape, projected from a measured part.

    python -m benchmarks.data.embedding [--sequences 128] [--rounds 3] [--json FILE]

Compared are the command in one process on all threads, the command in two processes of half the threads each, as
torchrun starts them, and the plain network in eager PyTorch, one sequence after another. The command is timed with one
sequence, too, which is its start, and what the others take more is multiplied by the frames of the whole test set.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.core import machine
from benchmarks.core.interleaving import interleaved, summarise, timed
from benchmarks.core.plain import frozen, plain
from benchmarks.core.silhouettes import clip
from hstl_fast.evaluation import load_embeddings
from hstl_fast.network import Network

# The test set: 50 people, 10 recordings, 11 views, of which a few are missing.
SEQUENCES = 5485
# Frames of a sequence: mean, deviation, fewest and most, about as in CASIA-B.
FRAMES = (82, 18, 35, 150)
# The plain network is timed with so many sequences, since a second each is nothing rare.
EAGER_SEQUENCES = 4
PRESET, SEED = "casia-b", 2023
# The largest difference of two embeddings, over the largest value, that counts as equal.
BOUND = 1e-4


def lengths_of(count: int) -> NDArray[np.int64]:
    """The frames of so many sequences of the test set."""
    mean, deviation, fewest, most = FRAMES
    drawn = np.random.default_rng(0).normal(mean, deviation, SEQUENCES)
    return drawn.round().clip(fewest, most).astype(np.int64)[:count]


def write_part(folder: Path, count: int) -> None:
    """Write silhouettes of people as the first sequences of the test set."""
    for i, frames in enumerate(lengths_of(count).tolist()):
        np.save(folder / f"{i:05d}.npy", clip(i, 7 * i, frames).numpy())


def embed(data: Path, output: Path, processes: int) -> None:
    """Run the command in so many processes that share the threads of this one."""
    threads = max(1, torch.get_num_threads() // processes)
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "hstl_fast", "embed", str(data), "-o", str(output), "--preset", PRESET]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*command, "--seed", str(SEED)], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)


def main() -> None:
    """Measure, project and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=128, help="measured part of the test set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.sequences, arguments.rounds)
    for name, minutes in found["minutes"].items():
        print(f"{name:28} {minutes:8.1f} minutes for {SEQUENCES} sequences, {found['frames']} frames")
    eager, ours = found["minutes"]["eager, one by one"], found["minutes"]["1 process"]
    print(f"one process is {eager / ours:.1f} times as fast as eager; the embeddings differ by {found['error']:.1e}")
    if arguments.json:
        arguments.json.write_text(json.dumps({**found, "machine": machine.description()}, indent=1) + "\n")


def measure(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time all in turns; the result has the projected minutes, the seconds of every round, and the error."""
    part, single = folder / "part", folder / "one"
    for data, sequences in ((part, count), (single, 1)):
        data.mkdir()
        write_part(data, sequences)
    model = Network.from_seed(PRESET, SEED).model
    network = frozen(plain(model), training=False)
    clips = [torch.from_numpy(np.load(file)) for file in sorted(part.iterdir())[:EAGER_SEQUENCES]]
    vectors: list[torch.Tensor] = []

    def eager() -> None:
        with torch.no_grad():
            vectors[:] = [network(one_clip[None])[0] for one_clip in clips]

    names = {f"{n} process{'es' if n > 1 else ''}": n for n in (1, 2)}
    output = folder / "out.npz"
    calls = {"eager": lambda: timed(eager)}
    for name, n in names.items():
        calls[f"{name}, start"] = lambda n=n: timed(lambda: embed(single, output, n))
        calls[name] = lambda n=n: timed(lambda: embed(part, output, n))
    seconds = interleaved(calls, rounds)
    ours = torch.from_numpy(load_embeddings(output).vectors[: len(clips)])
    theirs = torch.cat(vectors)
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    if not error <= BOUND:
        sys.exit(f"the embeddings differ by {error:.1e} of the largest value, which is more than {BOUND:.0e}")
    frames, total = int(lengths_of(count).sum()), int(lengths_of(SEQUENCES).sum())
    middle = {name: summarise(each).median for name, each in seconds.items()}
    minutes = {"eager, one by one": middle["eager"] * total / sum(map(len, clips)) / 60}
    for name in names:
        start = middle[f"{name}, start"]
        minutes[name] = (start + (middle[name] - start) * total / frames) / 60
    return {"minutes": minutes, "frames": total, "measured_frames": frames, "seconds": seconds, "error": error}


if __name__ == "__main__":
    main()
