"""Data sets of silhouettes: their layouts on disk, partitions, packed files, and feeding a training."""

from hstl_fast.data.sequences import Item, Partition, Sequences

__all__ = ["Item", "Partition", "Sequences"]
