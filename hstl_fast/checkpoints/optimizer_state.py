"""The state of an optimiser over the released network's parameters, and over ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast.checkpoints.groups import named_entries, named_groups, numbered
from hstl_fast.checkpoints.plain import plain
from hstl_fast.models import HSTL
from hstl_fast.models.prefixes import unwrapped_name
from hstl_fast.models.released import Slot, listed, shape_of, slots

# The tensors of the released network that are no parameters.
BUFFERS = ("Bn.running_mean", "Bn.running_var", "Bn.num_batches_tracked")


def load_optimizer_state(state: Mapping[str, Any], model: HSTL) -> tuple[dict[str, Any] | None, list[str]]:
    """Translate the state of an optimiser over the released network's parameters.

    The released optimiser numbers its parameters in the order of the released names; several groups, or one of some of
    the parameters, need the names as `param_names`. Tensors of a parameter's shape are stacked over regions like the
    parameters; a parameter whose state is incomplete or misshaped starts afresh.

    Args:
        state: The released optimiser's `state_dict()`.
        model: The network.

    Returns:
        A `state_dict()` for the same optimiser over `model.parameters()`, each group in their order, and a sentence for
        everything left behind. The first is None if it cannot be told which parameters the state belongs to.
    """
    official = {slot.key: slot for slot in slots(model.config) if slot.key not in BUFFERS}
    try:
        groups = named_groups(state, list(official))
        order = [_owners(group, official, model) for group in groups]
    except ValueError as fault:
        return None, [f"optimizer: {fault}"]
    kept = named_entries(state, groups)
    parameters = {unwrapped_name(name): parameter for name, parameter in model.named_parameters()}
    carried: dict[str, dict[str, Any]] = {}
    left: list[str] = []
    for name in (name for group in order for name in group):
        own = [slot for slot in official.values() if slot.name == name]
        stacked = _stacked(own, [kept.get(slot.key, {}) for slot in own], parameters[name], left)
        if stacked:
            carried[name] = stacked
    return numbered(state, order, carried, list(parameters)), left


def own_optimizer_state(state: Mapping[str, Any], model: HSTL) -> tuple[dict[str, Any] | None, list[str]]:
    """Check the state of an optimiser over our own parameters, as a loop of somebody's own stores it.

    Args:
        state: The optimiser's `state_dict()`.
        model: The network.

    Returns:
        As `load_optimizer_state` does.
    """
    parameters = dict(model.named_parameters())
    try:
        groups = named_groups(state, list(parameters))
    except ValueError as fault:
        return None, [f"optimizer: {fault}"]
    entries, left = named_entries(state, groups), []
    for name, entry in list(entries.items()):
        for key, value in entry.items():
            shape = list(parameters[name].shape)
            if not _is_scalar(value) and not (_is_dense(value) and list(value.shape) == shape):
                left.append(f"optimizer: {name}: {key} must have the shape {shape}, got {shape_of(value)}")
                entries.pop(name, None)
    order = [[name for name in parameters if name in group] for group in map(set, groups)]
    return numbered(state, order, entries, list(parameters)), left


def official_optimizer_state(state: torch.optim.Optimizer | Mapping[str, Any], model: HSTL) -> dict[str, Any]:
    """Translate the state of an optimiser over `model.parameters()` for the released network's parameters.

    Args:
        state: The optimiser, or its `state_dict()`. Several groups, or one of some of the parameters, can be told from
            the optimiser itself, or if it was made of `model.named_parameters()`; each group is in their order.
        model: The network. If it is sharded by `fully_shard`, all its processes call this alike.

    Returns:
        The `state_dict()` of the same optimiser over the released network's parameters. Its groups hold `param_names`,
        except where one group holds all parameters.

    Raises:
        ValueError: It cannot be told which parameters the state belongs to, they are not the released network's, or the
            state has more than numbers and tensors of its parameters' shapes.
    """
    parameters = {unwrapped_name(name): parameter for name, parameter in model.named_parameters()}
    official = {slot.key: slot for slot in slots(model.config) if slot.key not in BUFFERS}
    try:
        content, groups = _with_names(state, model, list(parameters))
        _check_translatable(groups, list(parameters), {slot.name for slot in official.values()})
    except ValueError as fault:
        raise ValueError(f"optimizer {fault}") from None
    entries = plain(named_entries(content, groups), "optimizer['state']")
    parts = {
        key: {what: _part(slot, what, value, parameters[slot.name].shape) for what, value in entries[slot.name].items()}
        for key, slot in official.items()
        if slot.name in entries
    }
    order = [[key for key, slot in official.items() if slot.name in group] for group in map(set, groups)]
    options = {"param_groups": plain(content["param_groups"], "optimizer['param_groups']")}
    return numbered(options, order, parts, list(official))


def _owners(group: Sequence[str], official: Mapping[str, Slot], model: HSTL) -> list[str]:
    """Return our parameters, in their order, of a group of released ones."""
    inside = set(group)
    names = {official[key].name for key in group}
    for slot in official.values():
        if slot.name in names and slot.key not in inside:
            raise ValueError(f"{slot.key} must be in the group of the other regions of {slot.name}")
    return [name for name, _ in model.named_parameters() if unwrapped_name(name) in names]


def _with_names(
    state: torch.optim.Optimizer | Mapping[str, Any], model: HSTL, names: Sequence[str]
) -> tuple[Mapping[str, Any], list[list[str]]]:
    """Return an optimiser's state, and the names of our parameters in each of its groups."""
    if not isinstance(state, torch.optim.Optimizer):
        return state, named_groups(state, names)
    content = state.state_dict()
    by_identity = {id(parameter): name for name, parameter in zip(names, model.parameters())}
    groups = [[by_identity.get(id(p)) for p in group["params"]] for group in state.param_groups]
    known = [[name for name in group if name is not None] for group in groups]
    # The parameters may be those that `model` is a copy of, as an average is.
    return content, known if known == groups else named_groups(content, names)


