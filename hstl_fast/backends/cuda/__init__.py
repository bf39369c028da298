"""CUDA C++ kernels: a name that is reserved, so that asking for it says why it cannot run yet."""

import torch

FUSES_LEAKY_BACKWARD = False
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True


def why_not(operator: str, device_type: str, dtype: torch.dtype) -> str:
    """Return why CUDA C++ cannot compute an operator.

    Args:
        operator: The operator's name.
        device_type: "cpu", "cuda" or another.
        dtype: The input's type.

    Returns:
        The reason, which is the same for all of them.
    """
    return "this version of hstl_fast has no cuda kernels"
