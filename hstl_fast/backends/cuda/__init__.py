"""HSTL's operators in CUDA C++, compiled from csrc/cuda into `hstl_fast._cuda`. Memory and tables are torch's.

A feature map is [frames, rows, columns, channels] in memory, `x` of [n, c, t, h, w] in `torch.channels_last_3d`.
Nothing waits for the device. `fta` has no kernels here: inside `use_backend("cuda")` Triton's compute it.
"""

import torch

from hstl_fast.backends.cuda import library

__all__ = [
    "FINDS_POWER_GRADIENT",
    "FUSES_INTO_DGRAD",
    "FUSES_LEAKY_BACKWARD",
    "OPERATORS",
    "POOLS_FOR_INFERENCE",
    "READS_OUTSIDE_SUPPORT",
    "WIDENS_MAPS",
    "why_not",
]

# The operators that this backend computes.
OPERATORS = ("arme", "astp")
# dgrad and wgrad multiply the gradients as they find them.
FUSES_LEAKY_BACKWARD = False
# dgrad also applies the derivative of the activation before it, and adds the frame maximum's gradient.
FUSES_INTO_DGRAD = True
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True
POOLS_FOR_INFERENCE = False


def why_not(operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why CUDA C++ cannot compute an operator.

    Args:
        operator: The operator's name.
        device: Where the tensors are.
        dtype: The input's type.

    Returns:
        A reason; None if CUDA C++ can compute the operator for tensors of this device and type.
    """
    if operator not in OPERATORS:
        return f"the cuda backend does not compute {operator}"
    if dtype == torch.float64:
        return "the cuda backend computes float16, bfloat16 and float32, not torch.float64"
    if device.type != library.device_type():
        return f"the cuda backend computes tensors on a GPU, not on {device.type}"
    if library.cuda() is None:
        return library.cuda_error()
    return library.why_not_this_gpu(device) if device.type == "cuda" else None
