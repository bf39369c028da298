"""The measurements of the demo: embeddings on both paths, their differences and times, and the identification."""

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
from hstl_fast.models.config import SIDE
from hstl_fast.network import Network
from hstl_fast.ops._dispatch import OPERATORS, choose, choose_algorithm
from hstl_fast.options import ALGORITHM
from hstl_fast.silhouettes import Progress

ROUNDS = 5
# The native kernels in float32 may differ from plain PyTorch by this much, relative to an embedding's largest value.
LARGEST_DIFFERENCE = 5e-5

Clip = NDArray[np.uint8]


class Paths(NamedTuple):
    """A tensor computed by plain PyTorch and the same tensor computed by the native kernels."""

    reference: Tensor
    fast: Tensor


class Errors(NamedTuple):
    """The largest differences from float64 on one sequence, relative to the largest value."""

    reference: float
    fast: float


@dataclass(frozen=True)
class Times:
    """Seconds per round of the two paths, interleaved, on one sequence of `frames` frames."""

    frames: int
    reference: list[float]
    fast: list[float]

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of the reference and of the native kernels."""
        return median(self.reference), median(self.fast)

    @property
    def ratio(self) -> float:
        """The speed of the native kernels as a multiple of the speed of the reference."""
        reference, fast = self.medians
        return reference / fast


class Answer(NamedTuple):
    """The gallery sequence nearest to a probe."""

    probe: Walk
    nearest: Walk
    distance: float

    @property
    def right(self) -> bool:
        """Whether both sequences are of one person."""
        return identity(self.probe.name) == identity(self.nearest.name)


@dataclass(frozen=True)
class Findings:
    """The results of the demo.

    Attributes:
        scene: The sequences.
        network: The network.
        asked_for: The backend that was asked for.
        backend: The backend of the native kernels.
        threads: The number of threads.
        agreement: The largest difference of the two paths over all sequences, relative to the largest value.
        errors: The differences of both paths from float64 on one sequence.
        times: The times of both paths on one sequence.
        distances: Distances `[n, k]` of the probes to the gallery.
        answers: The nearest gallery sequence of every probe.
        part_scores: The rank-1 rate of every part by itself, as `rank_one_by_part` gives it.
    """

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
        """Whether the two paths differ by rounding only."""
        return self.agreement <= LARGEST_DIFFERENCE

    @property
    def left_out(self) -> str:
        """A sentence or two on the work that the native kernels skip; empty where it skips none."""
        if "cpu" not in self.backend.split(" and "):
            return ""
        share = f"{body_share(self.scene.gallery[0].clip):.0%} of its pixels are body"
        sentence = (
            f"The native kernels leave out the background of this sequence, where every value is exactly 0: {share}."
        )
        return f"{sentence} {self.scene.likeness}".rstrip()

    @property
    def threads_used(self) -> str:
        """The number of threads in words."""
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.network.untrained


def find_out(scene: Scene, network: Network, backend: str, progress: Progress) -> Findings:
    """Run the demo.

    Args:
        scene: The sequences to embed.
        network: The network to embed them with.
        backend: The backend of the native kernels.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        All results.

    Raises:
        ValueError: The network gives NaN or infinity.
    """
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
        times=interleaved_times(model, scene.gallery[0], backend),
        distances=distances,
        answers=answers(distances, scene.probes, scene.gallery),
        part_scores=rank_one_by_part(probes, gallery, same),
    )


def chosen_backend(name: str) -> str:
    """Find the backend that computes the layers on the CPU where `name` is asked for.

    Raises:
        RuntimeError: The backend cannot run here, or not by the algorithm that the environment asks for.
    """
    chosen = {operator: choose(operator, "cpu", torch.float32, name) for operator in OPERATORS}
    if name != "reference":
        choose_algorithm(None, chosen["arme"], torch.float32)
    return " and ".join(sorted(set(chosen.values())))


def embed_both(model: HSTL, walks: Sequence[Walk], backend: str, done: Callable[[int], None]) -> Paths:
    """Embed every sequence on both paths.

    Args:
        model: The network.
        walks: The `N` sequences.
        backend: The backend of the native kernels.
        done: Called with the number of sequences that are embedded.

    Returns:
        Embeddings `[N, P, C]` of both paths.

    Raises:
        ValueError: An embedding is not finite.
    """
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


def difference(value: Tensor, reference: Tensor) -> float:
    """Compute the largest difference, relative to the largest value of `reference`; 0 between equal tensors."""
    largest = (value.double() - reference.double()).abs().max()
    return float(largest / reference.double().abs().max()) if largest > 0 else 0.0


def errors(model: HSTL, walk: Walk, vectors: Paths) -> Errors:
    """Compare the embeddings `[P, C]` of `walk` on both paths with the float64 reference."""
    reference = _embed(deepcopy(model).double(), walk.clip, "reference")[0]
    return Errors(difference(vectors.reference, reference), difference(vectors.fast, reference))


def interleaved_times(model: HSTL, walk: Walk, backend: str) -> Times:
    """Time both paths on one sequence, interleaved, so that a slow moment of the machine falls on both alike."""
    times = Times(len(walk.clip), [], [])
    for _ in range(ROUNDS):
        times.reference.append(_seconds(lambda: _embed(model, walk.clip, "reference")))
        times.fast.append(_seconds(lambda: _embed(model, walk.clip, backend)))
    return times


def answers(distances: Tensor, probes: Sequence[Walk], gallery: Sequence[Walk]) -> list[Answer]:
    """Find the nearest gallery sequence of every probe from their distances `[n, k]`."""
    first = nearest(distances, 1)[:, 0].tolist()
    return [
        Answer(probe, gallery[index], float(distances[row, index]))
        for row, (probe, index) in enumerate(zip(probes, first, strict=True))
    ]


def body_share(clip: Clip) -> float:
    """Compute the share of body among the pixels of a clip `[T, 64, 64]` that the network sees."""
    return float((clip[:, :, SIDE:-SIDE] > 0).mean())


def hits(answers: Iterable[Answer]) -> str:
    """Count the right answers in words, such as "17 of 24"."""
    right = [answer.right for answer in answers]
    return f"{sum(right)} of {len(right)}"


def rank_one_by_part(probe: Tensor, gallery: Tensor, same: Tensor) -> list[float]:
    """Compute the rank-1 rate of each part by itself.

    Args:
        probe: Embeddings `[n, P, C]`.
        gallery: Embeddings `[k, P, C]`.
        same: Bool `[n, k]`, True where probe and gallery sequence are of one person.

    Returns:
        The share of probes that each of the `P` parts puts nearest to the right person.
    """
    rows = torch.arange(len(probe))
    return [
        same[rows, nearest(part_distances(probe[:, [p]], gallery[:, [p]]), 1)[:, 0]].double().mean().item()
        for p in range(probe.shape[1])
    ]


def _embed(model: HSTL, clip: Clip, backend: str) -> Tensor:
    """Embed one clip; an algorithm that the environment selects is for the native code, not for the reference."""
    algorithm = "auto" if backend == "reference" else ALGORITHM.value()
    with hstl_fast.use_backend(backend), hstl_fast.use_algorithm(algorithm):
        return model.embed([clip])


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
