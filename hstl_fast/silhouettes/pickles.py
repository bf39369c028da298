"""A safe reader of OpenGait pickles: arrays are rebuilt from plain data, and no code that the file chooses is run.

A pickle may name any function to call. Here a fixed set of names, those that numpy writes for an array, is answered by
small replacements (numpy's own `__setstate__` methods trust what a file tells them about memory); every other name is
refused.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError, reason_of

# The type codes of booleans, integers and floating-point numbers.
PLAIN_DTYPE = "[biuf][1248]"


class _Forbidden(Exception):
    """The file names something that is not part of an array."""


class _Dtype:
    """A replacement of `numpy.dtype(code, align, copy)`."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code
        self.byte_order = "="

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "="):
            self.byte_order = state[1]

    def build(self) -> np.dtype[Any]:
        if not isinstance(self.code, str) or not re.fullmatch(PLAIN_DTYPE, self.code):
            named = self.code if isinstance(self.code, str) else f"a {type(self.code).__name__}"
            raise ValueError(f"its dtype, {named[:20]}, is not a plain number type")
        return np.dtype(self.byte_order + self.code)


class _Array:
    """A replacement of `numpy.ndarray`, which a pickle creates empty and then gives a state."""

    def __init__(self) -> None:
        self.value: NDArray[np.generic] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _rebuild(data, dtype, shape, "F" if fortran else "C")


def _rebuild(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[np.generic]:
    if not isinstance(dtype, _Dtype):
        raise ValueError("its dtype is not a dtype")
    if not isinstance(shape, tuple) or not all(isinstance(n, int) and 0 <= n < 2**63 for n in shape):
        raise ValueError("its shape is not a tuple of sizes")
    raw = data.encode("latin-1") if isinstance(data, str) else bytes(memoryview(data))
    plain = dtype.build()
    if math.prod(shape) * plain.itemsize != len(raw):
        raise ValueError(f"its {len(raw)} bytes are not an array {list(shape)} of {plain}")
    return np.frombuffer(raw, plain).reshape(shape, order="F" if order == "F" else "C")


def _transposed(array: NDArray[np.generic], axes: Any) -> NDArray[np.generic]:
    are_integers = isinstance(axes, tuple) and all(isinstance(axis, int) for axis in axes)
    if not are_integers or sorted(axes) != list(range(array.ndim)):
        raise ValueError("its order of axes is not a permutation of them")
    return array.transpose(axes)


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        replacement = _replacements().get((module.replace("numpy._core", "numpy.core"), name))
        if replacement is None:
            raise _Forbidden(f"{module}.{name}")
        return replacement

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("a persistent id")


def _replacements() -> dict[tuple[str, str], Any]:
    """The names that the pickle of an array may use; made anew for each name, so that a file cannot alter them."""

    class Array(_Array):
        pass

    class Dtype(_Dtype):
        pass

    def reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
        return _Array()

    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
        array = _Array()
        array.value = _rebuild(buffer, dtype, shape, order)
        if order == "K" and axes is not None:
            array.value = _transposed(array.value, axes)
        return array

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("its bytes are not stored as numpy stores them")
        return text.encode("latin-1")

    return {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,
    }


def load_array(path: Path) -> NDArray[np.generic]:
    """Read the array in a pickle file.

    Args:
        path: The file.

    Returns:
        The array, or the stacked arrays `[H, W]` of a list of them.

    Raises:
        SilhouetteError: The file holds anything else, or names a function to call.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        return _only_arrays(content, path)
    except SilhouetteError:
        raise
    except _Forbidden as error:
        raise SilhouetteError(
            f"{path}: expected a pickle with nothing but a numpy array, got one that names {error}; nothing was run"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        raise SilhouetteError(
            f"{path}: expected a pickle with a numpy array, got a file that cannot be read as one ({reason_of(error)})"
        ) from error


def _only_arrays(content: Any, path: Path) -> NDArray[np.generic]:
    array = _value(content)
    if array is not None:
        return array
    if not isinstance(content, list | tuple):
        raise SilhouetteError(f"{path}: expected a pickle with a numpy array, got one with a {type(content).__name__}")
    frames = [a for a in map(_value, content) if a is not None]
    shapes = {a.shape for a in frames}
    if not frames or len(frames) < len(content) or len(shapes) > 1 or frames[0].ndim != 2:
        got = f"a list of {len(content)} things, {len(frames)} of them arrays {sorted(map(list, shapes))[:3]}"
        raise SilhouetteError(f"{path}: expected one array or a list of frames [H, W] of one size, got {got}")
    return np.stack(frames)


def _value(content: Any) -> NDArray[np.generic] | None:
    return content.value if isinstance(content, _Array) else None
