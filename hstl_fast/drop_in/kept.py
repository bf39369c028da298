"""Weights of one region as `hstl_fast.functional.arme` takes them: the same tensor at every call in evaluation.

The native backend keeps weights that it has laid out for as long as their tensor object lives.
"""

import weakref
from typing import NamedTuple

import torch
from torch import Tensor

from hstl_fast._torch_private import is_fake, is_tracing, is_under_dispatch_mode, under_transforms
from hstl_fast.ops.arme import wants_gradient


class _Kept(NamedTuple):
    owner: weakref.ref[Tensor]
    view: Tensor


_kept: dict[int, _Kept] = {}


def one_region(weight: Tensor) -> Tensor:
    """Return weights as those of one region.

    Args:
        weight: `[c_out, c_in, 3, 3, 3]`.

    Returns:
        A view `[1, c_out, c_in, 3, 3, 3]`; without gradients, the one that an earlier call returned for this tensor.
    """
    if torch.compiler.is_compiling() or wants_gradient(weight) or _is_watched(weight):
        return weight.unsqueeze(0)
    kept = _kept.get(id(weight))
    if kept is not None and kept.owner() is weight and _is_view(kept.view, weight):
        return kept.view
    view = weight.detach().unsqueeze(0)
    key = id(weight)
    _kept[key] = _Kept(weakref.ref(weight, lambda _, kept=_kept: kept.pop(key, None)), view)  # type: ignore[misc]
    return view


def _is_watched(weight: Tensor) -> bool:
    """Return whether something follows tensors, or the tensor holds no values."""
    return is_tracing() or under_transforms() or is_under_dispatch_mode() or is_fake(weight)


def _is_view(view: Tensor, weight: Tensor) -> bool:
    """Return whether the view still is one of this weight: `weight.data` may have been replaced."""
    return (
        view.data_ptr() == weight.data_ptr()
        and view.dtype == weight.dtype
        and view.shape[1:] == weight.shape
        and view.stride()[1:] == weight.stride()
        and view.is_inference() == weight.is_inference()
    )
