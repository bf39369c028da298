"""Checksums of tensors' values, by which a change is noticed however it was made."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hstl_fast.backends.cpu import library


def checksums(tensors: Sequence[Tensor]) -> list[bytes]:
    """Compute a checksum of the bytes of each tensor.

    Two tensors of one size that differ within 4 bytes, in the place of two such words of a page, or in two signs of a
    page have different checksums; others that differ have equal ones with probability 2^-64.

    Args:
        tensors: Contiguous tensors on the CPU, not lazily negated.

    Returns:
        16 bytes for each; the same for any number of threads.
    """
    digests = torch.empty((len(tensors), 2), dtype=torch.int64, device="cpu")
    addresses, sizes = [t.data_ptr() for t in tensors], [t.nbytes for t in tensors]
    library.require_cpu().checksum(digests.data_ptr(), addresses, sizes, torch.get_num_threads())
    return [digest.numpy().tobytes() for digest in digests]
