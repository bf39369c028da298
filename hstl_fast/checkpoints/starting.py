"""Weights of one training as the beginning of another."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hstl_fast.models import HSTL, HSTLConfig
from hstl_fast.models.config import is_count
from hstl_fast.models.recognition import model_in
from hstl_fast.models.released_files import read
from hstl_fast.nn import SeparateFCs


def load_weights(
    path: str | os.PathLike[str],
    config: HSTLConfig,
    new_classifier: bool,
    classes: Sequence[str] | None = None,
) -> HSTL:
    """Read the weights that a training begins with.

    Args:
        path: A checkpoint, ours or a released one.
        config: The network to train; its `num_classes` is the number of people in the data.
        new_classifier: Whether the file's classifier is replaced by a random one for the people of the data.
        classes: The names of the people in the data in the order of the classifier; compared with those in the file
            where it holds them.

    Returns:
        The model of `config`.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is no checkpoint, holds another network, or its classifier is for other people and
            `new_classifier` is False; the message says how to continue.
    """
    name = os.fspath(path)
    content = read(path)
    model = model_in(content, path, None, HSTL, expected=config)
    if differences := _differences(model.config, config):
        raise ValueError(f"{name}: the checkpoint must hold the network of the training; {'; '.join(differences)}")
    if new_classifier:
        return with_new_classifier(model, config.num_classes)
    way_out = "network.new_classifier=true continues with a new classifier"
    known, wanted = model.config.num_classes, config.num_classes
    if known != wanted:
        raise ValueError(f"{name}: its classifier is for {known} people, the data has {wanted}; {way_out}")
    stored = _classes_of(content.training)
    if classes is not None and stored is not None and list(classes) != stored:
        pairs = (f"{a!r}, but {b!r} in the data" for a, b in zip(stored, classes, strict=False) if a != b)
        example = next(pairs, f"{len(stored)}, but {len(classes)} in the data")
        raise ValueError(f"{name}: its classifier is for other people ({example}); {way_out}")
    return model


def with_new_classifier(model: HSTL, num_classes: int) -> HSTL:
    """Copy a model with a new classifier.

    The new weights are drawn from torch's global generator like those of a new model.

    Args:
        model: The network; it stays as it is.
        num_classes: Identities, K, of the new classifier.

    Returns:
        A copy of the model, its other tensors equal to the bit, with a random classifier on the same device.

    Raises:
        ValueError: `num_classes` is not a positive integer.
    """
    if not is_count(num_classes):
        raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}")
    old = model.classifier
    config = replace(model.config, num_classes=num_classes)
    new = SeparateFCs(config.parts, config.channels, num_classes).to(old.weight.device, old.weight.dtype)
    # The old classifier, which may be as large as the rest, is not copied.
    copied: HSTL = copy.deepcopy(model, {id(old): new.train(old.training)})
    copied.config = config
    return copied


def _differences(got: HSTLConfig, expected: HSTLConfig) -> list[str]:
    found, wanted = got.to_dict(), expected.to_dict()
    return [
        f"{field} must be {wanted[field]}, got {found[field]}"
        for field in wanted
        if field != "num_classes" and found[field] != wanted[field]
    ]


def _classes_of(training: Any) -> list[Any] | None:
    classes = training.get("classes") if isinstance(training, Mapping) else None
    return list(classes) if isinstance(classes, (list, tuple)) else None
