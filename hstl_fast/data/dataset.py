"""Data sets and loaders for `torch.utils.data`: training batches of windows, ragged batches for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from hstl_fast.data.augmentation import Augmentation
from hstl_fast.data.sampling import IdentityBalancedSampler, Pick, ragged_batches
from hstl_fast.data.sequences import Sequences
from hstl_fast.data.windows import Window, check_window, choose_frames
from hstl_fast.models.config import COLUMNS, ROWS, SIDE

# The columns of a 64 x 64 silhouette that the network sees.
_SEEN = slice(SIDE, SIDE + COLUMNS)


class TrainingBatch(NamedTuple):
    """Windows of sequences.

    Attributes:
        silhouettes: `[n, frames, 64, 44]` uint8.
        targets: The person of each sequence as a number, int64 `[n]`; `TrainingData.classes` names it.
        indices: Numbers of the sequences in their data set, int64 `[n]`.
    """

    silhouettes: Tensor
    targets: Tensor
    indices: Tensor


class RaggedBatch(NamedTuple):
    """Whole sequences of different lengths, as `HSTL.forward` takes them.

    Attributes:
        silhouettes: The sequences one after another, `[1, sum(seq_lens), 64, 44]` uint8.
        seq_lens: Frames of each.
        indices: Numbers of the sequences in their data set.
    """

    silhouettes: Tensor
    seq_lens: list[int]
    indices: list[int]


class TrainingData(Dataset[TrainingBatch]):
    """Windows of the sequences of a training.

    What an item holds follows from its pick alone, in whichever process it is made.

    Args:
        sequences: The data set.
        window: The frames of each use of a sequence.
        augmentation: Random changes; None for none.

    Raises:
        ValueError: The window has no frames, or more of them than its stretch.
    """

    def __init__(self, sequences: Sequences, window: Window, augmentation: Augmentation | None = None) -> None:
        check_window(window)
        labels = sequences.labels
        self.sequences, self.window, self.augmentation = sequences, window, augmentation
        self.classes = tuple(sorted(set(labels)))
        number = {label: i for i, label in enumerate(self.classes)}
        self.targets = np.array([number[label] for label in labels], np.int64)

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, pick: Pick) -> TrainingBatch:
        """Make a batch of one window."""
        return self.__getitems__([pick])

    def __getitems__(self, picks: list[Pick]) -> TrainingBatch:
        """Make a batch of a window for each pick."""
        silhouettes = _shared_memory(len(picks), self.window.frames)
        for target, pick in zip(silhouettes, picks):
            self._read(pick, target)
        indices = np.array([pick.sequence for pick in picks], np.int64)
        return TrainingBatch(silhouettes, torch.from_numpy(self.targets[indices]), torch.from_numpy(indices))

    def _read(self, pick: Pick, target: Tensor) -> None:
        generator = pick.generator()
        if self.sequences.knows_lengths:
            frames = choose_frames(self.sequences.num_frames(pick.sequence), self.window, generator)
            chosen = self.sequences.read_frames(pick.sequence, frames)
        else:
            clip = self.sequences.read(pick.sequence)
            chosen = clip[choose_frames(len(clip), self.window, generator)]
        target.numpy()[...] = chosen[..., _SEEN]
        if self.augmentation is not None:
            target.copy_(self.augmentation(target, generator))


class EvaluationData(Dataset[RaggedBatch]):
    """Whole sequences.

    Args:
        sequences: The data set.
        max_frames: Longest sequence, 1 or more; of a longer one the first frames are taken. None takes all.

    Raises:
        ValueError: `max_frames` is below 1.
    """

    def __init__(self, sequences: Sequences, max_frames: int | None = None) -> None:
        if max_frames is not None and max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, or None for all; got {max_frames}")
        self.sequences, self.max_frames = sequences, max_frames

    def __len__(self) -> int:
        return len(self.sequences)

    def __getitem__(self, index: int) -> RaggedBatch:
        """Make a batch of one sequence."""
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> RaggedBatch:
        """Make a ragged batch of some sequences."""
        clips = [self.sequences.read(index)[: self.max_frames, :, _SEEN] for index in indices]
        lengths = [len(clip) for clip in clips]
        silhouettes = _shared_memory(1, sum(lengths))
        np.concatenate(clips, out=silhouettes[0].numpy())
        return RaggedBatch(silhouettes, lengths, list(indices))


@dataclass(frozen=True)
class Workers:
    """Processes that read for a loader.

    Attributes:
        count: How many; 0 reads in this process.
        start: How they start, `fork`, `spawn` or `forkserver`; None for Python's default.
        pin_memory: Whether batches are put into memory from which a GPU copies fast.
    """

    count: int = 2
    start: str | None = None
    pin_memory: bool = False


def training_loader(
    data: TrainingData, sampler: IdentityBalancedSampler, workers: Workers | None = None
) -> DataLoader[TrainingBatch]:
    """Load the batches of a training.

    Args:
        data: The windows.
        sampler: The batches of this process.
        workers: Processes that read; None for two.

    Returns:
        A loader of `TrainingBatch`; the same batches whatever the workers are.
    """
    return DataLoader(data, batch_sampler=sampler, **_options(workers))


def evaluation_loader(
    data: EvaluationData, batches: Sequence[list[int]] | None = None, workers: Workers | None = None
) -> DataLoader[RaggedBatch]:
    """Load ragged batches of whole sequences.

    Args:
        data: The sequences.
        batches: Numbers of the sequences of each batch; None for `ragged_batches` of at most 720 frames.
        workers: Processes that read; None for two.

    Returns:
        A loader of `RaggedBatch`.
    """
    if batches is None:
        lengths = [data.sequences.num_frames(i) for i in range(len(data))]
        batches = ragged_batches([min(t, data.max_frames or t) for t in lengths], max_frames=720)
    return DataLoader(data, batch_sampler=batches, **_options(workers))


def _options(workers: Workers | None) -> dict[str, Any]:
    chosen = workers or Workers()
    started = {"multiprocessing_context": chosen.start, "persistent_workers": True} if chosen.count else {}
    return {"num_workers": chosen.count, "pin_memory": chosen.pin_memory, "collate_fn": _unchanged, **started}


def _unchanged(batch: Any) -> Any:
    """The batch, which is made in one piece; a function with a name, since workers that are spawned import it."""
    return batch


def _shared_memory(*shape: int) -> Tensor:
    """Uninitialised silhouettes `[*shape, 64, 44]`; in a worker in memory that the main process sees without a copy."""
    silhouettes = torch.empty(*shape, ROWS, COLUMNS, dtype=torch.uint8)
    return silhouettes if get_worker_info() is None else silhouettes.share_memory_()
