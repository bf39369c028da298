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
]
