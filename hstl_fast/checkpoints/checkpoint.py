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

from hstl_fast.checkpoints.optimizer_state import load_optimizer_state, official_optimizer_state
from hstl_fast.files import atomic_file
from hstl_fast.models import HSTL
from hstl_fast.models.released import model_in, read


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
    """Read a released checkpoint without running any code from it.

    Args:
        path: The file.
        preset: The published network that it holds. None finds it from the tensors' shapes; `grew` has the shape of
            `oumvlp` and must be named. The number of identities is always found.

    Returns:
        The model, and what else the file holds.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is truncated, holds pickled code, is another network's checkpoint or lacks keys.
    """
    content = read(path)
    model = model_in(content, path, preset, HSTL)
    found = Checkpoint(model, scheduler=content.get("scheduler"), training=content.get("training"))
    if isinstance(content.get("iteration"), int):
        found.iteration = content["iteration"]
    if content.get("optimizer") is not None:
        found.optimizer, found.not_carried = load_optimizer_state(content["optimizer"], model)
    return found


def save_checkpoint(
    path: str | os.PathLike[str],
    model: HSTL,
    optimizer: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    iteration: int = 0,
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint in the released form, whole or not at all.

    Args:
        path: The file.
        model: The network.
        optimizer: The `state_dict()` of an optimiser over `model.parameters()`.
        scheduler: The scheduler's `state_dict()`.
        iteration: The number of training steps.
        training: What a training needs besides to go on from here: plain numbers, texts, lists, dicts and tensors.

    Raises:
        OSError: The file cannot be written.
        ValueError: The optimiser has no counterpart over the released network's parameters.
    """
    content = {
        "model": model.official_state_dict(),
        "optimizer": None if optimizer is None else official_optimizer_state(optimizer, model),
        "scheduler": None if scheduler is None else dict(scheduler),
        "iteration": iteration,
        "network": model.config.to_dict(),
        "training": None if training is None else dict(training),
    }
    with atomic_file(Path(path)) as draft:
        torch.save(content, draft)
