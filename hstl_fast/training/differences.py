"""Differences between the configuration of a training and the one that its checkpoint was written with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the fields that differ, but for the folder, which may have been moved.

    Args:
        stored: The configuration in a checkpoint, as `config_dict` describes it.
        given: The configuration to go on with, in the same form.

    Returns:
        A phrase for each, such as `batch.people: 8 before, 4 now`.
    """
    before, now = dict(_leaves(stored)), dict(_leaves(given))
    return [
        f"{name}: {before.get(name, 'none')} before, {now.get(name, 'none')} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name) and name != "output"
    ]


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
