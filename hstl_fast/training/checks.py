"""Types and ranges of the fields of a training's configuration, checked when it is made."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hstl_fast.data.layouts import LAYOUTS
from hstl_fast.environment import BACKEND
from hstl_fast.evaluation import METRICS, PROTOCOLS
from hstl_fast.models.config import PRESETS
from hstl_fast.names import did_you_mean

PRECISIONS = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("adam", "sgd")
LAYOUT_NAMES = ("auto", *LAYOUTS, "packed")
# The accelerators that Lightning Fabric knows by name.
ACCELERATORS = ("auto", "cpu", "cuda", "gpu", "mps", "tpu")
# GREW's test set has no public answers, so that there is nothing to evaluate during a training.
TRAINING_PROTOCOLS = tuple(name for name in PROTOCOLS if name != "grew")
_LARGEST_SEED = 2**63 - 1
_NULL = ("", "~", "null", "Null", "NULL")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9_]{0,30})")
_NUMBER = re.compile(r"[+-]?(\d[\d_]*\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_DEVICES = re.compile(r"auto|[1-9]\d*|\d+(,\d+)+,?|\d+,")
_LONGEST_QUOTE = 60


class Plain(str):
    """Text that was written without quotes, in a YAML file or on the command line: its field decides on its type."""


class ConfigError(ValueError):
    """A field has a wrong value; `path` names the field, such as `schedule.milestones`."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path


@dataclass(frozen=True)
class Kind:
    """The type of a field.

    Attributes:
        expected: The type in words.
        read: Converts a value to the type, or raises ValueError or TypeError.
    """

    expected: str
    read: Callable[[Any], Any]


def _integer(value: object) -> int:
    if isinstance(value, Plain) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise TypeError


def _number(value: object) -> float:
    if isinstance(value, Plain) and _NUMBER.fullmatch(value):
        number = float(value.replace("_", ""))
    elif isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        number = float(value)
    else:
        raise TypeError
    if not math.isfinite(number):
        raise ValueError
    return number


def _flag(value: object) -> bool:
    if isinstance(value, Plain) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError


def _text(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, (str, int)) and not isinstance(value, bool) and not is_null(value):
        return str(value)
    raise TypeError


def _integers(value: object) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(_integer(each) for each in value)
    raise TypeError


