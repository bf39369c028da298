"""Files with a network's tensors, in the released form or another common one, read without running code from them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from hstl_fast.models.prefixes import split_prefix

# What the parts of a checkpoint are called: in the released form and ours, in Lightning's, in torch's tutorials.
_MODEL = ("model", "state_dict", "model_state_dict")
_OPTIMIZER = ("optimizer", "optimizer_states", "optimizer_state_dict")
_SCHEDULER = ("scheduler", "lr_schedulers", "scheduler_state_dict")
_ITERATION = ("iteration", "global_step")
_OURS = ("network", "training")
# torch's safe unpickler says by one of these that it met an object it will not make.
_REFUSED_CODE = ("GLOBAL", "Trying to call reduce", "Can only create new object", "Can only build")
_WAY_OUT = "torch.save({'model': model.state_dict()}, path) where it was written stores the tensors alone"
_SINCE = ", since that runs code"
# Pickles of protocol 3 and above; torch.save writes protocol 2, in an archive or after a number of its own.
_PICKLE = re.compile(b"\x80[\x03-\x09]")
# AveragedModel's count of models.
_COUNT = "n_averaged"


@dataclass
class Content:
    """The content of a checkpoint's file.

    Attributes:
        model: The network's tensors by name, without the prefixes of wrappers.
        optimizer: The optimiser's state, unchecked, or None.
        scheduler: The scheduler's state, unchecked, or None.
        iteration: The number of training steps.
        network: The fields of the network's configuration, unchecked; None if the file does not say.
        training: What a training goes on from, unchecked, or None.
        others: The names of everything else in the file.
    """

    model: Mapping[str, Any]
    optimizer: Any = None
    scheduler: Any = None
    iteration: int = 0
    network: Any = None
    training: Any = None
    others: list[str] = field(default_factory=list)


def read(path: str | os.PathLike[str]) -> Content:
    """Read a checkpoint without running any code from it.

    It may be in the released form, a Lightning checkpoint, or a bare `state_dict()`.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is truncated, holds pickled code or is no checkpoint; the message names it and says what to do.
    """
    name = os.fspath(path)
    if Path(path).is_dir():
        raise IsADirectoryError(f"{name}: {_about_folder(Path(path))}")
    with Path(path).open("rb") as file:
        if _PICKLE.match(beginning := file.read(64)):
            raise ValueError(
                f"{name}: is a pickle that torch.save did not write; it is never loaded{_SINCE}; {_WAY_OUT}"
            )
        file.seek(0)
        try:
            loaded = torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except Exception as fault:  # broken files make torch stumble in many ways, all of them the file's fault
            raise ValueError(f"{name}: {_about_file(beginning, str(fault))}") from None
    try:
        return _content(loaded)
    except ValueError as fault:
        raise ValueError(f"{name}: {fault}") from None


def _about_folder(path: Path) -> str:
    if (path / ".metadata").exists():
        return (
            "is the folder of a distributed checkpoint; "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, path) makes a file of it"
        )
    return "expected a checkpoint's file, got a folder"


def _about_file(beginning: bytes, fault: str) -> str:
    """Return why torch could not load a file, and what to do."""
    if beginning.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer; git lfs pull fetches the file itself"
    if beginning.lstrip()[:1] == b"<":
        return "is a web page, not the file that it links to"
    if beginning[8:9] == b"{" and beginning[6:8] == b"\0\0":
        return "is a safetensors file; torch.save(safetensors.torch.load_file(path), other) makes one that can be read"
    if "TorchScript" in fault:
        return "is a TorchScript archive; torch.save(torch.jit.load(path).state_dict(), other) makes a file to read"
    if any(sign in fault for sign in _REFUSED_CODE):
        found = re.search(r"GLOBAL (\S+)", fault)
        what = f", such as {found[1].rstrip('.,')}" if found else ""
        return (
            "holds pickled objects other than tensors and plain containers (a whole model, perhaps)"
            f"{what}; they are never loaded{_SINCE}; {_WAY_OUT}"
        )
    return "is truncated or not a file written by torch.save"


def _content(loaded: object) -> Content:
    if _is_state_dict(loaded):
        return Content(_without_prefixes(loaded))
    parts: Mapping[Any, Any] = loaded if isinstance(loaded, Mapping) else {}
    model = next((key for key in _MODEL if isinstance(parts.get(key), Mapping)), None)
    if model is None:
        got = sorted(map(str, parts))[:8] if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ValueError(f"must be a dict with model, optimizer, scheduler and iteration, got {got}; {_WAY_OUT}")
    used = {model, *_OURS}
    found = {}
    for part, keys in (("optimizer", _OPTIMIZER), ("scheduler", _SCHEDULER), ("iteration", _ITERATION)):
        key = next((key for key in keys if parts.get(key) is not None), keys[0])
        found[part] = _only_one(parts.get(key))
        used.add(key)
    iteration = found.pop("iteration")
    return Content(
        _without_prefixes(parts[model]),
        **found,
        iteration=iteration if isinstance(iteration, int) else 0,
        network=parts.get("network"),
        training=parts.get("training"),
        others=[str(key) for key in parts if key not in used],
    )


def _is_state_dict(loaded: object) -> TypeGuard[Mapping[Any, Tensor]]:
    return isinstance(loaded, Mapping) and bool(loaded) and all(isinstance(value, Tensor) for value in loaded.values())


def _only_one(value: Any) -> Any:
    """The only element of a list, as Lightning keeps the states of its optimisers; other values as they are."""
    return (value[0] if len(value) == 1 else None) if isinstance(value, list) else value


def _without_prefixes(tensors: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    first: dict[str, str] = {}
    for name, value in tensors.items():
        prefix, rest = split_prefix(str(name))
        if rest == _COUNT and prefix + rest != rest:
            continue
        if rest in found:
            raise ValueError(
                f"holds more than one network: {first[rest]!r} and {str(name)!r}; "
                "store a dict of those of one of them, by torch.save"
            )
        found[rest], first[rest] = value, str(name)
    if any(name != rest for rest, name in first.items()):
        found.pop(_COUNT, None)
    return found
