"""The released checkpoints: the names of their tensors, and how the network's own tensors correspond to them.

Where the released model keeps one tensor per region, ours keeps one tensor stacked over regions; nothing else differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hstl_fast.models.config import HSTLConfig
from hstl_fast.models.prefixes import split_prefix

CLASSIFIER = "Head1.fc_bin"


@dataclass(frozen=True)
class Slot:
    """One released tensor: its key and shape, and where it lives in ours, `state_dict()[name][index]`.

    Ours lacks the last `ones` dimensions, which are 1.
    """

    key: str
    shape: tuple[int, ...]
    name: str
    index: tuple[int, ...] = ()
    ones: int = 0


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
        yield Slot(f"{key}.hpp.{r}.p", (1,), f"pools.{i}.p", (r,), ones=1)
    if c_out is not None:
        yield Slot(f"{key}.proj.conv.weight", (c_out, c_in, 1, 1), f"pools.{i}.proj", ones=2)


def _fta(c: int, m: int) -> Iterator[Slot]:
    for r in range(m):
        for k in range(2):
            yield Slot(f"fta.mma.{r}.fcs.{k}.weight", (c, c, 1), "fta.weight", (r, k), ones=1)
            yield Slot(f"fta.mma.{r}.fcs.{k}.bias", (c,), "fta.bias", (r, k))


def own_shapes(config: HSTLConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors in our `state_dict()` by name."""
    shapes = {}
    for slot in slots(config):  # those of the last region come last
        shapes[slot.name] = (*(i + 1 for i in slot.index), *slot.shape[: len(slot.shape) - slot.ones])
    return shapes


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
    found = faults(state_dict, {slot.key: slot.shape for slot in slots(config)})
    if found:
        prefixes = {split_prefix(str(name))[0] for name in state_dict} - {""}
        hint = f"; take the prefix {min(prefixes)!r} off the names" if prefixes else ""
        raise ValueError(f"state_dict does not fit this HSTL model: {'; '.join(found)}{hint}")
    lacking = [slot.name for slot in slots(config) if slot.name not in tensors]
    if lacking:
        raise ValueError(f"the model must have all tensors of the released network, it lacks {listed(lacking)}")
    for slot in slots(config):
        if hasattr(tensors[slot.name], "full_tensor") or tensors[slot.name].is_meta:
            raise ValueError(f"the model must hold whole tensors to load into, {slot.name} is sharded or on no device")
    with torch.no_grad():
        for slot in slots(config):
            target = tensors[slot.name][slot.index]
            target.copy_(state_dict[slot.key].reshape(target.shape))


def fits(value: object, shape: tuple[int, ...]) -> bool:
    """Whether a value is a tensor of this shape."""
    return isinstance(value, Tensor) and not value.is_nested and tuple(value.shape) == shape


def faults(state_dict: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Sentences about the missing, unexpected and misshaped among tensors that should have these names and shapes."""
    missing = [name for name in shapes if name not in state_dict]
    unexpected = [str(name) for name in state_dict if name not in shapes]
    misshaped = [
        f"{name} must have the shape {list(shape)}, got {shape_of(state_dict[name])}"
        for name, shape in shapes.items()
        if name in state_dict and not fits(state_dict[name], shape)
    ]
    found = [f"missing {listed(missing)}"] if missing else []
    found += [f"unexpected {listed(unexpected)}"] if unexpected else []
    return found + ([listed(misshaped, "; ")] if misshaped else [])


def shape_of(value: object) -> object:
    """The shape of a tensor, or else the name of the value's type."""
    if isinstance(value, Tensor) and not value.is_nested:  # a nested tensor has no shape
        return list(value.shape)
    return type(value).__name__


def listed(items: Sequence[str], separator: str = ", ", shown: int = 4) -> str:
    """The first items and the number of the others."""
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return separator.join(items[:shown]) + rest
