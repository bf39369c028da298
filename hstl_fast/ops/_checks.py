"""Checks of what a caller can get wrong: every message names the argument, what was expected and what was given."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hstl_fast._torch_private import is_fake, under_transforms
from hstl_fast.layout import FLOATING

# Lengths of packed sequences, as callers may pass them.
Lengths = Sequence[int] | NDArray[np.integer] | Tensor
# What to write for the lengths that OpenGait's models get as `seqL`.
_OF_SEQL = "seq_lens=seqL[0].flatten().tolist()"


def type_name(value: object) -> str:
    """The type of what should have been a tensor."""
    if isinstance(value, torch.fx.Proxy):
        return "a Proxy of torch.fx.symbolic_trace, which has no shape to check (use torch.export.export instead)"
    return type(value).__name__


def feature_map(x: object) -> None:
    """`x` is a floating-point feature map [n, c, t, h, w] without an empty axis."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x must be a tensor [n, c, t, h, w], got {type_name(x)}")
    if x.dim() != 5:
        raise ValueError(f"x must have the 5 dimensions [n, c, t, h, w], got {x.dim()}: {list(x.shape)}")
    if x.dtype not in FLOATING:
        raise TypeError(f"x must be float16, bfloat16, float32 or float64, got {x.dtype}")
    if 0 in x.shape:
        raise ValueError(f"x must have at least one sequence, channel, frame, row and column, got {list(x.shape)}")


def rows(split: object, h: int) -> list[int]:
    """`split` as a list of positive row counts that sum to `h`."""
    if isinstance(split, np.ndarray) and split.ndim == 1:
        split = split.tolist()
    if isinstance(split, (Tensor, str)) or not isinstance(split, Sequence):
        raise TypeError(f"split must be a list of row counts, got {type(split).__name__}")
    if not split or not all(_is_integer(r) and r >= 1 for r in split):
        raise ValueError(f"split must be a non-empty list of positive integers, got {list(split)}")
    given = [int(r) for r in split]
    if sum(given) != h:
        raise ValueError(f"split must sum to H: sum({given}) = {sum(given)}, H = {h}")
    return given


def lengths(seq_lens: object, x: Tensor, at_least: int = 1) -> list[int]:
    """The lengths of the sequences packed in `x`, or [] for a batch of sequences of one length."""
    n, t = x.shape[0], x.shape[2]
    if seq_lens is None:
        if t < at_least:
            raise ValueError(f"x must have at least {at_least} frames, got {t}: {list(x.shape)}")
        return []
    given = _as_list(seq_lens)
    if n != 1:
        raise ValueError(f"x must have n = 1 when seq_lens is given (sequences packed along t), got n = {n}")
    if not given or any(length < at_least for length in given):
        raise ValueError(f"seq_lens must be lengths of at least {at_least}, got {given}")
    if sum(given) != t:
        raise ValueError(f"seq_lens must sum to the frames: sum({given}) = {sum(given)}, T = {t}")
    return given


def _as_list(seq_lens: object) -> list[int]:
    if isinstance(seq_lens, Tensor):
        _lengths_in_tensor(seq_lens)
    elif isinstance(seq_lens, np.ndarray):
        if seq_lens.ndim != 1 or seq_lens.dtype.kind not in "iu":
            raise TypeError(
                f"seq_lens must be a 1-D integer array, got {seq_lens.dtype} with {seq_lens.ndim} dimensions"
                f"{_flattened(seq_lens)}"
            )
    elif isinstance(seq_lens, str) or not isinstance(seq_lens, Sequence):
        raise TypeError(
            f"seq_lens must be a list, a numpy array or a 1-D CPU integer tensor, got {type(seq_lens).__name__}"
        )
    elif seq_lens and isinstance(seq_lens[0], (Tensor, np.ndarray)) and seq_lens[0].ndim:
        raise TypeError(
            "seq_lens must be a list of lengths, got OpenGait's seqL, a list that holds a tensor of shape "
            f"{list(seq_lens[0].shape)}; write {_OF_SEQL}"
        )
    elif not all(_is_integer(length) for length in seq_lens):
        raise TypeError(f"seq_lens must hold integers, got {list(seq_lens)}")
    values = seq_lens.tolist() if isinstance(seq_lens, (Tensor, np.ndarray)) else seq_lens
    return [int(length) for length in values]


