"""The training people of a data set, and the network that is to tell them apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from hstl_fast.data import (
    TrainingData,
    Window,
    open_sequences,
    part_of,
    published_partition,
    with_partition,
)
from hstl_fast.data.sequences import Sequences
from hstl_fast.models import PRESETS, HSTLConfig
from hstl_fast.training.config import DataConfig, NetworkConfig, TrainingConfig

# Layouts whose publishers divide the people by a rule.
_DIVIDED_BY_RULE = ("casia-b", "oumvlp", "grew")


def open_training_data(config: TrainingConfig) -> TrainingData:
    """Open the sequences of the training people.

    Args:
        config: The configuration.

    Returns:
        Windows of their sequences.

    Raises:
        DataError: There is no data set, no partition of it, or no sequence of its training people.
        ValueError: The window does not fit, or there are fewer people than in a batch.
    """
    sequences = part_of(open_divided(config.data), "train")
    augmentation = config.data.augmentation if config.data.augmentation.changes else None
    window = Window(config.batch.frames, config.batch.stretch)
    found = TrainingData(sequences, window, augmentation)
    if len(found.classes) < config.batch.people:
        raise ValueError(
            f"batch.people: expected at most the {len(found.classes)} people of the training set of "
            f"{config.data.path}, got {config.batch.people}"
        )
    return found


def open_divided(data: DataConfig) -> Sequences:
    """Open a data set with its partition, or else with the published one where the layout has a rule.

    Args:
        data: The data of the configuration.

    Returns:
        All sequences.

    Raises:
        DataError: There is no data set, or the partition file is none.
    """
    sequences = open_sequences(data.path, data.layout, data.partition)
    if sequences.partition is None and sequences.layout in _DIVIDED_BY_RULE:
        return with_partition(sequences, published_partition(sequences.layout, sequences.labels))
    return sequences


def network_of(config: NetworkConfig, num_classes: int) -> HSTLConfig:
    """Find the shape of the network.

    Args:
        config: The network of the configuration.
        num_classes: The number of people, K.

    Returns:
        The shape.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is not JSON, does not describe a network, or its splits do not fit the network.
    """
    found = PRESETS[config.preset]
    if config.file is not None:
        content = _json("network.file", config.file)
        try:
            found = HSTLConfig.from_dict({**content, "num_classes": num_classes})
        except ValueError as error:
            raise ValueError(f"network.file: {config.file}: {error}") from None
    if config.hierarchy is not None:
        content = _json("network.hierarchy", config.hierarchy)
        if "splits" not in content:
            raise ValueError(f"network.hierarchy: {config.hierarchy}: expected the key splits, got {sorted(content)}")
        try:
            found = found.with_splits(content["splits"])
        except (TypeError, ValueError) as error:
            raise ValueError(f"network.hierarchy: {config.hierarchy}: {error}") from None
    return replace(found, num_classes=num_classes)


def _json(field: str, path: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{field}: {path}: expected JSON, got a file that is none ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{field}: {path}: expected a JSON object, got a {type(content).__name__}")
    return content
