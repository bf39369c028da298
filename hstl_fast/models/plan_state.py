"""May an execution plan of native calls stand for a network, and what does the plan follow from?

Both are asked anew at every call, in one pass over the network: this is most of what a call costs besides native code.
A kept plan is used where all that it follows from is equal: what planning reads of the network, of its input and of
the options. A plan reads parameters when it runs, so the key holds their addresses, not their values, but for few.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast._torch_private import (
    children_of,
    has_global_hooks,
    replace_tensors,
    under_transforms,
    with_children,
)
from hstl_fast._untouched import is_untouched
from hstl_fast.backends.cpu import library
from hstl_fast.layout import computing_dtype
from hstl_fast.models.eligibility import Network, is_watched, own_layers
from hstl_fast.nn import ARME, ASTP, FTA, SeparateFCs, StripPool
from hstl_fast.ops import _dispatch
from hstl_fast.options import ALGORITHM, BACKEND

# The tensors that native calls read of each kind of module that they stand for.
_TENSORS: dict[type[nn.Module], tuple[str, ...]] = {
    ARME: ("weight",),
    ASTP: ("proj", "p"),
    FTA: ("weight", "bias"),
    StripPool: ("p",),
    SeparateFCs: ("weight",),
    nn.BatchNorm1d: ("running_mean", "running_var", "weight", "bias"),
}


class Asked(NamedTuple):
    """A request for a plan.

    Attributes:
        network: An `HSTL`.
        silhouettes: `[n, t, h, w]`, uint8 0..255 or floating 0..1.
        lengths: Of packed sequences, else empty.
        batch_statistics: Whether the norm takes the statistics of the batch.
        window: What is kept of a window of a longer clip; None for whole clips.
    """

    network: Network
    silhouettes: Tensor
    lengths: list[int]
    batch_statistics: bool
    window: Hashable = None


class PlanState(NamedTuple):
    """The state that a plan follows from.

    Attributes:
        key: All of it, for comparison; None if no plan is to be kept.
        weights: The convolutions' weights, in their order.
        tensors: The memory of all tensors that were read; as long as it is held, nothing else is at the addresses in
            the key, even if another thread gives a parameter other memory.
        with_head: Whether native calls may stand for the head.
    """

    key: Hashable | None
    weights: list[Tensor]
    tensors: list[Tensor]
    with_head: bool


def state_for_plan(asked: Asked) -> PlanState | None:
    """Read the state that a plan follows from.

    A plan may stand for the layers where no gradients are wanted and no mode follows what is computed, every layer is
    ours and untouched, and every tensor is plain memory of the network's type. It may stand for the head, too, where
    this holds of the linear maps and of batch norm in evaluation.

    Args:
        asked: What it is asked for.

    Returns:
        The state; None if no plan may stand for the layers.
    """
    network, silhouettes = asked.network, asked.silhouettes
    dtype, native = network.parts.weight.dtype, library.cpu()
    if type(silhouettes) is not Tensor or not silhouettes.is_cpu or _is_followed():
        return None
    if dtype != computing_dtype(dtype) or native is None:
        return None
    state = _State(dtype)
    if not all(state.includes(layer, kind) for layer, kind in own_layers(network)) or not state.weights:
        return None
    with_head = not asked.batch_statistics and asked.window is None and _includes_head(state, network)
    if not state.is_keepable:
        return PlanState(None, state.weights, state.tensors, with_head)
    options = (dtype, BACKEND.value(), ALGORITHM.value(), native.instruction_set())
    stages = [len(list(stage.children())) for stage in network.stages]
    order = (network.config.pool, len(network.stem), *stages)
    threads = torch.get_num_threads()
    call = (silhouettes.shape, silhouettes.dtype == torch.uint8, *asked.lengths, threads, with_head, asked.window)
    return PlanState((call, options, order, *state.described), state.weights, state.tensors, with_head)


def snapshot(network: Network) -> Network:
    """Copy the modules of a network, for planning.

    Args:
        network: The network.

    Returns:
        A network whose options, structure and powers no other thread changes; other tensors share the memory that the
        network's have now.
    """
    copied: Network = _copied(network, {})  # type: ignore[arg-type, assignment]
    return copied


def _copied(module: nn.Module, copies: dict[nn.Module, nn.Module]) -> nn.Module:
    """The one copy of a module that holds tensors or modules of the kinds that are planned; any other module itself."""
    if module in copies:
        return copies[module]
    before = dict(list(children_of(module).items()))
    children = {name: None if child is None else _copied(child, copies) for name, child in before.items()}
    is_planned = type(module) in _TENSORS
    if not is_planned and all(child is before[name] for name, child in children.items()):
        return module  # a scripted one, for instance, which cannot be copied
    copied = copies[module] = with_children(module, children)
    if is_planned:
        replace_tensors(copied, _alias)
        vars(copied).update((name, list(value)) for name, value in list(vars(copied).items()) if type(value) is list)
    return copied


def _alias(name: str, x: Tensor) -> Tensor:
    """A tensor of the same memory, or a copy of the powers, whose values the plan and its key hold."""
    return x.detach().clone() if name == "p" else x.detach()


def may_plan(network: Network) -> bool:
    """Whether the backend of a network that has a state is the one that plans are made for."""
    weight = network.parts.weight
    return _dispatch.choose_for_network(weight.device, weight.dtype) == "cpu"


def _is_followed() -> bool:
    """Whether gradients are wanted, or a mode, tracer or hook follows what is computed."""
    is_recorded = torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or is_watched()
    return is_recorded or under_transforms() or has_global_hooks()


class _State:
    """The state of the modules of a network of type `dtype`, as they are read."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.is_keepable = dtype, True
        self.weights, self.tensors, self.described = list[Tensor](), list[Tensor](), list[Hashable]()

    def includes(self, module: nn.Module, kind: type[nn.Module]) -> bool:
        """Read a module of this kind; False if native calls may not stand for it."""
        if not is_untouched(module, kind):
            return False
        for name in _TENSORS[kind]:
            x = getattr(module, name)
            if x is None and name == "proj":
                continue
            values = self._values(x)
            if values is None:
                return False
            self.tensors.append(values)
            if kind is ARME:
                self.weights.append(x)
            if kind is ARME or name == "p":  # the plan holds the powers
                self.described.append(values.shape)
            else:
                self.described.append((values.data_ptr(), values.shape))
                self.is_keepable = self.is_keepable and values.is_contiguous()
        settings = _SETTINGS[kind](module)
        self.described.append(settings)
        self.is_keepable = self.is_keepable and settings is not None
        return True

    def _values(self, x: Any) -> Tensor | None:
        """The memory that a tensor has now, and keeps until another thread gives it other; None if it is not plain."""
        if type(x) is not nn.Parameter and type(x) is not Tensor:
            return None
        values = x.detach()
        is_plain = values.dtype == self.dtype and values.is_cpu and values.layout == torch.strided
        return values if is_plain and not values.is_neg() else None