def _lengths_in_tensor(seq_lens: Tensor) -> None:
    if seq_lens.device.type != "cpu":
        raise TypeError(
            f"seq_lens must be a list or a CPU tensor, got a tensor on {seq_lens.device}; reading it would wait "
            "for the device"
        )
    if seq_lens.dim() != 1 or seq_lens.is_floating_point() or seq_lens.dtype == torch.bool:
        raise TypeError(
            f"seq_lens must be a 1-D integer tensor, got {seq_lens.dtype} with {seq_lens.dim()} dimensions"
            f"{_flattened(seq_lens)}"
        )
    if torch.compiler.is_compiling():
        raise TypeError("seq_lens must be a list under torch.compile and torch.export, got a tensor")


def _flattened(seq_lens: Tensor | NDArray[Any]) -> str:
    """The end of a message about a tensor `[1, n]`, which OpenGait's models get."""
    is_wrapped = seq_lens.ndim == 2 and seq_lens.shape[0] == 1
    return f", as OpenGait's seqL has; write {_OF_SEQL}" if is_wrapped else ""


def bins(count: object, h: int) -> list[int]:
    """The rows of `count` equal strips of `h`."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1 or h % count:
        raise ValueError(f"bins must be a positive integer that divides H = {h}, got {count!r}")
    return [h // count] * count


def has_values(x: Tensor) -> bool:
    """Whether the values of `x` can be looked at: a compiler, a transform and a fake tensor have none to show."""
    return not (torch.compiler.is_compiling() or under_transforms() or is_fake(x))


def _is_integer(value: object) -> bool:
    """Whether `value` is an integer of Python's or numpy's, not a truth value."""
    return isinstance(value, (int, numbers.Integral)) and not isinstance(value, bool)


def parameter(value: object, name: str, shape: tuple[int | str, ...], x: Tensor) -> None:
    """`value` has `shape` (a letter stands for any size), x's device, and x's type (or float32 beside a narrower x)."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    fits = value.dim() == len(shape) and all(
        isinstance(expected, str) or size == expected for size, expected in zip(value.shape, shape, strict=True)
    )
    if not fits or 0 in value.shape:
        expected = ", ".join(str(size) for size in shape)
        raise ValueError(f"{name} must have the shape [{expected}], got {list(value.shape)}")
    if value.device != x.device:
        raise ValueError(f"{name} must be on the device of x, {x.device}, got {value.device}")
    allowed = (x.dtype,) if x.dtype.itemsize >= 4 else (x.dtype, torch.float32)
    if value.dtype not in allowed:
        raise TypeError(
            f"{name} must be {' or '.join(str(d) for d in allowed)} beside x of {x.dtype}, got {value.dtype}"
        )


def powers(value: object, shape: tuple[int | str, ...], x: Tensor) -> None:
    """`value`, called p, is a :func:`parameter` of exponents that are finite and not 0; a GPU's are not looked at."""
    parameter(value, "p", shape, x)
    assert isinstance(value, Tensor)
    if value.device.type != "cpu" or not has_values(value):
        return
    wrong = [q for q in value.detach().tolist() if q == 0 or not math.isfinite(q)]
    if wrong:
        raise ValueError(f"p must hold exponents that are finite and not 0, got {wrong[0]}")


def support(value: object, x: Tensor) -> None:
    """`value` is None or a bool tensor [n, t, h, w] on x's device."""
    if value is None:
        return
    n, _, t, h, w = x.shape
    if not isinstance(value, Tensor) or value.dtype != torch.bool:
        got = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise TypeError(f"support must be None or a bool tensor [n, t, h, w], got {got}")
    if tuple(value.shape) != (n, t, h, w) or value.device != x.device:
        raise ValueError(
            f"support must have the shape {[n, t, h, w]} on {x.device}, got {list(value.shape)} on {value.device}"
        )


def slope(negative_slope: object) -> float:
    """The slope of LeakyReLU, 1 for no activation."""
    if negative_slope is None:
        return 1.0
    if isinstance(negative_slope, bool) or not isinstance(negative_slope, (int, float)) or not negative_slope >= 0:
        raise ValueError(f"negative_slope must be None or a number of at least 0, got {negative_slope!r}")
    return float(negative_slope)
