"""The groups of an optimiser's state, and which parameters they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hstl_fast.models.prefixes import split_prefix
from hstl_fast.models.released import listed


def named_groups(state: object, names: Sequence[str]) -> list[list[str]]:
    """Find the names of the parameters in each group of an optimiser's state.

    Args:
        state: The optimiser's `state_dict()`, as a file holds it.
        names: All parameters in their order.

    Returns:
        The names, from `param_names` of the groups or, where one group holds as many as there are, from their order.

    Raises:
        ValueError: The state has another form, or it cannot be told which parameters it belongs to.
    """
    if fault := _malformed(state):
        raise ValueError(fault)
    assert isinstance(state, Mapping)
    groups = state["param_groups"]
    sizes = [len(group.get("params", ())) for group in groups]
    if all("param_names" in group for group in groups):
        found = [[split_prefix(str(name))[1] for name in group["param_names"]] for group in groups]
        together = [name for group in found for name in group]
        if unknown := [name for name in together if name not in set(names)]:
            raise ValueError(f"must hold parameters of the model, got {listed(unknown)}")
        if len(set(together)) < len(together) or [len(group) for group in found] != sizes:
            raise ValueError("must name each of its parameters once")
        return found
    if sizes == [len(names)]:
        return [list(names)]
    raise ValueError(
        f"must hold one group of the model's {len(names)} parameters, got groups of {sizes} without param_names; "
        "an optimiser over model.named_parameters() has them"
    )


def named_entries(state: Mapping[str, Any], groups: Sequence[Sequence[str]]) -> dict[str, dict[str, Any]]:
    """Find the state of each parameter.

    Args:
        state: The optimiser's `state_dict()`.
        groups: The names of the parameters in each group.

    Returns:
        The entries by name, for the parameters that have any, whatever numbers the file gave them.
    """
    entries = state.get("state") or {}
    numbers = (number for group in state["param_groups"] for number in group["params"])
    names = (name for group in groups for name in group)
    return {name: dict(entries[number]) for number, name in zip(numbers, names) if number in entries}


def numbered(
    state: Mapping[str, Any],
    groups: Sequence[Sequence[str]],
    entries: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
) -> dict[str, Any]:
    """Make an optimiser's `state_dict()` over other parameters.

    Args:
        state: The state whose groups give all but the parameters.
        groups: The names of the parameters in each group.
        entries: The state of each parameter by name.
        names: All parameters in their order.

    Returns:
        The state, its parameters numbered as torch does. The groups hold `param_names` unless one holds all.
    """
    together = [name for group in groups for name in group]
    numbers = {name: i for i, name in enumerate(together)}
    are_all = len(groups) == 1 and together == list(names)
    described = []
    for group, own in zip(state["param_groups"], groups):
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        described.append({**options, "params": [numbers[name] for name in own]})
        if not are_all:
            described[-1]["param_names"] = list(own)
    return {"state": {numbers[name]: entries[name] for name in together if name in entries}, "param_groups": described}


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
    if not all(isinstance(group.get("param_names", ()), (list, tuple)) for group in groups):
        return "the param_names of a group must be a list of the parameters' names"
    if entries is None:
        return None
    if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
        return "state must be a dict of dicts"
    if not all(isinstance(key, str) for entry in entries.values() for key in entry):
        return "the state of a parameter must have strings as keys"
    return None


def _are_numbers(params: object) -> bool:
    return isinstance(params, (list, tuple)) and all(isinstance(number, int) for number in params)