def _includes_head(state: _State, network: Network) -> bool:
    return state.includes(network.parts, SeparateFCs) and state.includes(network.norm, nn.BatchNorm1d)


def _split_of(module: ARME | ASTP | FTA) -> list[int] | None:
    split = module.split
    return split if type(split) is list and _INTEGERS.issuperset(map(type, split)) else None


def _settings_of_arme(module: ARME) -> Hashable | None:
    split, slope = _split_of(module), module.negative_slope
    return None if split is None or not (slope is None or type(slope) is float) else (*split, slope)


def _settings_of_astp(module: ASTP) -> Hashable | None:
    split = _split_of(module)
    return None if split is None else (*split, *module.p.tolist())


def _settings_of_fta(module: FTA) -> Hashable | None:
    split = _split_of(module)
    return None if split is None else tuple(split)


def _settings_of_strips(module: StripPool) -> Hashable | None:
    return (module.bins, *module.p.tolist()) if type(module.bins) is int else None


def _settings_of_norm(module: nn.BatchNorm1d) -> Hashable | None:
    return module.eps if type(module.eps) is float else None


_INTEGERS = frozenset((int,))

# The settings of a module of each kind, and values of parameters for which it is planned; None if they are unusual. A
# key does not tell apart values that are equal and of other types, such as 1 and True.
_SETTINGS: dict[type[nn.Module], Callable[[Any], Hashable | None]] = {
    ARME: _settings_of_arme,
    ASTP: _settings_of_astp,
    FTA: _settings_of_fta,
    StripPool: _settings_of_strips,
    SeparateFCs: lambda _: (),
    nn.BatchNorm1d: _settings_of_norm,
}
