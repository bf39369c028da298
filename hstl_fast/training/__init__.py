"""Training of HSTL networks. Needs the extra `[train]`."""

from hstl_fast.training.config import (
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
)
from hstl_fast.training.plain import config_dict, config_from_dict
from hstl_fast.training.yaml_files import load_config, to_yaml

__all__ = [
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
    "config_dict",
    "config_from_dict",
    "load_config",
    "to_yaml",
]
