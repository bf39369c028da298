"""CUDA C++ kernels: a name that is reserved, so that asking for it says why it cannot run yet."""

import torch

FUSES_LEAKY_BACKWARD = False
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """Why CUDA C++ cannot compute tensors of this device and type."""
    return "this version of hstl_fast has no cuda kernels"