def _or_null(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if is_null(value) else read(value)


# The types of fields by their annotations.
KINDS = {
    "int": Kind("a whole number", _integer),
    "float": Kind("a finite number", _number),
    "bool": Kind("true or false", _flag),
    "str": Kind("text", _text),
    "tuple[int, ...]": Kind("a list of whole numbers", _integers),
    "str | None": Kind("text or null", _or_null(_text)),
    "int | None": Kind("a whole number or null", _or_null(_integer)),
}


def is_null(value: object) -> bool:
    """Return whether a value stands for nothing.

    Args:
        value: A value as it was given.

    Returns:
        True for None and for the words of YAML that mean it, without quotes.
    """
    return value is None or (isinstance(value, Plain) and value in _NULL)


def got(value: object) -> str:
    """Say in an error what was given.

    Args:
        value: A value as it was given.

    Returns:
        The value, shortened, or its kind.
    """
    if is_null(value):
        return "null" if value is None or value else "nothing"
    if isinstance(value, Mapping):
        return f"fields by name ({', '.join(map(str, value)) or 'none'})"
    written = f"[{', '.join(map(_written, value))}]" if isinstance(value, (list, tuple)) else _written(value)
    return written if len(written) <= _LONGEST_QUOTE else f"{written[: _LONGEST_QUOTE - 3]}..."


def _written(value: object) -> str:
    """A value as it was written; other text than numbers gets quotes."""
    if isinstance(value, Plain) and _NUMBER.fullmatch(value):
        return str(value)
    if isinstance(value, str):
        return repr(str(value))
    return repr(value.item() if isinstance(value, np.generic) else value)


def typed(path: str, annotation: str, value: object) -> Any:
    """Convert a value to the type of its field.

    Args:
        path: The field, such as `schedule.steps`.
        annotation: Its type, a key of `KINDS`.
        value: The value.

    Returns:
        The value as a plain Python object of that type.

    Raises:
        ConfigError: The value has another type.
    """
    kind = KINDS[annotation]
    try:
        return kind.read(value)
    except (TypeError, ValueError):
        raise ConfigError(path, f"expected {kind.expected}, got {got(value)}") from None


Check = Callable[[Any], "str | None"]


def _at_least(least: int) -> Check:
    return lambda value: None if value is None or value >= least else f"expected a whole number of at least {least}"


def _within(least: float, most: float) -> Check:
    return lambda value: None if least <= value <= most else f"expected a number in {least}..{most}"


def _positive(value: float) -> str | None:
    return None if value > 0 else "expected a number above 0"


def _not_negative(value: float) -> str | None:
    return None if value >= 0 else "expected a number of at least 0"


def _below_one(value: float) -> str | None:
    return None if 0 <= value < 1 else "expected a number of at least 0 and below 1"


def _one_of(names: Iterable[str]) -> Check:
    known = tuple(names)
    return lambda value: None if value is None or value in known else f"expected one of {', '.join(known)}"


def _seed(value: int) -> str | None:
    return None if 0 <= value <= _LARGEST_SEED else f"expected a whole number in 0..{_LARGEST_SEED}"


def _devices(value: str) -> str | None:
    return None if _DEVICES.fullmatch(value) else "expected auto, a number of devices, or their indices such as 0,2"


def _increasing(milestones: tuple[int, ...]) -> str | None:
    in_order = all(first < second for first, second in zip((0, *milestones), milestones))
    return None if in_order else "expected steps of at least 1 in increasing order"


CHECKS: dict[str, Check] = {
    "seed": _seed,
    "data.layout": _one_of(LAYOUT_NAMES),
    "data.workers": _at_least(0),
    **{f"data.augmentation.{name}": _within(0, 1) for name in ("flip", "perspective", "affine", "erasing")},
    "network.preset": _one_of(PRESETS),
    "batch.people": _at_least(2),
    "batch.sequences": _at_least(1),
    "batch.frames": _at_least(1),
    "batch.stretch": _at_least(1),
    "loss.triplet": _not_negative,
    "loss.margin": _not_negative,
    "loss.cross_entropy": _not_negative,
    "loss.scale": _positive,
    "loss.smoothing": _below_one,
    "optimizer.name": _one_of(OPTIMIZERS),
    "optimizer.lr": _positive,
    "optimizer.weight_decay": _not_negative,
    "optimizer.momentum": _below_one,
    "schedule.steps": _at_least(1),
    "schedule.milestones": _increasing,
    "schedule.factor": _positive,
    "schedule.warmup": _at_least(0),
    "machine.accelerator": _one_of(ACCELERATORS),
    "machine.devices": _devices,
    "machine.nodes": _at_least(1),
    "machine.precision": _one_of(PRECISIONS),
    "machine.backend": _one_of(BACKEND.choices),
    "saving.every": _at_least(1),
    "saving.keep": _at_least(1),
    "saving.log_every": _at_least(1),
    "evaluation.every": _at_least(0),
    "evaluation.protocol": _one_of(TRAINING_PROTOCOLS),
    "evaluation.metric": _one_of(METRICS),
    "evaluation.max_frames": _at_least(1),
}
_NAMES = {
    "data.layout": LAYOUT_NAMES,
    "network.preset": tuple(PRESETS),
    "optimizer.name": OPTIMIZERS,
    "machine.accelerator": ACCELERATORS,
    "machine.precision": PRECISIONS,
    "machine.backend": BACKEND.choices,
    "evaluation.protocol": TRAINING_PROTOCOLS,
    "evaluation.metric": METRICS,
}


def checked(path: str, annotation: str, value: object) -> Any:
    """Convert a value to the type of its field, and check its range.

    Args:
        path: The field, such as `schedule.steps`.
        annotation: Its type, a key of `KINDS`.
        value: The value.

    Returns:
        The value as a plain Python object of that type.

    Raises:
        ConfigError: The value has another type or is out of range; the message says what is expected, and names the
            nearest name where one of a few is.
    """
    converted = typed(path, annotation, value)
    problem = CHECKS[path](converted) if path in CHECKS else None
    if problem is not None:
        near = did_you_mean(str(converted), _NAMES[path]) if path in _NAMES else ""
        raise ConfigError(path, f"{problem}; got {got(value)}{near}")
    return converted
