"""The optimiser and the learning rates of a training."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from hstl_fast.training.config import OptimizerConfig, ScheduleConfig


def make_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimiser over all parameters in one group, with weight decay on each of them.

    Args:
        config: The optimiser.
        parameters: The parameters; those without gradients stay as they are.

    Returns:
        The optimiser.
    """
    if config.name == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, config.lr, weight_decay=config.weight_decay)


def make_scheduler(config: ScheduleConfig, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Make the scheduler; the learning rate follows from the number of the step alone.

    Args:
        config: The learning rates.
        optimizer: The optimiser.

    Returns:
        The scheduler, at step 0.
    """
    return LambdaLR(optimizer, lambda step: factor_at(config, step))


def factor_at(config: ScheduleConfig, step: int) -> float:
    """Compute the factor of the learning rate.

    Args:
        config: The learning rates.
        step: Number of the step, from 0.

    Returns:
        The factor.
    """
    rising = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return rising * config.factor ** sum(step >= milestone for milestone in config.milestones)


def restore_rates(config: OptimizerConfig, optimizer: torch.optim.Optimizer, scheduler: LambdaLR) -> None:
    """Let an optimiser whose state was loaded compute by its configuration, not by the one that was stored.

    Args:
        config: The optimiser's configuration.
        optimizer: The optimiser.
        scheduler: Its scheduler, at the step to go on from.
    """
    scheduler.base_lrs = [config.lr]
    for group in optimizer.param_groups:
        group["initial_lr"] = config.lr
        group["lr"] = config.lr * scheduler.lr_lambdas[0](scheduler.last_epoch)
        group["weight_decay"] = config.weight_decay
        if "momentum" in group:
            group["momentum"] = config.momentum
