"""The configuration of a training: the values of its fields are checked, and it goes to plain values and back."""

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from hstl_fast import PRESETS
from hstl_fast.data import Augmentation
from hstl_fast.training import (
    BatchConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    OptimizerConfig,
    SavingConfig,
    ScheduleConfig,
    TrainingConfig,
    config_dict,
    config_from_dict,
)
from hstl_fast.training.checks import CHECKS
from hstl_fast.training.plain import all_fields

WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: TrainingConfig(seed=-1), "seed: expected a whole number in 0..9223372036854775807; got -1"),
    (lambda: BatchConfig(people=1), "batch.people: expected a whole number of at least 2; got 1"),
    (lambda: BatchConfig(people=8.5), "batch.people: expected a whole number, got 8.5"),
    (lambda: BatchConfig(people=True), "batch.people: expected a whole number, got True"),
    (lambda: BatchConfig(frames=31), "batch.stretch: expected at least as many as batch.frames (31); got 30"),
    (lambda: LossConfig(margin=float("nan")), "loss.margin: expected a finite number, got nan"),
    (lambda: LossConfig(smoothing=1), "loss.smoothing: expected a number of at least 0 and below 1; got 1"),
    (lambda: LossConfig(triplet=0, cross_entropy=0), "loss.triplet: expected a weight above 0 here or in"),
    (lambda: OptimizerConfig("adm"), "optimizer.name: expected one of adam, sgd; got 'adm'; did you mean 'adam'?"),
    (lambda: OptimizerConfig(lr="0.1"), "optimizer.lr: expected a finite number, got '0.1'"),
    (lambda: ScheduleConfig(milestones="70k"), "schedule.milestones: expected a list of whole numbers, got '70k'"),
    (lambda: ScheduleConfig(milestones=(5, 5)), "schedule.milestones: expected steps of at least 1 in increasing"),
    (lambda: MachineConfig(devices="all"), "machine.devices: expected auto, a number of devices, or their indices"),
    (lambda: MachineConfig(precision="fp16"), "machine.precision: expected one of float32, bfloat16, float16"),
    (lambda: MachineConfig(compile=1), "machine.compile: expected true or false, got 1"),
    (lambda: SavingConfig(keep=0), "saving.keep: expected a whole number of at least 1; got 0"),
    (lambda: EvaluationConfig(protocol="grew"), "evaluation.protocol: expected one of casia-b, oumvlp, gait3d, grew-v"),
    (lambda: EvaluationConfig(max_frames=0), "evaluation.max_frames: expected a whole number of at least 1; got 0"),
    (lambda: DataConfig(layout="casiab"), "got 'casiab'; did you mean 'casia-b'?"),
    (
        lambda: DataConfig(augmentation={"flip": 1}),
        "data.augmentation: expected an object of Augmentation, got fields by name",
    ),
    (lambda: TrainingConfig(batch=None), "batch: expected an object of BatchConfig, got null"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message.partition(":")[0] for _, message in WRONG])
def test_a_wrong_value_is_refused_when_it_is_given(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


def test_every_check_is_of_a_field() -> None:
    assert set(CHECKS) <= {field.path for field in all_fields()}


def test_values_become_plain() -> None:
    assert type(OptimizerConfig(lr=np.float32(0.5)).lr) is float
    assert type(BatchConfig(people=np.int64(4)).people) is int
    assert ScheduleConfig(milestones=[1, np.int32(2)]).milestones == (1, 2)
    assert DataConfig(path=Path("a") / "b").path == str(Path("a") / "b")
    assert MachineConfig(devices=2).devices == "2"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        BatchConfig().people = 4


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_goes_to_plain_values_and_back(preset: str) -> None:
    config = TrainingConfig.from_preset(preset)
    assert config_from_dict(json.loads(json.dumps(config_dict(config)))) == config


def test_fields_that_are_missing_have_their_defaults() -> None:
    config = config_from_dict({"batch": {"people": 4}, "loss": None, "data": {"augmentation": {"flip": 1}}})
    expected = TrainingConfig(batch=BatchConfig(people=4), data=DataConfig(augmentation=Augmentation(flip=1)))
    assert config == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"batch": {"peple": 3}}, "batch.peple: expected a field of the configuration, got none of that name; "),
        ({"batch": {"peple": 3}}, "did you mean 'batch.people'?"),
        ({"lr": 3}, "did you mean 'optimizer.lr'?"),
        ({"optimizer": {"people": 3}}, "did you mean 'batch.people'?"),
        ({"shedule": {"steps": 3}}, "did you mean 'schedule'?"),
        ({"milestone": 3}, "did you mean 'schedule.milestones'?"),
        ({"bach": {}}, "did you mean 'batch"),
        ({"batch": 3}, "batch: expected fields by name, got 3"),
        ({"data": {"augmentation": {"flip": 3}}}, "data.augmentation.flip: expected a number in 0..1; got 3"),
        ({1: 2}, "1: expected a field of the configuration"),
        ({"seed": {"a": 1}}, "seed: expected a whole number, got fields by name (a)"),
    ],
)
def test_what_a_file_must_not_hold(content: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        config_from_dict(content, "c.pt")
    assert str(error.value).startswith("c.pt: ")
    assert message in str(error.value)


def test_values_without_effect_are_remarked() -> None:
    assert TrainingConfig().remarks == ()
    schedule, network = (
        ScheduleConfig(steps=100, milestones=(50, 100, 200), warmup=100),
        NetworkConfig(new_classifier=True),
    )
    config = TrainingConfig(schedule=schedule, network=network, evaluation=EvaluationConfig(every=101))
    assert config.remarks == (
        "schedule.milestones: 100, 200 of [50, 100, 200] are not reached in schedule.steps=100",
        "schedule.warmup: 100 steps do not end in schedule.steps=100",
        "evaluation.every: 101 is not reached in schedule.steps=100",
        "network.new_classifier: has no effect without network.start",
    )
