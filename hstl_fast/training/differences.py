"""Differences between the configuration of a training and the one that its checkpoint was written with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from hstl_fast.training.config import TrainingConfig

# Fields that change neither the weights nor what is logged about them.
_HARMLESS = ("output", "data.path", "data.workers", "machine.devices", "machine.nodes", "saving.", "evaluation.")
_HARMLESS_IF_FITTING = ("network.file", "network.hierarchy", "network.start", "network.new_classifier", "data.layout")


def plain(config: TrainingConfig) -> dict[str, Any]:
    """Describe a configuration by dicts, lists and plain values, as JSON and checkpoints hold it.

    Args:
        config: The configuration.

    Returns:
        Its sections by name.
    """
    described: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    return described


def differences(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """List the fields that differ.

    Args:
        stored: The configuration in a checkpoint, as `plain` describes it.
        given: The configuration to go on with, in the same form.

    Returns:
        A phrase for each, such as `batch.people: 8 before, 4 now`.
    """
    before, now = dict(_leaves(stored)), dict(_leaves(given))
    return [
        f"{name}: {before.get(name, 'none')} before, {now.get(name, 'none')} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]


def changes_the_result(difference: str) -> bool:
    """Return whether a difference leads to other weights than without it.

    Args:
        difference: A phrase of `differences`.

    Returns:
        False for places, readers, saving and evaluation.
    """
    return not difference.startswith((*_HARMLESS, *_HARMLESS_IF_FITTING))


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
