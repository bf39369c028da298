"""A packed data set of rendered walkers, a tiny network, and a configuration of a short training on them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hstl_fast.data import Partition, open_sequences, pack, with_partition
from hstl_fast.training import (
    BatchConfig,
    DataConfig,
    MachineConfig,
    NetworkConfig,
    OptimizerConfig,
    SavingConfig,
    ScheduleConfig,
    TrainingConfig,
)
from tests.helpers import datasets

Configure = Callable[..., TrainingConfig]
NETWORK = {"stem": [4], "stages": [{"split": [20, 12], "channels": [4]}], "pool": True, "strips": 4}
# The walkers of `datasets`: two learn, one is left for a test.
TRAIN, TEST = ("001", "002"), ("075",)


@pytest.fixture(scope="session")
def pack_of_walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    datasets.write_data_set("opengait", folder / "data")
    sequences = with_partition(open_sequences(folder / "data"), Partition(TRAIN, TEST))
    pack(sequences, folder / "walkers.arrow", workers=1)
    (folder / "network.json").write_text(json.dumps(NETWORK))
    return folder / "walkers.arrow"


@pytest.fixture
def configure(pack_of_walkers: Path, tmp_path: Path) -> Configure:
    """Make the configuration of a training of six steps; fields of sections are given as `section__field`."""
    base = TrainingConfig(
        output=str(tmp_path / "run"),
        data=DataConfig(str(pack_of_walkers), workers=0),
        network=NetworkConfig(file=str(pack_of_walkers.parent / "network.json")),
        batch=BatchConfig(people=2, sequences=2, frames=3, stretch=3),
        optimizer=OptimizerConfig(lr=1e-2),
        schedule=ScheduleConfig(steps=6, milestones=(4,)),
        machine=MachineConfig(accelerator="cpu", devices="1"),
        saving=SavingConfig(every=2, keep=3, log_every=2, tensorboard=False),
    )

    def made(**fields: Any) -> TrainingConfig:
        config = base
        for name, value in fields.items():
            section, _, field = name.partition("__")
            config = replace(
                config, **{section: replace(getattr(config, section), **{field: value}) if field else value}
            )
        return config

    return made
