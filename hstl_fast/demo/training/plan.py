"""The plan of the demo's training: the walkers, the network, and the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from hstl_fast.models.config import HSTLConfig, Stage
from hstl_fast.training import (
    BatchConfig,
    DataConfig,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    OptimizerConfig,
    SavingConfig,
    ScheduleConfig,
    TrainingConfig,
)

# Regions of the stages, which the hierarchy that is found replaces; the numbers of regions stay.
STAGES = (Stage((20, 12), (16, 32)), Stage((4, 16, 8, 4), (64, 64)))
NETWORK = HSTLConfig(stem=(16,), stages=STAGES, pool=True, strips=16, num_classes=1)
# The share of the steps after which the learning rate falls.
_MILESTONES = (0.7, 0.9)


@dataclass(frozen=True)
class Plan:
    """The walkers and the training of a demo.

    Attributes:
        train: Walkers to learn from.
        test: Other walkers to tell apart afterwards.
        views: Directions of the camera in degrees, two or more.
        frames: Frames of each sequence.
        steps: Steps of the training.
        seed: Seed of the initial weights and of the batches.
        population: Seed of the walkers; not that of `walkers.render`, whose people thus stay unseen.
        backend: What computes the layers in the training.
        network: The network; its regions are replaced by those of the hierarchy.
        people: Walkers in a batch.
        sequences: Sequences of each of them in a batch.
        window: Frames of a sequence in a batch.
    """

    train: int = 60
    test: int = 24
    views: tuple[int, ...] = (54, 90, 126, 162)
    frames: int = 30
    steps: int = 200
    seed: int = 2023
    population: int = 1
    backend: str = "auto"
    network: HSTLConfig = field(default=NETWORK)
    people: int = 8
    sequences: int = 4
    window: int = 12

    @property
    def clusters(self) -> tuple[int, ...]:
        """The numbers of regions of the network's stages."""
        return tuple(len(stage.split) for stage in self.network.stages)

    def with_people(self, people: int) -> Plan:
        """Divide another number of walkers in the same proportion.

        Args:
            people: Number of walkers, 6 or more.

        Returns:
            The plan with five of seven walkers for training, and batches of as many people as there are, up to eight.
        """
        test = max(2, round(people * 2 / 7))
        return replace(self, train=people - test, test=test, people=min(self.people, people - test))

    def training(self, folder: Path) -> TrainingConfig:
        """Configure the training.

        Args:
            folder: The folder of the demo, where its data, network and hierarchy are.

        Returns:
            The configuration; its output is the folder `training` in it.
        """
        milestones = tuple(sorted({max(1, round(share * self.steps)) for share in _MILESTONES}))
        return TrainingConfig(
            output=str(folder / "training"),
            seed=self.seed,
            data=DataConfig(path=str(folder / DATA), workers=0),
            network=NetworkConfig(file=str(folder / NETWORK_FILE), hierarchy=str(folder / HIERARCHY)),
            batch=BatchConfig(self.people, self.sequences, self.window, self.window),
            loss=LossConfig(),
            optimizer=OptimizerConfig(lr=1e-3),
            schedule=ScheduleConfig(self.steps, milestones, warmup=min(20, self.steps)),
            machine=MachineConfig(accelerator="cpu", devices="1", backend=self.backend),
            saving=SavingConfig(every=max(1, self.steps // 3), keep=1, log_every=1, tensorboard=False),
        )


# Files in the folder of a demo.
DATA, NETWORK_FILE, HIERARCHY = "walkers.arrow", "network.json", "hierarchy.json"
