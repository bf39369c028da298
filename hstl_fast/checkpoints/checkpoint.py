"""Reading and writing of checkpoints in the released form, with the state of their optimiser.

A released `.pt` file is a dict with `model`, `optimizer`, `scheduler` and `iteration`. Ours also hold `network`, the
fields of the `HSTLConfig`, since a network need not be a published one, and `training`, what a training goes on from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hstl_fast.checkpoints.optimizer_state import (
    load_optimizer_state,
    official_optimizer_state,
    own_optimizer_state,
)
from hstl_fast.checkpoints.plain import plain
from hstl_fast.checkpoints.wrappers import once, unwrapped
from hstl_fast.checkpoints.writing import write
from hstl_fast.models import HSTL
from hstl_fast.models.recognition import has_own_names, model_in
from hstl_fast.models.released import listed
from hstl_fast.models.released_files import read


@dataclass
class Checkpoint:
    """The content of a released checkpoint.

    Attributes:
        model: The network with the stored weights.
        optimizer: A state for the same optimiser over `model.parameters()`; None if there was none or it was malformed.
        scheduler: The scheduler's state as stored, or None.
        iteration: The number of training steps.
        training: What a training has stored beside the network to go on from here, or None.
        not_carried: A sentence for everything in the file that has no place here.
    """

    model: HSTL
    optimizer: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    iteration: int = 0
    training: dict[str, Any] | None = None
    not_carried: list[str] = field(default_factory=list)


def load_checkpoint(path: str | os.PathLike[str], preset: str | None = None) -> Checkpoint:
    """Read a checkpoint without running any code from it.

    Args:
        path: The file, as `HSTL.from_official_checkpoint` takes it.
        preset: The published network that it holds. None takes what the file says, or else finds it from the tensors'
            shapes; `grew` has the shape of `oumvlp` and must be named. The number of identities is always found.

    Returns:
        The model, and what else the file holds.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is truncated, holds pickled code, is another network's checkpoint or lacks keys.
    """
    content = read(path)
    found = Checkpoint(model_in(content, path, preset, HSTL), iteration=content.iteration)
    if content.optimizer is not None:
        load = own_optimizer_state if has_own_names(content.model) else load_optimizer_state
        found.optimizer, found.not_carried = load(content.optimizer, found.model)
    for name in ("scheduler", "training"):
        value = getattr(content, name)
        if value is None or isinstance(value, dict):
            setattr(found, name, value)
        else:
            found.not_carried.append(f"{name}: must be a dict, got {type(value).__name__}")
    if content.others:
        found.not_carried.append(f"no place here for {listed(content.others)}")
    return found


def save_checkpoint(
    path: str | os.PathLike[str],
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    iteration: int = 0,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in the released form, whole and readable or not at all.

    Whatever happens while it is written, a full disk, the end of the process, a loss of power, an earlier file at
    `path` stays until the new one is complete, on the disk, and has been opened as it will be read.

    Numbers of NumPy and torch, paths, enumerations and ordered dicts become plain ones. A network in
    `DistributedDataParallel`, `DataParallel`, `AveragedModel`, `torch.compile` or Lightning Fabric's module is
    unwrapped; parametrised, pruned and normed weights are folded. Of one under `fully_shard`, whole tensors are
    gathered: all its processes call this alike, and the first one writes. Otherwise one process should call it.

    Args:
        path: The file.
        model: The network, an `HSTL`, alone or wrapped.
        optimizer: An optimiser over `model.parameters()`, or its `state_dict()`. One with several groups, or with some
            of the parameters only, has to be given itself, or to be made of `model.named_parameters()`.
        scheduler: The scheduler's `state_dict()`.
        iteration: The number of training steps.
        training: What a training needs besides to go on from here: numbers, texts, tensors, and lists, tuples and dicts
            of them.

    Raises:
        OSError: The file cannot be written; where the disk is full, the message says how much space it takes.
        ProcessError: The first process of a sharded model could not write it.
        TypeError: `model` holds no `HSTL` where one is looked for.
        ValueError: A value cannot be stored, the model has other tensors than the released network, or the optimiser
            has no counterpart over its parameters; the message names it, and nothing has been written.
    """
    network = unwrapped(model)
    content = {
        "model": network.official_state_dict(),
        "optimizer": None if optimizer is None else official_optimizer_state(optimizer, network),
        "scheduler": scheduler,
        "iteration": iteration,
        "network": network.config.to_dict(),
        "training": training,
    }
    stored = {name: plain(value, name) for name, value in content.items()}
    once(network, lambda: write(Path(path), stored))
