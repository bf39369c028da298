"""Data sets of silhouettes: their layouts on disk, partitions, packed files, and feeding a training."""

from hstl_fast.data.errors import DataError
from hstl_fast.data.found import check_nothing_left_out, describe, summarise, write_report
from hstl_fast.data.layouts import LAYOUTS
from hstl_fast.data.opening import open_sequences, open_together, with_partition
from hstl_fast.data.partitions import load_partition, part_of, published_partition
from hstl_fast.data.sequences import Item, Partition, Sequences

__all__ = [
    "LAYOUTS",
    "DataError",
    "Item",
    "Partition",
    "Sequences",
    "check_nothing_left_out",
    "describe",
    "load_partition",
    "open_sequences",
    "open_together",
    "part_of",
    "published_partition",
    "summarise",
    "with_partition",
    "write_report",
]
