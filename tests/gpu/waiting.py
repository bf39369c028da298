"""A count of the waits for the GPU that a computation imposes on its caller."""

import warnings
from collections.abc import Callable

import torch


def waits(call: Callable[[], object], device: torch.device) -> int:
    """The waits of a second call; the first may compile and allocate."""
    call()
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message).lower() for warning in caught)
