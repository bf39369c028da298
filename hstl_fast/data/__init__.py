"""Data sets of silhouettes: their layouts on disk, partitions, packed files, and feeding a training."""

from hstl_fast.data.errors import DataError
from hstl_fast.data.found import check_nothing_left_out, describe, summarise, write_report
from hstl_fast.data.layouts import LAYOUTS
from hstl_fast.data.opening import open_sequences, open_together, with_partition
from hstl_fast.data.packed import Packed, open_packed
from hstl_fast.data.packing import Packing, pack
from hstl_fast.data.partitions import load_partition, part_of, published_partition
from hstl_fast.data.sequences import Item, Partition, Sequences
from hstl_fast.data.verifying import verify_packed

__all__ = [
    "LAYOUTS",
    "DataError",
    "Item",
    "Packed",
    "Packing",
    "Partition",
    "Sequences",
    "check_nothing_left_out",
    "describe",
    "load_partition",
    "open_packed",
    "open_sequences",
    "open_together",
    "pack",
    "part_of",
    "published_partition",
    "summarise",
    "verify_packed",
    "with_partition",
    "write_report",
]
