"""The native CPU backend: C++ with SIMD and OpenMP, compiled from csrc/cpu into `hstl_fast._cpu`."""

import torch

from hstl_fast.backends.cpu import library

# The operators that this backend computes.
OPERATORS = ("arme", "astp", "fta")
FUSES_LEAKY_BACKWARD = True
FUSES_INTO_DGRAD = False
READS_OUTSIDE_SUPPORT = False
WIDENS_MAPS = True
FINDS_POWER_GRADIENT = False
POOLS_FOR_INFERENCE = True


def wrong_setting() -> str | None:
    """Return why a variable of the environment keeps native code from running.

    Returns:
        A reason that begins with the variable's name; None if no variable does.
    """
    return library.wrong_setting()


def why_not(operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why native code cannot compute an operator.

    Args:
        operator: The operator's name.
        device: Where the tensors are.
        dtype: The input's type.

    Returns:
        A reason; None if native code can compute the operator for tensors of this device and type.
    """
    if operator not in OPERATORS:
        return f"the cpu backend does not compute {operator}"
    if device.type != "cpu":
        return f"the cpu backend computes tensors on the CPU, not on {device.type}"
    return None if library.cpu() is not None else library.cpu_error()
