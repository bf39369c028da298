"""Checkpoints of a training: everything that it needs to go on as if it had not stopped."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hstl_fast.checkpoints import Checkpoint, load_checkpoint
from hstl_fast.training.folder import checkpoints_in
from hstl_fast.training.watcher import TrainingError

# What `fit` stores under `training`.
_STORED = ("config", "classes", "generators", "scaler", "log", "watch")


class Found(NamedTuple):
    """A checkpoint to go on from.

    Attributes:
        path: The file.
        checkpoint: Its content.
    """

    path: Path
    checkpoint: Checkpoint


def newest(output: Path, notice: Callable[[str], None]) -> Path | None:
    """Find the newest checkpoint that can be read.

    Args:
        output: The folder of the training.
        notice: Called with a sentence for each one that cannot.

    Returns:
        The file, or None if there is no checkpoint.

    Raises:
        TrainingError: There are checkpoints, and none can be read.
    """
    paths = checkpoints_in(output)
    for path in paths:
        fault = _fault(path)
        if fault is None:
            return path
        notice(f"{fault}; the checkpoint before it is used")
    if paths:
        raise TrainingError(
            f"{paths[0].parent}: expected a checkpoint that can be read, got {len(paths)} that cannot; "
            "remove them to begin again"
        )
    return None


def read(path: Path) -> Found:
    """Read a checkpoint of a training.

    Args:
        path: The file.

    Returns:
        The checkpoint.

    Raises:
        TrainingError: It was not written by a training, or not all of the optimiser's state can be read.
    """
    checkpoint = load_checkpoint(path)
    if checkpoint.training is None or checkpoint.optimizer is None or checkpoint.scheduler is None:
        raise TrainingError(f"{path}: expected a checkpoint of a training, got one of a network alone")
    lacking = [name for name in _STORED if name not in checkpoint.training]
    if lacking:
        raise TrainingError(
            f"{path}: expected a checkpoint that `fit` wrote, got one whose training lacks {', '.join(lacking)}"
        )
    if checkpoint.not_carried:
        raise TrainingError(f"{path}: {'; '.join(checkpoint.not_carried)}")
    return Found(path, checkpoint)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the generators of random numbers for a while; those of the caller go on after it as if nothing had been.

    Args:
        seed: The seed.

    Yields:
        Nothing.
    """
    before = generators()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - the global one
    random.seed(seed)
    try:
        yield
    finally:
        restore_generators(before)


def generators() -> dict[str, Any]:
    """Describe the states of the generators of random numbers.

    Returns:
        Those of torch on the CPU and on each GPU, of NumPy and of Python, as tensors and plain numbers.
    """
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002 - the global one
    version, numbers, next_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.tensor(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": [version, torch.tensor(numbers, dtype=torch.int64), next_gauss],
    }


def restore_generators(states: Mapping[str, Any]) -> None:
    """Set the generators of random numbers.

    Args:
        states: What `generators` returned, here or in another process.
    """
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *others = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *others))  # noqa: NPY002
    version, numbers, next_gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), next_gauss))


def _fault(path: Path) -> str | None:
    """Why a checkpoint cannot be read; torch alone does not notice a byte that has changed."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            return f"{path}: {damaged} in it is damaged"
        load_checkpoint(path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return str(error) if str(path) in str(error) else f"{path}: {error}"
    return None
