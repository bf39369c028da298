"""HSTL's operators in Triton, for GPUs. Memory and tables are torch's; nothing waits for the device.

A feature map is [frames, rows, columns, channels] in memory, `x` of [n, c, t, h, w] in `torch.channels_last_3d`.

Importing this package does not import Triton, and neither does its module `available`, which says whether the kernels
can run. The other modules import Triton or belong to those that do: outside this package nothing imports them, except
that the first call of an operator imports `operators`.
"""

from hstl_fast.backends.triton.available import why_not

__all__ = ["FINDS_POWER_GRADIENT", "FUSES_LEAKY_BACKWARD", "READS_OUTSIDE_SUPPORT", "WIDENS_MAPS", "why_not"]

# dgrad and wgrad multiply the gradients as they find them.
FUSES_LEAKY_BACKWARD = False
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True
