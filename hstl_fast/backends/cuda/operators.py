"""The private operators on the cuda backend."""

from hstl_fast.backends import gpu_operators
from hstl_fast.backends.cuda import arme, astp, elementwise, support

gpu_operators.register(gpu_operators.Kernels("cuda", arme, astp, elementwise, support))
