"""The released checkpoints: the names of their tensors, and how the network's own tensors correspond to them.

Where the released model keeps one tensor per region, ours keeps one tensor stacked over regions; nothing else differs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from hstl_fast.models.config import PRESETS, HSTLConfig
from hstl_fast.models.config import preset as preset_config

CLASSIFIER = "Head1.fc_bin"
# torch's safe unpickler says by one of these that it met an object it will not make.
REFUSED_CODE = ("GLOBAL", "Trying to call reduce", "Can only create new object", "Can only build")

_Model = TypeVar("_Model")


@dataclass(frozen=True)
class Slot:
    """One released tensor: its key and shape, and where it lives in ours, `state_dict()[name][index]`."""

    key: str
    shape: tuple[int, ...]
    name: str
    index: tuple[int, ...] = ()


def slots(config: HSTLConfig) -> list[Slot]:
    """Every tensor of the released network of this shape, in its order."""
    return list(_slots(config))


def _slots(config: HSTLConfig) -> Iterator[Slot]:
    c, pools = config.channels, config.pools
    c_in = 1
    for i, c_out in enumerate(config.stem):
        yield Slot(f"arme1.{2 * i}.conv3d.weight", (c_out, c_in, 3, 3, 3), f"stem.{i}.weight", (0,))
        c_in = c_out
    yield from _astp("astp1", 0, pools[0])
    for s, stage in enumerate(config.stages):
        for i, c_out in enumerate(stage.channels):
            for r in range(len(stage.split)):
                key = f"arme{s + 2}.{i}.conv3d.{r}.conv3d.weight"
                yield Slot(key, (c_out, c_in, 3, 3, 3), f"stages.{s}.{i}.weight", (r,))
            c_in = c_out
        if s == 0:
            yield from _astp("astp2", 1, pools[1])
            yield from _fta(c_in, len(stage.split))
            yield from _astp("astp2_fta", 2, pools[2])
        else:
            yield from _astp(f"astp{s + 2}", s + 2, pools[s + 2])
    yield Slot("HPP.p", (1,), "strips.p")
    yield Slot("Head0.fc_bin", (config.parts, c, c), "parts.weight")
    for name in ("weight", "bias", "running_mean", "running_var"):
        yield Slot(f"Bn.{name}", (c,), f"norm.{name}")
    yield Slot("Bn.num_batches_tracked", (), "norm.num_batches_tracked")
    yield Slot(CLASSIFIER, (config.parts, c, config.num_classes), "classifier.weight")


def _astp(key: str, i: int, pool: tuple[int, int | None, tuple[int, ...]]) -> Iterator[Slot]:
    c_in, c_out, split = pool
    for r in range(len(split)):
        yield Slot(f"{key}.hpp.{r}.p", (1,), f"pools.{i}.p", (r,))
    if c_out is not None:
        yield Slot(f"{key}.proj.conv.weight", (c_out, c_in, 1, 1), f"pools.{i}.proj")


def _fta(c: int, m: int) -> Iterator[Slot]:
    for r in range(m):
        for k in range(2):
            yield Slot(f"fta.mma.{r}.fcs.{k}.weight", (c, c, 1), "fta.weight", (r, k))
            yield Slot(f"fta.mma.{r}.fcs.{k}.bias", (c,), "fta.bias", (r, k))


def to_official(tensors: Mapping[str, Tensor], config: HSTLConfig) -> dict[str, Tensor]:
    """Copies of a model's tensors under the released names, in their order.

    Raises:
        ValueError: a tensor has another shape than the released network's.
    """
    official = {}
    for slot in slots(config):
        try:
            official[slot.key] = tensors[slot.name][slot.index].reshape(slot.shape).clone()
        except (IndexError, RuntimeError):
            shape = list(tensors[slot.name].shape)
            raise ValueError(f"{slot.name} must have the shape that the model's config gives, got {shape}") from None
    return official


def load_official(tensors: Mapping[str, Tensor], state_dict: Mapping[str, Tensor], config: HSTLConfig) -> None:
    """Copy tensors with the released names into a model's `state_dict()`.

    Raises:
        ValueError: something does not fit exactly; nothing has been copied then.
    """
    faults = _faults(state_dict, config)
    if faults:
        raise ValueError(f"state_dict does not fit this HSTL model: {'; '.join(faults)}")
    lacking = [slot.name for slot in slots(config) if slot.name not in tensors]
    if lacking:
        raise ValueError(f"the model must have all tensors of the released network, it lacks {listed(lacking)}")
    with torch.no_grad():
        for slot in slots(config):
            target = tensors[slot.name][slot.index]
            target.copy_(state_dict[slot.key].reshape(target.shape))


def model_in(
    content: Mapping[str, Any],
    path: str | os.PathLike[str],
    preset: str | None,
    build: Callable[[HSTLConfig], _Model],
    expected: HSTLConfig | None = None,
) -> _Model:
    """Make the model in a checkpoint's content.

    Args:
        content: As `read` returns it. Where it holds `network`, the fields of an `HSTLConfig`, it is that network: the
            rows of regions cannot be told from the tensors.
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
    state_dict = content["model"]
    try:
        if named is None and content.get("network") is not None:
            config = HSTLConfig.from_dict(content["network"])
        else:
            config = _recognised(state_dict, expected) if named is None else _with_classes(named, state_dict)
        model = build(config)
        load_official(model.state_dict(), state_dict, config)  # type: ignore[attr-defined]
    except ValueError as fault:
        raise ValueError(f"{os.fspath(path)}: {fault}") from None
    return model


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a released checkpoint, without running any code from it.

    Returns:
        A dict with `model` and, in most files, `optimizer`, `scheduler` and `iteration`.

    Raises:
        OSError: the file cannot be opened.
        ValueError: naming the file, if it is truncated, holds pickled code or is no checkpoint.
    """
    name = os.fspath(path)
    with Path(path).open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as fault:  # broken files make torch stumble in many ways, all of them the file's fault
            if any(sign in str(fault) for sign in REFUSED_CODE):
                what = "holds pickled objects other than tensors and plain containers; they are never loaded"
            else:
                what = "is truncated or not a file written by torch.save"
            raise ValueError(f"{name}: {what}") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), Mapping):
        got = sorted(map(str, content))[:8] if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{name}: must be a dict with model, optimizer, scheduler and iteration, got {got}")
    return content


def _recognised(state_dict: Mapping[str, Tensor], expected: HSTLConfig | None) -> HSTLConfig:
    if expected is not None and not _faults(state_dict, _with_classes(expected, state_dict)):
        return _with_classes(expected, state_dict)
    candidates = [_with_classes(PRESETS[name], state_dict) for name in ("casia-b", "oumvlp", "gait3d")]
    matches = [sum(_fits(state_dict, slot) for slot in slots(config)) for config in candidates]
    best = max(range(len(candidates)), key=matches.__getitem__)
    total = len(slots(candidates[best]))
    if 2 * matches[best] < total:
        example = next(iter(state_dict), None)
        raise ValueError(f"is not the checkpoint of an HSTL network (its first key is {example!r})")
    return candidates[best]


def _with_classes(config: HSTLConfig, state_dict: Mapping[str, Tensor]) -> HSTLConfig:
    classifier = state_dict.get(CLASSIFIER)
    if isinstance(classifier, Tensor) and classifier.dim() == 3 and classifier.shape[2] > 0:
        return replace(config, num_classes=classifier.shape[2])
    return config


def _fits(state_dict: Mapping[str, Tensor], slot: Slot) -> bool:
    value = state_dict.get(slot.key)
    return isinstance(value, Tensor) and tuple(value.shape) == slot.shape


def _faults(state_dict: Mapping[str, Tensor], config: HSTLConfig) -> list[str]:
    expected = {slot.key: slot.shape for slot in slots(config)}
    missing = [key for key in expected if key not in state_dict]
    unexpected = [str(key) for key in state_dict if key not in expected]
    misshaped = [
        f"{slot.key} must have the shape {list(slot.shape)}, got {shape_of(state_dict[slot.key])}"
        for slot in slots(config)
        if slot.key in state_dict and not _fits(state_dict, slot)
    ]
    faults = [f"missing {listed(missing)}"] if missing else []
    faults += [f"unexpected {listed(unexpected)}"] if unexpected else []
    return faults + ([listed(misshaped, "; ")] if misshaped else [])


def shape_of(value: object) -> object:
    """The shape of a tensor, or else the name of the value's type."""
    if isinstance(value, Tensor) and not value.is_nested:  # a nested tensor has no shape
        return list(value.shape)
    return type(value).__name__


def listed(items: Sequence[str], separator: str = ", ", shown: int = 4) -> str:
    """The first items and the number of the others."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return separator.join(items[:shown]) + rest
