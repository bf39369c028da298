"""The demo's training from end to end, in one folder."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import hstl_fast
from hstl_fast import HSTL
from hstl_fast.data import Sequences, part_of
from hstl_fast.demo.training.plan import DATA, HIERARCHY, NETWORK_FILE, Plan
from hstl_fast.demo.training.population import Population, render_population
from hstl_fast.demo.training.scoring import (
    Region,
    Scores,
    Vectors,
    chance,
    score,
    scores_of_parts,
    scores_of_regions,
    vectors_of,
)
from hstl_fast.files import atomic_file
from hstl_fast.hierarchy import Hierarchy, StripFeatures, body_hierarchy, strip_features
from hstl_fast.hierarchy.clustering import scikit_learn
from hstl_fast.network import Network
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes import extras
from hstl_fast.training import Watcher, fit
from hstl_fast.training.folder import LOG, read_lines

STRIPS = 8


@dataclass(frozen=True)
class Trained:
    """The results of the demo's training.

    Attributes:
        plan: What was trained.
        data: All walkers.
        test: Those of the test.
        hierarchy: The hierarchy that was found from the walkers for training.
        features: The features that it was found by.
        checkpoint: The last checkpoint.
        network: The network in it.
        log: The lines of the log: losses and learning rate of each step.
        vectors: What the test sequences are compared by.
        scores: The network's rates.
        untrained: Those of the same network with random weights.
        energy: Those of the gait-energy image.
        chance: The rate of guessing, in percent.
        parts: The NM rate of each part by itself, in percent.
        regions: What each region contributes.
        seconds: The time of each stage.
    """

    plan: Plan
    data: Sequences
    test: Sequences
    hierarchy: Hierarchy
    features: StripFeatures
    checkpoint: Path
    network: Network
    log: list[dict[str, Any]]
    vectors: Vectors
    scores: Scores
    untrained: Scores
    energy: Scores
    chance: float
    parts: list[float]
    regions: list[Region]
    seconds: dict[str, float]

    @property
    def loop_seconds(self) -> float:
        """The time of the steps of the training, without its preparation."""
        return _loop_seconds(self.log)


class Stages:
    """The times of the stages of a run."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a block.

        Args:
            name: Its name.

        Yields:
            Nothing.
        """
        begun = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - begun


def train_demo(plan: Plan, folder: Path, progress: Progress = silent, watcher: Watcher | None = None) -> Trained:
    """Render walkers, find their hierarchy, train a network and evaluate it.

    A run that was interrupted in a folder goes on there.

    Args:
        plan: What to train.
        folder: The folder of the run.
        progress: Called as `progress(stage, done, total)`, but for the training.
        watcher: Told of the steps of the training.

    Returns:
        The results.

    Raises:
        ImportError: A package of the extras `[train]` or `[hierarchy]` is missing.
        OSError: A file cannot be written.
        TrainingError: A loss is not finite, or the folder holds another training.
        TrainingStopped: A signal came; the same call goes on.
    """
    # What is missing is said before the work begins.
    extras.fabric()
    scikit_learn()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    with stages.stage("rendering"):
        people = Population(plan.train + plan.test, plan.train, plan.views, plan.frames, plan.population)
        data = render_population(people, folder / DATA, progress)
    with stages.stage("hierarchy"):
        features, hierarchy = find_hierarchy(part_of(data, "train"), plan, progress)
        hierarchy.save(folder / HIERARCHY)
        _write_network(plan, folder / NETWORK_FILE)
    with stages.stage("training"):
        config = plan.training(folder)
        checkpoint = fit(config, watcher=watcher)
    network = Network.from_checkpoint(checkpoint)
    test = part_of(data, "test")
    with stages.stage("evaluation"), hstl_fast.use_backend(plan.backend):
        vectors = vectors_of(network.model, test, progress)
        scores, energy = score(vectors.embeddings, test), score(vectors.energy, test)
        untrained = score(vectors_of(_untrained(network, plan.seed), test).embeddings, test)
    with stages.stage("regions"):
        parts = scores_of_parts(vectors.embeddings, test)
        regions = scores_of_regions(vectors.embeddings, test, network.model.config)
    return Trained(
        plan=plan,
        data=data,
        test=test,
        hierarchy=hierarchy,
        features=features,
        checkpoint=checkpoint,
        network=network,
        log=read_lines(Path(config.output) / LOG),
        vectors=vectors,
        scores=scores,
        untrained=untrained,
        energy=energy,
        chance=chance(test),
        parts=parts,
        regions=regions,
        seconds=stages.seconds,
    )


class Compared(NamedTuple):
    """The same training by another backend or with another seed.

    Attributes:
        scores: Its rates.
        loop_seconds: The time of the steps of its training.
    """

    scores: Scores
    loop_seconds: float


def train_again(
    trained: Trained, folder: Path, backend: str, seed: int | None = None, watcher: Watcher | None = None
) -> Compared:
    """Train the same network on the same walkers again, and evaluate it.

    Args:
        trained: The results of the demo's training.
        folder: Its folder, where the other training is kept in a folder of its own.
        backend: What computes the layers of the other training, such as "reference".
        seed: Seed of its initial weights and its batches; None for the same ones.
        watcher: Told of the steps of the training.

    Returns:
        The rates and the time.

    Raises:
        TrainingError: As `train_demo`.
        TrainingStopped: As `train_demo`.
    """
    folder = folder.resolve()
    plan = replace(trained.plan, backend=backend, seed=trained.plan.seed if seed is None else seed)
    config = replace(plan.training(folder), output=str(folder / f"training-{backend}-seed-{plan.seed}"))
    network = Network.from_checkpoint(fit(config, watcher=watcher))
    scores = score(vectors_of(network.model, trained.test).embeddings, trained.test)
    return Compared(scores, _loop_seconds(read_lines(Path(config.output) / LOG)))


def find_hierarchy(sequences: Sequences, plan: Plan, progress: Progress = silent) -> tuple[StripFeatures, Hierarchy]:
    """Find the hierarchy of body regions by how the strips of the body move.

    Args:
        sequences: The walkers to find it from.
        plan: The plan, whose network has the numbers of regions.
        progress: Called as `progress(stage, done, total)`.

    Returns:
        The features of the strips, and the hierarchy with its cuts.
    """
    features = strip_features(sequences, "motion", STRIPS, progress=progress)
    return features, body_hierarchy(features, clusters=plan.clusters)


def _untrained(network: Network, seed: int) -> HSTL:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return HSTL(network.model.config)


def _write_network(plan: Plan, path: Path) -> None:
    network = replace(plan.network, num_classes=plan.train)
    with atomic_file(path) as draft:
        draft.write_text(json.dumps(network.to_dict(), indent=2) + "\n", encoding="utf-8")


def _loop_seconds(log: list[dict[str, Any]]) -> float:
    return max((line["seconds"] for line in log), default=0.0)
