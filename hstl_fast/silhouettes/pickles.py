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

from hstl_fast.silhouettes.contents import described
from hstl_fast.silhouettes.errors import SilhouetteError, reason_of, short

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
    raw = data.encode("latin-1") if isinstance(data, str) else data if type(data) is bytes else bytes(memoryview(data))
    plain = _Dtype.build(dtype)  # a file may have replaced the method
    if math.prod(shape) * plain.itemsize != len(raw):
        raise ValueError(f"its {len(raw)} bytes are not an array {list(shape)} of {plain}")
    return np.frombuffer(raw, plain).reshape(shape, order="F" if order == "F" else "C")


def _transposed(array: NDArray[np.generic], axes: Any) -> NDArray[np.generic]:
    are_integers = isinstance(axes, tuple) and all(isinstance(axis, int) for axis in axes)
    if not are_integers or sorted(axes) != list(range(array.ndim)):
        raise ValueError("its order of axes is not a permutation of them")
    return array.transpose(axes)


class _ArrayUnpickler(pickle.Unpickler):
    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        make = _REPLACEMENTS.get(f"{module.replace('numpy._core', 'numpy.core')}.{name}")
        if make is None:
            raise _Forbidden(short(f"{module}.{name}", 80))
        return make()

    def persistent_load(self, pid: Any) -> Any:
        raise _Forbidden("a persistent id")


def _new_array() -> Any:
    class Array(_Array):
        pass

    return Array


def _new_dtype() -> Any:
    class Dtype(_Dtype):
        pass

    return Dtype


def _new_reconstruct() -> Any:
    def reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
        return _Array()

    return reconstruct


def _new_from_buffer() -> Any:
    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
        array = _Array()
        array.value = _rebuild(buffer, dtype, shape, order)
        if order == "K" and axes is not None:
            array.value = _transposed(array.value, axes)
        return array

    return from_buffer


def _new_encode() -> Any:
    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise ValueError("its bytes are not stored as numpy stores them")
        return text.encode("latin-1")

    return encode


# The names that the pickle of an array may use. What stands for them is made anew each time, so that a file cannot
# alter what the next one meets.
_REPLACEMENTS = {
    "numpy.core.multiarray._reconstruct": _new_reconstruct,
    "numpy.core.numeric._frombuffer": _new_from_buffer,
    "numpy.ndarray": _new_array,
    "numpy.dtype": _new_dtype,
    "_codecs.encode": _new_encode,
}


def load_array(path: Path) -> NDArray[np.generic] | list[NDArray[np.generic]]:
    """Read the array in a pickle file.

    Args:
        path: The file.

    Returns:
        The array; of a list of arrays `[H, W]` the stack, or the list where their sizes differ.

    Raises:
        SilhouetteError: The file holds anything else, or names a function to call.
    """
    try:
        content = _ArrayUnpickler(path.read_bytes()).load()
        return _only_arrays(content, path)
    except SilhouetteError:
        raise
    except _Forbidden as error:
        raise SilhouetteError(
            f"{path}: expected a pickle with nothing but a numpy array, got one that names {error}; nothing was run"
        ) from None
    except Exception as error:  # a damaged pickle can fail in any way
        got = described(path, "a file that cannot be read as one")
        raise SilhouetteError(
            f"{path}: expected a pickle with a numpy array, got {got} ({reason_of(error)})"
        ) from error


def _only_arrays(content: Any, path: Path) -> NDArray[np.generic] | list[NDArray[np.generic]]:
    array = _value(content)
    if array is not None:
        return array
    if not isinstance(content, list | tuple):
        raise SilhouetteError(f"{path}: expected a pickle with a numpy array, got one with a {type(content).__name__}")
    frames = [a for a in map(_value, content) if a is not None]
    shapes = {a.shape for a in frames}
    if not frames or len(frames) < len(content) or any(len(shape) != 2 or min(shape) <= 4 for shape in shapes):
        got = f"a list of {len(content)} things, {len(frames)} of them arrays {sorted(map(list, shapes))[:3]}"
        points = any(len(shape) == 2 and shape[1] <= 4 for shape in shapes)
        other = ": points or key points, another modality?" if points else ""
        raise SilhouetteError(f"{path}: expected one array or a list of frames [H, W], got {got}{other}")
    return frames if len(shapes) > 1 else np.stack(frames)


def _value(content: Any) -> NDArray[np.generic] | None:
    value = content.value if isinstance(content, _Array) else None
    return value if isinstance(value, np.ndarray) else None
