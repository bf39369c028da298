"""`python -m benchmarks.gpu.drive BACKEND`: every operator of a backend once, forward and backward.

The sanitizer and the profiler watch this program. It prints a line for each case that is done. Without `--published`
the sizes are small and odd; with it they are those of casia-b's convolutions.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import profile

from benchmarks.gpu import clips, timing
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.supervise import die_with_parent
from hstl_fast import functional, losses, use_backend

ARITHMETICS = (
    Numerics(torch.bfloat16),
    Numerics(torch.float16),
    Numerics(torch.float32, tf32=True),
    Numerics(torch.float32),
)
# Channels, regions, frames, rows and columns: multiples of a tile's size, and of none.
SIZES = ((32, 64, (5, 1, 3), 7, 9, 7), (6, 10, (4, 7), 5, 11, 13), (128, 128, (8, 4), 3, 12, 44))
# casia-b's convolutions behind the first, with the frames that they see.
PUBLISHED = (
    (32, 32, (40, 24), 30, 64, 44),
    (32, 64, (40, 24), 30, 64, 44),
    (64, 128, (8, 32, 16, 8), 10, 64, 44),
    (128, 128, (8, 32, 16, 8), 10, 64, 44),
)
PUBLISHED_CLIPS = 8
Step = Callable[[], None]


class Case(NamedTuple):
    """A computation that is run once."""

    name: str
    numerics: Numerics
    step: Step


def cases(backend: str, device: torch.device, published: bool) -> Iterator[Case]:
    """All cases of a backend."""
    for numerics in ARITHMETICS if not published else ARITHMETICS[:1]:
        for size in PUBLISHED if published else SIZES:
            for ragged in (False,) if published else (False, True):
                for support in (False, True):
                    yield _arme(size, ragged, support, numerics, backend, device)
        if not published:
            yield from (_astp(size, projected, numerics, backend, device) for size in SIZES for projected in (0, 1))
            yield _network(numerics, backend, device)


def layers(published: bool) -> list[str]:
    """The texts that name a convolution's cases in bfloat16."""
    return [f"arme {size[0]}-{size[1]}, bfloat16" for size in (PUBLISHED if published else SIZES)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases whose names contain the text of --only.

    Returns:
        0, or 1 if there are none.
    """
    options = _parser().parse_args(arguments)
    device = torch.device(options.device)
    torch.manual_seed(0)
    chosen = [case for case in cases(options.backend, device, options.published) if options.only in case.name]
    _run(chosen, device)
    if options.trace is not None:
        with profile() as recorded:
            _run(chosen, device)
        recorded.export_chrome_trace(str(options.trace))
    return 0 if chosen else 1


def _run(chosen: list[Case], device: torch.device) -> None:
    for case in chosen:
        with case.numerics.on(device):
            case.step()
        timing.synchronise(device)
        print(f"done: {case.name}", flush=True)


def _arme(
    size: tuple[int, int, tuple[int, ...], int, int, int],
    ragged: bool,
    support: bool,
    numerics: Numerics,
    backend: str,
    device: torch.device,
) -> Case:
    c_in, c_out, split, t, h, w = size
    words = [f"arme {c_in}-{c_out}", str(numerics), *(["ragged"] if ragged else []), *(["support"] if support else [])]

    def step() -> None:
        sequences = 1 if ragged else PUBLISHED_CLIPS if size in PUBLISHED else 2
        lengths = [t, 1, t + 2] if ragged else None
        frames = sum(lengths) if lengths else t
        inside = torch.rand(sequences, frames, h, w, device=device) < 0.2 if support else None
        x = torch.randn(sequences, c_in, frames, h, w, device=device)
        if inside is not None:
            x = x * inside[:, None]
        x = x.to(numerics.dtype).contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        weights = torch.randn(len(split), c_out, c_in, 3, 3, 3, device=device, dtype=numerics.dtype) / 30
        weights.requires_grad_()
        with _watched(device):
            y = functional.arme(x, weights, split, seq_lens=lengths, support=inside, backend=backend)
        direction = torch.randn_like(y)
        with _watched(device):
            torch.autograd.grad(y, (x, weights), direction)

    return Case(", ".join(words), numerics, step)


def _astp(
    size: tuple[int, int, tuple[int, ...], int, int, int],
    projected: int,
    numerics: Numerics,
    backend: str,
    device: torch.device,
) -> Case:
    c_in, c_out, split, t, h, w = size

    def step() -> None:
        x = torch.randn(2, c_in, t, h, w, device=device, dtype=numerics.dtype)
        x = x.contiguous(memory_format=torch.channels_last_3d).requires_grad_()
        proj = torch.randn(c_out, c_in, device=device, dtype=numerics.dtype) / c_in**0.5 if projected else None
        p = torch.full((len(split),), 6.5, device=device, requires_grad=True)
        leaves = [x, p] if proj is None else [x, p, proj.requires_grad_()]
        _backward(functional.astp(x, proj, p, split, backend=backend), *leaves)
        _backward(functional.strip_pool(x, p[:1], h, backend=backend), x, p)

    name = f"astp {c_in}-{c_out if projected else c_in}, {numerics}"
    return Case(name, numerics, step)


def _network(numerics: Numerics, backend: str, device: torch.device) -> Case:
    """A training step and embeddings of a small network: bytes, supports, and the gradients between layers."""

    def step() -> None:
        model = clips.model("casia-b", tiny=True).to(device, numerics.dtype)
        batch = clips.clips(2, 4).to(device)
        with use_backend(backend):
            out = model.train()(batch)
            labels = torch.tensor([0, 1], device=device)
            loss = losses.triplet_loss(out.embeddings, labels) + losses.cross_entropy(out.logits, labels)
            loss.backward()
            with torch.no_grad():
                model.eval()(batch)

    return Case(f"network, {numerics}", numerics, step)


@contextmanager
def _watched(device: torch.device) -> Iterator[None]:
    """Let a profiler that waits for it watch the block, and all that the block has launched."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize(device)
    torch.cuda.profiler.start()
    yield
    torch.cuda.synchronize(device)
    torch.cuda.profiler.stop()


def _backward(y: Tensor, *leaves: Tensor) -> None:
    torch.autograd.grad(y, leaves, torch.randn_like(y), materialize_grads=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.drive", description=__doc__)
    parser.add_argument("backend")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--published", action="store_true", help="casia-b's convolutions in their own sizes")
    parser.add_argument("--only", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="run again, and write the profile's chrome trace")
    return parser


if __name__ == "__main__":
    die_with_parent()  # which is the sanitizer or the profiler
    sys.exit(main())
