"""HSTL's operators in Triton, for GPUs. Memory and tables are torch's; nothing waits for the device.

A feature map is [frames, rows, columns, channels] in memory, `x` of [n, c, t, h, w] in `torch.channels_last_3d`.
Importing this package does not import Triton; `available` says whether its kernels can run.
"""

from hstl_fast.backends.triton.available import why_not

__all__ = ["FINDS_POWER_GRADIENT", "FUSES_LEAKY_BACKWARD", "READS_OUTSIDE_SUPPORT", "WIDENS_MAPS", "why_not"]

# The products multiply what they read as it is.
FUSES_LEAKY_BACKWARD = False
READS_OUTSIDE_SUPPORT = True
WIDENS_MAPS = False
FINDS_POWER_GRADIENT = True
