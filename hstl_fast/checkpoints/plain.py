"""Values as a file can hold them that is read without running code: numbers, text, containers of them, and tensors."""

from __future__ import annotations

import enum
import math
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hstl_fast.models.effective import whole

# Deeper containers would exceed the recursion limit of Python when they are pickled.
_DEEPEST = 100


def plain(value: Any, name: str) -> Any:
    """Make a value plain, so that `torch.load(..., weights_only=True)` reads it back.

    Args:
        value: None, a number (Python's, NumPy's or torch's), text, a path, an enumeration's member, a NumPy array, a
            tensor, or a list, tuple or mapping of such values.
        name: What the value is called in messages.

    Returns:
        The same in `None`, `bool`, `int`, `float`, `str`, `bytes`, `list`, `tuple`, `dict` and `Tensor`. Enumerations
        become their members' values, paths text, NumPy arrays tensors or, where they hold text, lists. A `Counter`
        stays one, since `MultiStepLR` counts with it. Tensors are detached but not copied, unless they are views of a
        larger memory, which would be written whole.

    Raises:
        ValueError: Something in it cannot be stored; the message says where.
    """
    return _plain(value, name, 0)


def _plain(value: Any, name: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{name.partition('[')[0]}: cannot be stored, it is nested more than {_DEEPEST} deep")
    if isinstance(value, enum.Enum):
        return _plain(value.value, name, depth + 1)
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain_array(value, name, depth)
    if isinstance(value, Tensor):
        return plain_tensor(value, name)
    if isinstance(value, os.PathLike):
        return _plain(os.fspath(value), name, depth + 1)
    kind: Any
    for kind in (bool, int, float, str, bytes):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    if value is None or isinstance(value, (torch.dtype, torch.device)):
        return value
    if isinstance(value, Mapping):
        return _plain_mapping(value, name, depth)
    if isinstance(value, (list, tuple)):
        items = [_plain(item, f"{name}[{i}]", depth + 1) for i, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise ValueError(f"{name}: cannot be stored, got {_kind_of(value)}")


def _plain_mapping(value: Mapping[Any, Any], name: str, depth: int) -> dict[Any, Any]:
    items: dict[Any, Any] = Counter() if isinstance(value, Counter) else {}
    for key, item in value.items():
        where = f"{name}[{key!r}]"
        stored = _plain(key, f"{name}, its key {key!r}", depth + 1)
        if isinstance(stored, Tensor):
            raise ValueError(f"{name}, its key {key!r}: cannot be stored, got a tensor as a key")
        if stored in items:
            raise ValueError(f"{where}: cannot be stored, another key of {name} is {stored!r}, too")
        items[stored] = _plain(item, where, depth + 1)
    return items


def _plain_array(value: np.ndarray[Any, Any] | np.generic, name: str, depth: int) -> Any:
    if isinstance(value, np.ma.MaskedArray):
        raise ValueError(f"{name}: cannot be stored, got {_kind_of(value)}")
    if isinstance(value, np.generic):
        number = value.item()
        if isinstance(number, np.generic):  # of a type wider than Python's
            raise ValueError(f"{name}: cannot be stored, got a number of NumPy's type {value.dtype}")
        return _plain(number, name, depth + 1)
    if value.dtype.kind in "US":
        return value.tolist()
    try:
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    except TypeError:
        raise ValueError(f"{name}: cannot be stored, got an array of NumPy's type {value.dtype}") from None


def plain_tensor(value: Tensor, name: str) -> Tensor:
    """Detach a tensor for a file; a `DTensor` is gathered.

    Args:
        value: The tensor.
        name: What it is called in messages.

    Returns:
        The tensor without its history, of the class `Tensor`, and without the rest of a larger memory.

    Raises:
        ValueError: It is no dense tensor of torch's own class, or has no numbers.
    """
    value = whole(value)
    if value.is_nested or value.is_quantized or value.layout is not torch.strided:
        raise ValueError(f"{name}: cannot be stored, got a tensor that is not dense ({_layout_of(value)})")
    if value.is_meta:
        raise ValueError(f"{name}: cannot be stored, got a tensor without numbers, on the device meta")
    detached = value.detach()
    if type(detached) is not Tensor and not isinstance(value, torch.nn.Parameter):
        raise ValueError(f"{name}: cannot be stored, got {_kind_of(value)}")
    detached = detached.resolve_conj().resolve_neg()
    is_view = detached.untyped_storage().nbytes() > math.prod(detached.shape) * detached.element_size()
    return detached.clone() if is_view else detached


def _layout_of(value: Tensor) -> str:
    if value.is_nested:
        return "nested"
    return "quantized" if value.is_quantized else str(value.layout).removeprefix("torch.")


def _kind_of(value: object) -> str:
    if callable(value) and hasattr(value, "__name__"):
        return f"the class {value.__name__}" if isinstance(value, type) else f"the function {value.__name__}"
    kind = type(value)
    return f"an object of the class {kind.__module__}.{kind.__qualname__}".replace("builtins.", "")
