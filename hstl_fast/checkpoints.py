"""Reading and writing of released checkpoints: tensors under the released names, and the state of their optimiser.

A released `.pt` file is a dict with `model`, `optimizer`, `scheduler` and `iteration`. Where the released model keeps
one tensor per region, ours keeps one tensor stacked over regions; nothing else differs.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hstl_fast.files import whole_file
from hstl_fast.models import HSTL, PRESETS, HSTLConfig
from hstl_fast.models import preset as preset_config

BUFFERS = ("Bn.running_mean", "Bn.running_var", "Bn.num_batches_tracked")
CLASSIFIER = "Head1.fc_bin"
# Parts of the messages by which torch's safe unpickler refuses an object.
REFUSED_CODE = ("GLOBAL", "Trying to call reduce", "Can only create new object", "Can only build")


@dataclass(frozen=True)
class Slot:
    """A released tensor and its place in our model.

    Attributes:
        key: The released name.
        shape: The released shape.
        name: The name of our tensor.
        index: The released tensor's place in it, `state_dict()[name][index]`.
    """

    key: str
    shape: tuple[int, ...]
    name: str
    index: tuple[int, ...] = ()


@dataclass
class Checkpoint:
    """The content of a released checkpoint.

    Attributes:
        model: The network with the stored weights.
        optimizer: A state for the same optimiser over `model.parameters()`; None if there was none or it was malformed.
        scheduler: The scheduler's state as stored, or None.
        iteration: The number of training steps.
        not_carried: A sentence for everything in the file that has no place here.
    """

    model: HSTL
    optimizer: dict[str, Any] | None = None
    scheduler: dict[str, Any] | None = None
    iteration: int = 0
    not_carried: list[str] = field(default_factory=list)


def slots(config: HSTLConfig) -> list[Slot]:
    """Return every tensor of the released network of this shape, in its order."""
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


def to_official(model: HSTL) -> dict[str, Tensor]:
    """Return copies of the model's tensors under the released names, in their order."""
    tensors = model.state_dict()
    return {slot.key: tensors[slot.name][slot.index].reshape(slot.shape).clone() for slot in slots(model.config)}


def load_official(model: HSTL, state_dict: Mapping[str, Tensor]) -> None:
    """Copy tensors with the released names into the model.

    Args:
        model: The network.
        state_dict: The tensors.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape. Nothing is copied.
    """
    faults = _faults(state_dict, model.config)
    if faults:
        raise ValueError(f"state_dict does not fit this HSTL model: {'; '.join(faults)}")
    tensors = model.state_dict()
    with torch.no_grad():
        for slot in slots(model.config):
            target = tensors[slot.name][slot.index]
            target.copy_(state_dict[slot.key].reshape(target.shape))


def load_checkpoint(path: str | os.PathLike[str], preset: str | None = None) -> Checkpoint:
    """Read a released checkpoint without running any code from it.

    Args:
        path: The file.
        preset: The published network that it holds. None finds it from the tensors' shapes; `grew` has the shape of
            `oumvlp` and must be named. The number of identities is always found.

    Returns:
        The model, and what else the file holds.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is truncated, holds pickled code, is another network's checkpoint or lacks keys.
    """
    named = None if preset is None else preset_config(preset)
    content = _read(path)
    state_dict = content["model"]
    try:
        model = HSTL(_recognised(state_dict) if named is None else _with_classes(named, state_dict))
        load_official(model, state_dict)
    except ValueError as fault:
        raise ValueError(f"{os.fspath(path)}: {fault}") from None
    found = Checkpoint(model, scheduler=content.get("scheduler"))
    if isinstance(content.get("iteration"), int):
        found.iteration = content["iteration"]
    if content.get("optimizer") is not None:
        found.optimizer, found.not_carried = load_optimizer_state(content["optimizer"], model)
    return found


def save_checkpoint(
    path: str | os.PathLike[str],
    model: HSTL,
    optimizer: Mapping[str, Any] | None = None,
    scheduler: Mapping[str, Any] | None = None,
    iteration: int = 0,
) -> None:
    """Write a checkpoint in the released form, whole or not at all.

    Args:
        path: The file.
        model: The network.
        optimizer: The `state_dict()` of an optimiser over `model.parameters()`.
        scheduler: The scheduler's `state_dict()`.
        iteration: The number of training steps.

    Raises:
        ValueError: The optimiser has no counterpart over the released network's parameters.
    """
    content = {
        "model": to_official(model),
        "optimizer": None if optimizer is None else official_optimizer_state(optimizer, model),
        "scheduler": None if scheduler is None else dict(scheduler),
        "iteration": iteration,
    }
    with whole_file(Path(path)) as draft:
        torch.save(content, draft)


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
                left.append(f"optimizer: {slot.key}: {key} must have the shape {list(slot.shape)}, got {_shape(value)}")
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
            f"optimizer must keep numbers or tensors of the parameter's shape, got {key} of {_shape(value)} for "
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


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
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


def _recognised(state_dict: Mapping[str, Tensor]) -> HSTLConfig:
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
        f"{slot.key} must have the shape {list(slot.shape)}, got {_shape(state_dict[slot.key])}"
        for slot in slots(config)
        if slot.key in state_dict and not _fits(state_dict, slot)
    ]
    faults = [f"missing {_listed(missing)}"] if missing else []
    faults += [f"unexpected {_listed(unexpected)}"] if unexpected else []
    return faults + ([_listed(misshaped, "; ")] if misshaped else [])


def _shape(value: object) -> object:
    if isinstance(value, Tensor) and not value.is_nested:  # a nested tensor has no shape
        return list(value.shape)
    return type(value).__name__


def _listed(items: Sequence[str], separator: str = ", ", shown: int = 4) -> str:
    rest = f" and {len(items) - shown} more" if len(items) > shown else ""
    return separator.join(items[:shown]) + rest
