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
from hstl_fast.training.evaluating import check_evaluation, describe_evaluation, evaluate_model
from hstl_fast.training.fitting import fit
from hstl_fast.training.plain import config_dict, config_from_dict
from hstl_fast.training.watcher import Status, TrainingError, TrainingStopped, TrainingWarning, Watcher
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
    "Status",
    "TrainingConfig",
    "TrainingError",
    "TrainingStopped",
    "TrainingWarning",
    "Watcher",
    "check_evaluation",
    "config_dict",
    "config_from_dict",
    "describe_evaluation",
    "evaluate_model",
    "fit",
    "load_config",
    "to_yaml",
]
