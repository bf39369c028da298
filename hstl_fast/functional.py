"""The operators of HSTL as functions; each chooses a backend, checks its arguments and is differentiable."""

from hstl_fast.ops._flops import register_with_counter
from hstl_fast.ops.arme import arme
from hstl_fast.ops.astp import astp, strip_pool
from hstl_fast.ops.fta import fta, fta_lengths

__all__ = ["arme", "astp", "fta", "fta_lengths", "strip_pool"]

register_with_counter()
