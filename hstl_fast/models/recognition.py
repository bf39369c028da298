"""Which network a checkpoint holds, and the model made of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hstl_fast.models.config import PRESETS, HSTLConfig
from hstl_fast.models.config import preset as preset_config
from hstl_fast.models.released import CLASSIFIER, faults, fits, load_official, own_shapes, slots
from hstl_fast.models.released_files import Content

_Model = TypeVar("_Model", bound=nn.Module)
# The beginnings of names that only our own `state_dict()` has, and its classifier.
_OWN, _OWN_CLASSIFIER = ("stem.", "stages.", "pools."), "classifier.weight"


def has_own_names(state_dict: Mapping[str, Any]) -> bool:
    """Return whether tensors have the names of our `state_dict()` rather than the released ones.

    Args:
        state_dict: The tensors by name.

    Returns:
        True for our own names.
    """
    return any(name.startswith(_OWN) for name in state_dict)


def preset_of(config: HSTLConfig) -> str | None:
    """Find the published network of a configuration.

    Args:
        config: The configuration, for any number of identities.

    Returns:
        The first name in `PRESETS` with the same network, or None.
    """
    same = (name for name, other in PRESETS.items() if replace(other, num_classes=config.num_classes) == config)
    return next(same, None)


def model_in(
    content: Content,
    path: str | os.PathLike[str],
    preset: str | None,
    build: Callable[[HSTLConfig], _Model],
    expected: HSTLConfig | None = None,
) -> _Model:
    """Make the model in a checkpoint's content.

    Args:
        content: The content. Where it says which network it holds, it is that one: the rows of regions cannot be told
            from the tensors.
        path: The file, for messages.
        preset: The network's name; None finds it from the tensors' shapes.
        build: Makes a model of a configuration.
        expected: A network that the tensors are taken for, if they fit it and the file does not say which it is.

    Returns:
        The model, with the checkpoint's tensors.

    Raises:
        ValueError: The tensors are another network's; the message names the file.
    """
    named = None if preset is None else preset_config(preset)
    network = _Tensors(content.model)
    try:
        if content.network is not None:
            config = _described(content.network, network)
        elif named is not None:
            config = network.with_classes(named)
        else:
            config = network.recognised(expected)
        if named is not None and preset is not None:
            _check_named(preset, config, network)
        if found := network.faults(config):
            raise ValueError(f"state_dict does not fit this HSTL model: {'; '.join(found)}")
        model = build(config)
        network.load_into(model, config)
    except ValueError as fault:
        raise ValueError(f"{os.fspath(path)}: {fault}") from None
    return model


class _Tensors:
    """The tensors of a network, in released or own names."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._is_own = has_own_names(tensors)

    def shapes(self, config: HSTLConfig) -> dict[str, tuple[int, ...]]:
        """The shapes by name that a network has."""
        return own_shapes(config) if self._is_own else {slot.key: slot.shape for slot in slots(config)}

    def faults(self, config: HSTLConfig) -> list[str]:
        """Sentences about everything that does not fit a network."""
        return faults(self._tensors, self.shapes(config))

    def with_classes(self, config: HSTLConfig) -> HSTLConfig:
        """A network with as many identities as the classifier."""
        classifier = self._tensors.get(_OWN_CLASSIFIER if self._is_own else CLASSIFIER)
        if isinstance(classifier, Tensor) and classifier.dim() == 3 and classifier.shape[2] > 0:
            return replace(config, num_classes=classifier.shape[2])
        return config

    def recognised(self, expected: HSTLConfig | None = None) -> HSTLConfig:
        """The expected network if the tensors fit it, else the published one that most of them fit."""
        if expected is not None and not self.faults(self.with_classes(expected)):
            return self.with_classes(expected)
        candidates = [self.with_classes(PRESETS[name]) for name in ("casia-b", "oumvlp", "gait3d")]
        shapes = [self.shapes(config) for config in candidates]
        matches = [sum(fits(self._tensors.get(name), shape) for name, shape in each.items()) for each in shapes]
        best = max(range(len(candidates)), key=matches.__getitem__)
        if 2 * matches[best] < len(shapes[best]):
            example = next(iter(self._tensors), None)
            raise ValueError(f"is not the checkpoint of an HSTL network (its first key is {example!r})")
        return candidates[best]

    def load_into(self, model: nn.Module, config: HSTLConfig) -> None:
        """Copy the tensors, which fit, into a model."""
        if not self._is_own:
            load_official(model.state_dict(), self._tensors, config)
            return
        with torch.no_grad():
            for name, value in model.state_dict().items():
                value.copy_(self._tensors[name])


def _described(fields: Any, network: _Tensors) -> HSTLConfig:
    config = HSTLConfig.from_dict(fields)
    if found := network.faults(config):
        raise ValueError(f"its tensors are not those of the network that it describes: {'; '.join(found)}")
    return config


def _check_named(preset: str, config: HSTLConfig, network: _Tensors) -> None:
    """Check that a file holds the published network that the caller names."""
    if network.faults(config):
        held = network.recognised()
        if network.faults(held):
            return  # neither fits: the caller says what is wrong with the one that was named
        config = held
    expected = replace(preset_config(preset), num_classes=config.num_classes)
    if config != expected:
        raise ValueError(f"holds the network {_name_of(config)} for {config.num_classes} people, not {preset}")


def _name_of(config: HSTLConfig) -> str:
    splits = [list(stage.split) for stage in config.stages]
    return preset_of(config) or f"of stem {list(config.stem)}, splits {splits} and {config.strips} strips"
