"""HSTL's operators in Triton, for GPUs. Memory and tables are torch's; nothing waits for the device.

A feature map is [frames, rows, columns, channels] in memory, `x` of [n, c, t, h, w] in `torch.channels_last_3d`.

Importing this package does not import Triton, and neither does its module `available`, which says whether the kernels
can run. The other modules import Triton or serve those that do. Outside this package nothing imports them: the first
call of an operator imports `operators`, and the functions below import what they need.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from hstl_fast.backends.triton import available

if TYPE_CHECKING:
    from hstl_fast.backends.triton.tuning import Gemm, Measured

__all__ = [
    "FINDS_POWER_GRADIENT",
    "FUSES_INTO_DGRAD",
    "FUSES_LEAKY_BACKWARD",
    "OPERATORS",
    "POOLS_FOR_INFERENCE",
    "READS_OUTSIDE_SUPPORT",
    "WIDENS_MAPS",
    "tune",
    "why_not",
]

# The operators that this backend computes.
OPERATORS = ("arme", "astp", "fta")
# dgrad and wgrad multiply the gradients as they find them.
FUSES_LEAKY_BACKWARD = False
FUSES_INTO_DGRAD = False
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True
POOLS_FOR_INFERENCE = False


def why_not(operator: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why Triton cannot compute an operator.

    Args:
        operator: The operator's name.
        device: Where the tensors are.
        dtype: The input's type.

    Returns:
        A reason; None if Triton can compute the operator for tensors of this device and type.
    """
    if operator not in OPERATORS:
        return f"the triton backend does not compute {operator}"
    return available.why_not(device, dtype)


def tune(
    convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]],
    dtypes: Iterable[torch.dtype],
    say: Callable[["Gemm", torch.dtype, "Measured"], None],
    path: Path | None,
) -> Path:
    """Measure the tiles of these convolutions' GEMMs on the current GPU.

    Args:
        convolutions: The layers, as `HSTLConfig.convolutions` lists them.
        dtypes: The types to measure in.
        say: Is called with each GEMM as soon as its fastest tile is in the file.
        path: The file to write; None for the user's own.

    Returns:
        The file that was written.
    """
    from hstl_fast.backends.triton import tiles, tuning

    path, gemms = path or tiles.own_file(), tuning.gemms(convolutions)
    for dtype in dtypes:
        for gemm in gemms:
            found = tuning.measure(gemm, torch.device("cuda"), dtype)
            tiles.write(path, {found.key: found.best})
            say(gemm, dtype, found)
    return path
