"""What the demo measures: both paths on every sequence, how far they agree, how long they take, and who is found."""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import hstl_fast
from hstl_fast import HSTL
from hstl_fast.demo.scene import Scene, Walk
from hstl_fast.evaluation import finite_rows, identity, nearest, part_distances
from hstl_fast.models import SIDE
from hstl_fast.network import Network
from hstl_fast.ops import _algorithm
from hstl_fast.ops._dispatch import OPERATORS, choose
from hstl_fast.silhouettes import Progress

ROUNDS = 5
LARGEST_DIFFERENCE = 5e-5
"""What fast float32 kernels may differ by, relative to the largest value of an embedding."""

Clip = NDArray[np.uint8]


class Paths(NamedTuple):
    """Something of the plain PyTorch path and the same of the fast one."""

    reference: Tensor
    fast: Tensor


class Errors(NamedTuple):
    """Largest differences from float64 on one sequence, relative to the largest value."""

    reference: float
    fast: float


@dataclass(frozen=True)
class Times:
    """Seconds of one sequence of `frames` frames, round by round, the two paths taking turns."""

    frames: int
    reference: list[float]
    fast: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        """Of the reference and of the fast path."""
        return median(self.reference), median(self.fast)

    @property
    def ratio(self) -> float:
        """How many times as fast the fast path is."""
        reference, fast = self.medians
        return reference / fast


class Answer(NamedTuple):
    """The gallery sequence nearest to a probe."""

    probe: Walk
    nearest: Walk
    distance: float

    @property
    def right(self) -> bool:
        return identity(self.probe.name) == identity(self.nearest.name)


@dataclass(frozen=True)
class Findings:
    """All that the demo finds out: `backend` computed the fast path where `asked_for` was asked for, with `threads`
    threads; `part_scores` are those of `rank_one_by_part`."""

    scene: Scene
    network: Network
    asked_for: str
    backend: str
    threads: int
    agreement: float
    errors: Errors
    times: Times
    distances: Tensor
    answers: list[Answer]
    part_scores: list[float]

    @property
    def agrees(self) -> bool:
        return self.agreement <= LARGEST_DIFFERENCE

    @property
    def left_out(self) -> str:
        """What the fast path does not compute, in a sentence or two; empty where it computes everything."""
        if "cpu" not in self.backend.split(" and "):
            return ""
        share = f"{body_share(self.scene.gallery[0].clip):.0%} of its pixels are body"
        sentence = f"The fast path leaves out the background of this sequence, where every value is exactly 0: {share}."
        return f"{sentence} {self.scene.likeness}".rstrip()

    @property
    def threads_used(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def untrained(self) -> bool:
        return self.network.untrained


def find_out(scene: Scene, network: Network, backend: str, progress: Progress) -> Findings:
    """Run everything. Raises ValueError where the network gives NaN or infinity."""
    model, count = network.model, len(scene.gallery)
    paths = embed_both(model, scene.walks, backend, lambda done: progress("embedding", done, len(scene.walks)))
    gallery, probes = paths.fast[:count], paths.fast[count:]
    distances = part_distances(probes, gallery)
    same = torch.tensor([[identity(p.name) == identity(g.name) for g in scene.gallery] for p in scene.probes])
    return Findings(
        scene=scene,
        network=network,
        asked_for=backend,
        backend=chosen_backend(backend),
        threads=torch.get_num_threads(),
        agreement=difference(paths.fast, paths.reference),
        errors=errors(model, scene.gallery[0], Paths(paths.reference[0], paths.fast[0])),
        times=take_turns(model, scene.gallery[0], backend),
        distances=distances,
        answers=answers(distances, scene.probes, scene.gallery),
        part_scores=rank_one_by_part(probes, gallery, same),
    )


def chosen_backend(name: str) -> str:
    """What computes the layers on the CPU when asked for `name`; RuntimeError if that cannot run here, or not by the
    algorithm that the environment asks for."""
    chosen = {operator: choose(operator, "cpu", torch.float32, name) for operator in OPERATORS}
    if name != "reference":
        _algorithm.choose(None, chosen["arme"], torch.float32)
    return " and ".join(sorted(set(chosen.values())))


def embed_both(model: HSTL, walks: Sequence[Walk], backend: str, done: Callable[[int], None]) -> Paths:
    """Embeddings `[N, P, C]` of every sequence on both paths. Raises ValueError where one is not finite."""
    pairs = []
    for count, walk in enumerate(walks, 1):
        pairs.append((_embed(model, walk.clip, "reference"), _embed(model, walk.clip, backend)))
        done(count)
    paths = Paths(*(torch.cat(vectors) for vectors in zip(*pairs)))
    for vectors in paths:
        finite = finite_rows(vectors.numpy())
        if not finite.all():
            raise ValueError(f"{walks[int(finite.argmin())].name}: the network gives an embedding with NaN or infinity")
    return paths


def difference(value: Tensor, truth: Tensor) -> float:
    """Largest difference, relative to the largest value of `truth`; 0 between equal tensors."""
    largest = (value.double() - truth.double()).abs().max()
    return float(largest / truth.double().abs().max()) if largest > 0 else 0.0


def errors(model: HSTL, walk: Walk, vectors: Paths) -> Errors:
    """How far the embeddings `[P, C]` of `walk` on both paths are from the reference in float64."""
    truth = _embed(deepcopy(model).double(), walk.clip, "reference")[0]
    return Errors(difference(vectors.reference, truth), difference(vectors.fast, truth))


def take_turns(model: HSTL, walk: Walk, backend: str) -> Times:
    """Time both paths on one sequence in turns, so that a slow moment of the machine falls on both alike."""
    times = Times(len(walk.clip), [], [])
    for _ in range(ROUNDS):
        times.reference.append(_seconds(lambda: _embed(model, walk.clip, "reference")))
        times.fast.append(_seconds(lambda: _embed(model, walk.clip, backend)))
    return times


def answers(distances: Tensor, probes: Sequence[Walk], gallery: Sequence[Walk]) -> list[Answer]:
    """For each probe the nearest of the gallery; distances `[n, k]`."""
    first = nearest(distances, 1)[:, 0].tolist()
    return [
        Answer(probe, gallery[index], float(distances[row, index]))
        for row, (probe, index) in enumerate(zip(probes, first, strict=True))
    ]


def body_share(clip: Clip) -> float:
    """The share of the pixels seen by the network, of a clip `[T, 64, 64]`, that are not background."""
    return float((clip[:, :, SIDE:-SIDE] > 0).mean())


def hits(answers: Iterable[Answer]) -> str:
    """How many are right: "17 of 24"."""
    right = [answer.right for answer in answers]
    return f"{sum(right)} of {len(right)}"


def rank_one_by_part(probe: Tensor, gallery: Tensor, same: Tensor) -> list[float]:
    """Share of probes that each part, alone, puts nearest to the right person.

    probe `[n, P, C]`, gallery `[k, P, C]`, same `[n, k]` bool: whose walks are one person's.
    """
    rows = torch.arange(len(probe))
    return [
        same[rows, nearest(part_distances(probe[:, [p]], gallery[:, [p]]), 1)[:, 0]].double().mean().item()
        for p in range(probe.shape[1])
    ]


def _embed(model: HSTL, clip: Clip, backend: str) -> Tensor:
    """The reference has one way to convolve, whatever the environment asks the native code for."""
    algorithm = "auto" if backend == "reference" else _algorithm.requested()
    with hstl_fast.use_backend(backend), hstl_fast.use_algorithm(algorithm):
        return model.embed([clip])


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