def _check_translatable(groups: Sequence[Sequence[str]], names: Sequence[str], released: set[str]) -> None:
    for group in groups:
        if foreign := [name for name in group if name not in released]:
            raise ValueError(
                f"must be over tensors of the released network, got {listed(foreign)}; leave it out, or take the "
                "parametrisation off first"
            )
        places = [names.index(name) for name in group]
        if places != sorted(places):
            raise ValueError("must hold the parameters of a group in the order of model.parameters(), got another")


def _stacked(
    own: Sequence[Slot], entries: Sequence[Mapping[str, Any]], parameter: Tensor, left: list[str]
) -> dict[str, Any]:
    present = [slot.key for slot, entry in zip(own, entries) if entry]
    if not present:
        return {}
    keys = {key: None for entry in entries for key in entry}  # in the order of the file
    for slot, entry in zip(own, entries):
        if lacking := [key for key in keys if key not in entry]:
            left.append(f"optimizer: {own[0].name}: {slot.key} lacks {', '.join(sorted(lacking))}")
            return {}
    stacked: dict[str, Any] = {}
    for key in keys:
        values = [entry[key] for entry in entries]
        if all(_is_scalar(value) for value in values):
            stacked[key] = _copied(values[0])
            if any(_number(value) != _number(values[0]) for value in values):
                left.append(f"optimizer: {own[0].name}: its tensors differ in {key}; {values[0]} is kept")
            continue
        for slot, value in zip(own, values):
            if not _is_dense(value) or tuple(value.shape) != slot.shape:
                left.append(
                    f"optimizer: {slot.key}: {key} must have the shape {list(slot.shape)}, got {shape_of(value)}"
                )
                return {}
        whole = torch.zeros_like(parameter, dtype=values[0].dtype, device=values[0].device)
        for slot, value in zip(own, values):
            whole[slot.index] = value.reshape(whole[slot.index].shape)
        stacked[key] = whole
    return stacked


def _part(slot: Slot, key: str, value: Any, shape: Sequence[int]) -> Any:
    if _is_scalar(value):
        return _copied(value)
    if not _is_dense(value) or value.shape != shape:
        raise ValueError(
            f"optimizer must keep numbers or tensors of the parameter's shape, got {key} of {shape_of(value)} for "
            f"{slot.name} of {list(shape)}"
        )
    return value[slot.index].reshape(slot.shape).clone()


def _is_scalar(value: object) -> bool:
    if isinstance(value, Tensor):
        return _is_dense(value) and value.dim() == 0
    return value is None or isinstance(value, (bool, int, float))


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) else value


def _is_dense(value: object) -> bool:
    """Return whether `value` is a tensor whose numbers can be indexed and copied."""
    if not isinstance(value, Tensor) or value.is_nested or value.is_quantized or value.is_meta:
        return False
    return value.layout is torch.strided


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
