"""The state of an optimiser over the released network's parameters, and over ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hstl_fast.models import HSTL
from hstl_fast.models.released import Slot, shape_of, slots

# The tensors of the released network that are no parameters.
BUFFERS = ("Bn.running_mean", "Bn.running_var", "Bn.num_batches_tracked")


def load_optimizer_state(state: Mapping[str, Any], model: HSTL) -> tuple[dict[str, Any] | None, list[str]]:
    """Translate the state of an optimiser over the released network's parameters.

    The released optimiser numbers its parameters in the order of the released names. Tensors of a parameter's shape
    are stacked over regions like the parameters; a parameter whose state is incomplete or misshaped starts afresh.

    Args:
        state: The released optimiser's `state_dict()`.
        model: The network.

    Returns:
        A `state_dict()` for the same optimiser over `model.parameters()`, and a sentence for everything left behind.
        The first is None if anything that holds the tensors has the wrong type.
    """
    fault = _malformed(state)
    if fault:
        return None, [f"optimizer: {fault}"]
    official = [slot for slot in slots(model.config) if slot.key not in BUFFERS]
    numbers = {slot.key: i for i, slot in enumerate(official)}
    groups = state["param_groups"]
    if len(groups) != 1 or len(groups[0].get("params", ())) != len(official):
        sizes = [len(group.get("params", ())) for group in groups]
        return None, [f"optimizer: expected one group of {len(official)} parameters, got groups of {sizes}"]
    kept = _numbered(state, groups[0]["params"])
    carried: dict[int, dict[str, Any]] = {}
    left: list[str] = []
    for i, (name, parameter) in enumerate(model.named_parameters()):
        own = [slot for slot in official if slot.name == name]
        entries = [kept.get(numbers[slot.key], {}) for slot in own]
        stacked = _stacked(own, entries, parameter, left)
        if stacked:
            carried[i] = stacked
    return {"state": carried, "param_groups": [_regrouped(groups[0], len(list(model.parameters())))]}, left


def official_optimizer_state(state: Mapping[str, Any], model: HSTL) -> dict[str, Any]:
    """Translate the state of an optimiser over `model.parameters()` for the released network's parameters.

    Args:
        state: The optimiser's `state_dict()`.
        model: The network.

    Returns:
        The `state_dict()` of the same optimiser over the released network's parameters.

    Raises:
        ValueError: The optimiser is not over all of the model's parameters in one group, or its state has more than
            numbers and tensors of its parameters' shapes.
    """
    parameters = dict(model.named_parameters())
    names = list(parameters)
    groups = state["param_groups"]
    if len(groups) != 1 or len(groups[0]["params"]) != len(names):
        sizes = [len(group["params"]) for group in groups]
        raise ValueError(f"optimizer must hold one group of the model's {len(names)} parameters, got groups of {sizes}")
    kept = _numbered(state, groups[0]["params"])
    numbers = {name: i for i, name in enumerate(names)}
    official = [slot for slot in slots(model.config) if slot.key not in BUFFERS]
    return {
        "state": {
            i: {
                key: _part(slot, key, value, parameters[slot.name].shape)
                for key, value in kept[numbers[slot.name]].items()
            }
            for i, slot in enumerate(official)
            if numbers[slot.name] in kept
        },
        "param_groups": [_regrouped(groups[0], len(official))],
    }


def _malformed(state: object) -> str | None:
    """Return what has the wrong type in an optimiser's state, down to its entries' names; None if nothing has."""
    if not isinstance(state, Mapping):
        return f"must be a dict, got {type(state).__name__}"
    groups, entries = state.get("param_groups"), state.get("state")
    if groups is None or (isinstance(groups, (list, tuple)) and not groups):
        return "has no param_groups"
    if not isinstance(groups, (list, tuple)) or not all(isinstance(group, Mapping) for group in groups):
        return "param_groups must be a list of dicts"
    if not all(_are_numbers(group.get("params", ())) for group in groups):
        return "the params of a group must be a list of the parameters' numbers"
    if entries is None:
        return None
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
        return "state must be a dict of dicts"
    if not all(isinstance(key, str) for entry in entries.values() for key in entry):
        return "the state of a parameter must have strings as keys"
    return None


def _are_numbers(params: object) -> bool:
    return isinstance(params, (list, tuple)) and all(isinstance(number, int) for number in params)


def _numbered(state: Mapping[str, Any], params: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Return the entries by the parameters' positions in their group, whatever numbers the file gave them."""
    entries = state.get("state") or {}
    return {position: entries[number] for position, number in enumerate(params) if number in entries}


def _regrouped(group: Mapping[str, Any], count: int) -> dict[str, Any]:
    return {**{key: value for key, value in group.items() if key != "param_names"}, "params": list(range(count))}


def _stacked(
    own: Sequence[Slot], entries: Sequence[Mapping[str, Any]], parameter: Tensor, left: list[str]
) -> dict[str, Any]:
    present = [slot.key for slot, entry in zip(own, entries) if entry]
    if not present:
        return {}
    keys = set().union(*entries)
    for slot, entry in zip(own, entries):
        if keys - set(entry):
            left.append(f"optimizer: {own[0].name}: {slot.key} lacks {', '.join(sorted(keys - set(entry)))}")
            return {}
    stacked: dict[str, Any] = {}
    for key in sorted(keys):
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
