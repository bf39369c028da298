"""Stage cold: the first call in a new process, once torch has made its context.

A process of its own imports torch, wakes the device, makes weights and inputs, and only then calls for the first time:
that loads the binary, or compiles. Where it leaves something on disk it runs again, with that.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import clips, implementations, programs, timing
from benchmarks.gpu.supervise import Job, Reporter, Row

STAGE = "cold"
LONGEST = 120.0
WORKS = ("arme 64-128 forward", "embedding of one clip", "training step of two clips")


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each backend with kernels and computation, and one embedding by the reference."""
    keys = [f"{work} | hstl_fast {name}" for work in WORKS for name in implementations.with_kernels(device)]
    keys.append(f"{WORKS[1]} | hstl_fast reference")
    return [Job(STAGE, key.split(" | ")[0], (key,), 2 * LONGEST + 20) for key in keys]


def execute(job: Job, reporter: Reporter, device: torch.device, tiny: bool) -> None:
    """Run the process with empty caches, and again with what it leaves there."""
    (key,) = job.keys
    reporter.started(key)
    options = ["--device", device.type, *(["--tiny"] if tiny else [])]
    command = programs.module("cold", key.removeprefix(f"{job.name} | hstl_fast "), job.name, *options)
    with tempfile.TemporaryDirectory() as folder:
        reporter.finished(key, measured(command, folder))


def measured(command: list[str], folder: str) -> Row:
    """Seconds of a process's calls, without and, if there are any afterwards, with caches on disk."""
    caches = {"TRITON_CACHE_DIR": folder, "CUDA_CACHE_PATH": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
    found = {}
    for name in ("fresh", "cached"):
        try:
            done = programs.run(command, LONGEST, caches)
        except subprocess.TimeoutExpired:
            return {"status": "stopped", "reason": f"stopped after {LONGEST:.0f} seconds"}
        if done.returncode:
            return {"status": "failed", "reason": programs.last_line(done.stderr) or f"exit code {done.returncode}"}
        found[name] = json.loads(done.stdout.splitlines()[-1])
        if not any(Path(folder).iterdir()):
            break
    return {"status": "ok", **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the calls of this process and print them.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.cold")
    parser.add_argument("backend")
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    with torch.no_grad():
        torch.zeros(1, device=device).add_(1)
    timing.synchronise(device)
    call = _call(options.work, options.backend, options.tiny, device)
    timing.synchronise(device)
    seconds = {name: timing.wall_seconds(call, device) for name in ("first", "second", "third")}
    print(json.dumps(seconds))
    return 0


def _call(work: str, backend: str, tiny: bool, device: torch.device) -> Callable[[], Any]:
    from hstl_fast import functional, losses, use_backend

    if work == WORKS[0]:
        x = torch.randn(1, 64, 10, 64, 44).to(device, torch.bfloat16).contiguous(memory_format=torch.channels_last_3d)
        weights = (torch.randn(4, 128, 64, 3, 3, 3) / 40).to(device, torch.bfloat16)
        return lambda: functional.arme(x, weights, (8, 32, 16, 8), backend=backend)
    model = clips.model("casia-b", tiny).to(device)
    clip = clips.clips(2, 30)
    batch, labels = clip.to(device), torch.tensor([0, 1], device=device)

    def embed() -> Any:
        with use_backend(backend), torch.autocast(device.type, torch.bfloat16):
            return model.eval().embed([clip[0]])

    def train() -> Any:
        with use_backend(backend), torch.autocast(device.type, torch.bfloat16):
            out = model.train()(batch)
            loss = losses.triplet_loss(out.embeddings, labels) + losses.cross_entropy(out.logits, labels)
        loss.backward()

    return embed if work == WORKS[1] else train


if __name__ == "__main__":
    sys.exit(main())
