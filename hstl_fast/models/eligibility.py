"""May a shortcut be taken? Every such question of a network, but that of execution plans (plan_state.py).

The way that always works is eager: the layers are called one after another. Each shortcut stands for some of these
calls and must not be noticed: no hook is passed over, no foreign layer ignored, and a mode or tracer that follows what
is computed sees every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from hstl_fast import environment
from hstl_fast._torch_private import (
    constant_when_compiled,
    has_global_hooks,
    is_tracing,
    is_under_dispatch_mode,
    is_under_function_mode,
    under_transforms,
)
from hstl_fast._untouched import is_untouched, remember_forwards
from hstl_fast.backends import ON_GPUS
from hstl_fast.models.config import HSTLConfig
from hstl_fast.nn import ARME, ASTP, FTA, Layer, SeparateFCs, StripPool
from hstl_fast.ops import _dispatch
from hstl_fast.ops._library import dtype_under_autocast

remember_forwards(ARME, ASTP, FTA, StripPool, SeparateFCs)


class Network(Protocol):
    """The modules of an `HSTL`."""

    config: HSTLConfig
    stem: nn.ModuleList
    stages: nn.ModuleList
    pools: nn.ModuleList
    fta: FTA
    strips: StripPool
    parts: SeparateFCs
    norm: nn.BatchNorm1d  # or a norm that a user has put in its place


def backend_with_support(model: Network) -> str:
    """Return the backend that computes a network with the supports of its maps.

    Only untouched layers of our own read a support, vmap cannot follow it, and the backend must compute every operator.

    Args:
        model: The network.

    Returns:
        The backend's name; "reference" if the network is to be computed without supports.
    """
    if under_transforms() or not is_made_of_own_layers(model):
        return "reference"
    weight = model.parts.weight
    return _dispatch.choose_for_network(weight.device, weight.dtype)


@constant_when_compiled
def is_made_of_own_layers(model: Network) -> bool:
    """Whether every layer is ours and untouched: no hook looks at or changes its inputs and outputs."""
    return not has_global_hooks() and all(is_untouched(layer, kind) for layer, kind in own_layers(model))


def own_layers(model: Network) -> list[tuple[nn.Module, type[Layer]]]:
    """The places where our layers are expected, and which."""
    layers = [*model.stem, *(layer for stage in model.stages for layer in stage.children())]
    own: list[tuple[nn.Module, type[Layer]]] = [(layer, ARME) for layer in layers]
    own += [(pool, ASTP) for pool in model.pools]
    return [*own, (model.fta, FTA), (model.strips, StripPool)]


def is_watched() -> bool:
    """Whether a compiler, tracer, mode or debug switch follows or checks what is computed."""
    return torch.compiler.is_compiling() or is_tracing() or is_under_dispatch_mode() or is_debugging()


@constant_when_compiled
def is_debugging() -> bool:
    """Return whether HSTL_FAST_DEBUG asks for checks that cost time."""
    return environment.debug()


def may_own_gradients() -> bool:
    """Whether the maps that a network hands from layer to layer, and their gradients, are seen by its layers alone.

    The layers are known to be our own, untouched ones. Only a mode could still get hold of a map.
    """
    return torch.is_grad_enabled() and not is_watched() and not is_under_function_mode() and not under_transforms()


def may_replay(
    model: Network, clips: list[Tensor], device_type: str, is_capturing: Callable[[torch.device], bool]
) -> bool:
    """Whether a CUDA graph may stand for the network: all its kernels read static tables, and no mode follows them."""
    device = model.parts.weight.device
    if device.type != device_type or is_watched() or is_capturing(device):
        return False
    if any(clip.dtype != torch.uint8 or type(clip) is not Tensor for clip in clips):
        return False
    if {clip.device for clip in clips} not in ({device}, {torch.device("cpu")}):
        return False
    untouched = is_untouched(model.parts, SeparateFCs) and has_plain_norm(model)
    return untouched and backend_with_support(model) in ON_GPUS and set(backends_of_layers(model)) <= set(ON_GPUS)


def backends_of_layers(model: Network) -> tuple[str, ...]:
    """The backends that compute the layers, all of them our own, in the order of `own_layers`."""
    weight = model.parts.weight
    dtype = dtype_under_autocast(weight)
    asked = [_operator_of(layer, weight.shape[1]) for layer, _ in own_layers(model)]
    return tuple(_dispatch.choose(name, weight.device, dtype, None, widths=widths) for name, widths in asked)


def _operator_of(layer: nn.Module, channels: int) -> tuple[str, tuple[int, ...]]:
    """The operator that a layer computes, and its widths, as `_dispatch.choose` takes them."""
    if isinstance(layer, ARME):
        return "arme", (layer.weight.shape[2], layer.weight.shape[1])
    if isinstance(layer, FTA):
        return "fta", (layer.weight.shape[-1],)
    if isinstance(layer, ASTP):
        return "astp", (layer.in_channels, *(() if layer.proj is None else layer.proj.shape[:1]))
    return "astp", (channels,)


def has_plain_norm(model: Network) -> bool:
    """Whether the norm is torch's own, untouched and with statistics: evaluation is then a formula of its tensors."""
    norm = model.norm
    plain = is_untouched(norm, nn.BatchNorm1d) or is_untouched(norm, nn.SyncBatchNorm)
    return plain and norm.running_mean is not None and norm.running_var is not None
