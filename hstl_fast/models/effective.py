"""The tensors that a model computes with, under the names of an untouched one.

A parametrisation, a pruning or a weight norm keeps other tensors in their place, and a sharded model keeps parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from hstl_fast._torch_private import hooks_of, pruned_by
from hstl_fast.models.prefixes import unwrapped_name
from hstl_fast.models.released import listed


@torch.no_grad()
def effective_tensors(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Compute the tensors that a model computes with in evaluation.

    Parametrisations, prunings, weight and spectral norms are folded into the tensor they compute. Of a model that
    `fully_shard` has sharded, whole tensors are gathered: all its processes have to call this alike.

    Args:
        model: The model.
        names: The names of all its tensors, without those of wrappers and parametrisations.

    Returns:
        The tensors by name; some share memory with the model.

    Raises:
        ValueError: A tensor is missing, or the model has others; the message names them.
    """
    names = list(dict.fromkeys(names))
    state = {unwrapped_name(name): value for name, value in model.state_dict().items()}
    modules = {unwrapped_name(name + ".")[:-1]: module for name, module in model.named_modules()}
    found: dict[str, Tensor] = {}
    others = set(state) - set(names)
    for name in names:
        owner, _, attribute = name.rpartition(".")
        value, sources = _folded(modules.get(owner), attribute)
        value = state.get(name, value)
        if value is not None:
            found[name] = whole(value)
            others -= {other for other in others if other.removeprefix(f"{owner}.").startswith(sources)}
    if lacking := [name for name in names if name not in found]:
        instead = f" and has {listed(sorted(others))}" if others else ""
        raise ValueError(
            f"the model must have all tensors of the released network, it lacks {listed(lacking)}{instead}"
        )
    if others:
        raise ValueError(
            f"the model must have the tensors of the released network only, it also has {listed(sorted(others))}; "
            "what they do has to be merged into the others first"
        )
    return found


def whole(value: Tensor) -> Tensor:
    """Gather a tensor whose parts several processes hold; all of them have to call this alike.

    Args:
        value: Any tensor.

    Returns:
        The whole tensor; `value` itself if it is no `DTensor`.
    """
    gather = getattr(value, "full_tensor", None)  # a DTensor's; torch.distributed need not be there
    return value if gather is None else gather()


def _folded(module: nn.Module | None, attribute: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """Compute a tensor that is no parameter of its module but made of others.

    Returns:
        The tensor, None if nothing makes it, and what the names of those in the module begin with.
    """
    if module is None:
        return None, ()
    if parametrize.is_parametrized(module, attribute):
        with _in_evaluation(module):
            return getattr(module, attribute), (f"parametrizations.{attribute}.",)
    for hook in hooks_of(module):
        compute = _computation(hook, attribute)
        if compute is not None:
            return compute(module), tuple(f"{attribute}_{part}" for part in ("orig", "mask", "g", "v", "u"))
    return None, ()


def _computation(hook: Any, attribute: str) -> Any:
    if isinstance(hook, BasePruningMethod) and pruned_by(hook) == attribute:
        return hook.apply_mask
    if isinstance(hook, (WeightNorm, SpectralNorm)) and hook.name == attribute:
        if isinstance(hook, WeightNorm):
            return hook.compute_weight
        return lambda module: hook.compute_weight(module, do_power_iteration=False)
    return None


@contextmanager
def _in_evaluation(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, so that parametrisations neither draw nor learn when they are read."""
    modes = {each: each.training for each in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for each, training in modes.items():
            each.training = training
