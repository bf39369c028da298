"""Description of all that the bits of a training depend on besides its configuration."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from hstl_fast.data.sequences import Sequences


def surroundings(sequences: Sequences, processes: int) -> dict[str, Any]:
    """Describe what a training is made of and computed by, as far as its configuration does not say so.

    Args:
        sequences: The sequences of the training people.
        processes: Number of processes that share a batch.

    Returns:
        Plain values by name, which a checkpoint holds; the same ones are needed to go on to the bit.
    """
    names = hashlib.sha256("\n".join(item.name for item in sequences.items).encode("utf-8", "surrogatepass"))
    return {
        "sequences": f"{len(sequences.items)} ({names.hexdigest()[:8]})",
        "processes": processes,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
