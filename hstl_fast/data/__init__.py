"""Data sets of silhouettes: their layouts on disk, partitions, packed files, and feeding a training."""

from hstl_fast.data.augmentation import Augmentation
from hstl_fast.data.dataset import (
    EvaluationData,
    RaggedBatch,
    TrainingBatch,
    TrainingData,
    Workers,
    evaluation_loader,
    training_loader,
)
from hstl_fast.data.sampling import IdentityBalancedSampler, Pick, ragged_batches
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.data.windows import WINDOWS, Window, choose_frames

__all__ = [
    "WINDOWS",
    "Augmentation",
    "EvaluationData",
    "IdentityBalancedSampler",
    "Item",
    "Partition",
    "Pick",
    "RaggedBatch",
    "Sequences",
    "TrainingBatch",
    "TrainingData",
    "Window",
    "Workers",
    "choose_frames",
    "evaluation_loader",
    "ragged_batches",
    "training_loader",
]
