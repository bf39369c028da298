"""The configuration of a training, and those of the published networks."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

from hstl_fast.data.augmentation import Augmentation
from hstl_fast.models.config import preset
from hstl_fast.training.checks import KINDS, OPTIMIZERS, PRECISIONS, ConfigError, checked, got

__all__ = [
    "OPTIMIZERS",
    "PRECISIONS",
    "BatchConfig",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "MachineConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "SavingConfig",
    "ScheduleConfig",
    "TrainingConfig",
]


class Section:
    """A part of the configuration: its values are checked when it is made, and become plain Python objects.

    Raises:
        ConfigError: A field has a wrong type, or is out of range; a ValueError that names the field by its whole path.
    """

    NAME: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            path = f"{self.NAME}.{each.name}" if self.NAME else each.name
            value = getattr(self, each.name)
            if each.type in KINDS:
                object.__setattr__(self, each.name, checked(path, str(each.type), value))
            elif type(value).__name__ != each.type:
                raise ConfigError(path, f"expected an object of {each.type}, got {got(value)}")
        self._check_together()

    def _check_together(self) -> None:
        """Check what depends on several fields."""


@dataclass(frozen=True)
class DataConfig(Section):
    """The sequences to learn from.

    Attributes:
        path: A data set or packed file.
        layout: Its layout, as `hstl_fast.data.open_sequences` takes it.
        partition: A partition's JSON file; its training people are learnt from. None for the packed file's own
            partition, or the one published for the layout.
        workers: Processes that read.
        augmentation: Random changes of the silhouettes.
    """

    NAME: ClassVar[str] = "data"

    path: str = ""
    layout: str = "auto"
    partition: str | None = None
    workers: int = 2
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True)
class NetworkConfig(Section):
    """The network to train.

    Attributes:
        preset: A published network; it gives the other sections their defaults, too.
        file: A JSON file of an `HSTLConfig`, in place of the preset's; the number of classes is the data's.
        hierarchy: A JSON file that `hstl-fast hierarchy` wrote; its splits replace the network's.
        start: A checkpoint whose weights the training begins with; None for random ones.
        new_classifier: Whether the classifier of `start` is replaced by a random one for the people of the data.
    """

    NAME: ClassVar[str] = "network"

    preset: str = "casia-b"
    file: str | None = None
    hierarchy: str | None = None
    start: str | None = None
    new_classifier: bool = False


@dataclass(frozen=True)
class BatchConfig(Section):
    """The batch of a step, over all processes together.

    Attributes:
        people: People, P.
        sequences: Sequences of each, K.
        frames: Frames of each sequence.
        stretch: Consecutive frames among which they are chosen, in order; as many as `frames` for consecutive frames.
    """

    NAME: ClassVar[str] = "batch"

    people: int = 8
    sequences: int = 8
    frames: int = 30
    stretch: int = 30

    def _check_together(self) -> None:
        if self.stretch < self.frames:
            raise ConfigError(
                "batch.stretch", f"expected at least as many as batch.frames ({self.frames}); got {self.stretch}"
            )


@dataclass(frozen=True)
class LossConfig(Section):
    """The losses; training minimises `triplet * triplet loss + cross_entropy * cross entropy`.

    Attributes:
        triplet: Weight of the triplet loss; 0 leaves it out.
        margin: Its margin.
        cross_entropy: Weight of the cross entropy; 0 leaves it out, and the classifier as it is.
        scale: Factor of the logits in the cross entropy.
        smoothing: Label smoothing of the cross entropy.
    """

    NAME: ClassVar[str] = "loss"

    triplet: float = 1.0
    margin: float = 0.2
    cross_entropy: float = 1.0
    scale: float = 1.0
    smoothing: float = 0.0

    def _check_together(self) -> None:
        if self.triplet == self.cross_entropy == 0:
            raise ConfigError("loss.triplet", "expected a weight above 0 here or in loss.cross_entropy; both are 0")


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """The optimiser.

    Attributes:
        name: "adam" or "sgd".
        lr: Learning rate at the start.
        weight_decay: L2 penalty on every parameter.
        momentum: Momentum of SGD.
    """

    NAME: ClassVar[str] = "optimizer"

    name: str = "adam"
    lr: float = 1e-4
    weight_decay: float = 5e-4
    momentum: float = 0.9


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """The steps of the training and its learning rates.

    Attributes:
        steps: Number of steps.
        milestones: Steps at which the learning rate is multiplied by `factor`.
        factor: The factor.
        warmup: Steps over which the learning rate rises linearly from near 0; 0 for none.
    """

    NAME: ClassVar[str] = "schedule"

    steps: int = 90_000
    milestones: tuple[int, ...] = (70_000,)
    factor: float = 0.1
    warmup: int = 0


@dataclass(frozen=True)
class MachineConfig(Section):
    """The devices and number formats of the training.

    Attributes:
        accelerator: As Lightning Fabric takes it: "auto", "cpu", "cuda" and others.
        devices: Devices on each machine; "auto" for all.
        nodes: Machines.
        precision: "float32", "bfloat16" or "float16"; the latter two compute in mixed precision, float16 with a scaler.
        backend: What computes the layers, as `hstl_fast.use_backend` takes it.
        compile: Whether the network goes through `torch.compile`.
        sync_batch_norm: Whether batch norm takes the statistics of the batch of all processes together.
    """

    NAME: ClassVar[str] = "machine"

    accelerator: str = "auto"
    devices: str = "auto"
    nodes: int = 1
    precision: str = "float32"
    backend: str = "auto"
    compile: bool = False
    sync_batch_norm: bool = True


@dataclass(frozen=True)
class SavingConfig(Section):
    """The files that are written during the training.

    Attributes:
        every: Steps between checkpoints; there is always one at the end.
        keep: Newest checkpoints that are kept.
        log_every: Steps between lines of the log.
        tensorboard: Whether the log is written for TensorBoard, too.
    """

    NAME: ClassVar[str] = "saving"

    every: int = 1_000
    keep: int = 3
    log_every: int = 100
    tensorboard: bool = True


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """Evaluation during the training.

    Attributes:
        every: Steps between evaluations of the partition's test people; 0 for none.
        protocol: A protocol of `hstl_fast.evaluation`; None for the preset's.
        metric: "euclidean" or "cosine".
        max_frames: Longest sequence; None for whole sequences.
    """

    NAME: ClassVar[str] = "evaluation"

    every: int = 0
    protocol: str | None = None
    metric: str = "euclidean"
    max_frames: int | None = None


@dataclass(frozen=True)
class TrainingConfig(Section):
    """Everything that a training depends on.

    Attributes:
        output: Folder of the training: its checkpoints, its log, and this configuration. A training that was stopped
            goes on from the newest checkpoint there.
        seed: Seed of the initial weights, the batches and the random changes.
        data: The sequences to learn from.
        network: The network to train.
        batch: The batch of a step.
        loss: The losses.
        optimizer: The optimiser.
        schedule: Steps and learning rates.
        machine: Devices and number formats.
        saving: What is written.
        evaluation: Evaluation during the training.
    """

    output: str = ""
    seed: int = 2023
    data: DataConfig = field(default_factory=DataConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    saving: SavingConfig = field(default_factory=SavingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Sentences about values that have no effect together with others."""
        steps, found = self.schedule.steps, []
        unreached = [milestone for milestone in self.schedule.milestones if milestone >= steps]
        if unreached:
            found.append(
                f"schedule.milestones: {', '.join(map(str, unreached))} of {list(self.schedule.milestones)} "
                f"{'is' if len(unreached) == 1 else 'are'} not reached in schedule.steps={steps}"
            )
        if self.schedule.warmup >= steps:
            found.append(f"schedule.warmup: {self.schedule.warmup} steps do not end in schedule.steps={steps}")
        if self.evaluation.every > steps:
            found.append(f"evaluation.every: {self.evaluation.every} is not reached in schedule.steps={steps}")
        if self.network.new_classifier and self.network.start is None:
            found.append("network.new_classifier: has no effect without network.start")
        return tuple(found)

    @classmethod
    def from_preset(cls, name: str) -> TrainingConfig:
        """Make the configuration that a published network was trained with.

        `grew` is `oumvlp` with its own data, since none was released for it. The released trainings compute in
        float16; here that is `machine.precision`, float32 by default, since float16 is for GPUs.

        Args:
            name: "casia-b", "oumvlp", "grew" or "gait3d".

        Returns:
            The configuration, without data and output.

        Raises:
            ValueError: The name is unknown; the nearest one is named.
        """
        preset(name)
        if name == "casia-b":
            return cls()
        config = cls(
            network=NetworkConfig(preset=name),
            batch=BatchConfig(people=32),
            loss=LossConfig(smoothing=0.1),
            optimizer=OptimizerConfig("sgd", lr=0.1),
            schedule=ScheduleConfig(250_000, (150_000, 200_000)),
        )
        if name != "gait3d":
            return config
        return replace(
            config,
            batch=replace(config.batch, stretch=34),
            loss=replace(config.loss, scale=16.0),
            schedule=ScheduleConfig(210_000, (80_000, 150_000, 200_000)),
        )
