"""Labelled embeddings as the protocols take them, checked once."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

# So many names stand in a message; the others are counted.
_NAMED = 8
# So many embeddings are checked at a time, which bounds the memory.
_ROWS_AT_ONCE = 1024


class Samples(NamedTuple):
    """Embeddings of `N` sequences and what is known of them.

    Attributes:
        vectors: Embeddings `[N, P, C]` float32.
        labels: The person of each sequence, `[N]`, in Unicode's form NFC.
        types: The recording of each sequence, `[N]`.
        views: The camera of each sequence, `[N]`.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.str_]
    types: NDArray[np.str_]
    views: NDArray[np.str_]

    def of_types(self, types: Iterable[str]) -> NDArray[np.intp]:
        """Return the numbers of the sequences of some types, in their order."""
        return np.flatnonzero(np.isin(self.types, list(types)))

    def views_of(self, *chosen: NDArray[np.intp]) -> list[str]:
        """Return the views of the chosen sequences: numbers by their value, others by their name."""
        found = {str(view) for indices in chosen for view in self.views[indices]}
        return sorted(found, key=lambda view: (0, int(view), view) if view.isdecimal() else (1, 0, view))

    def people_of(self, *chosen: NDArray[np.intp]) -> int:
        """Count the people among the chosen sequences."""
        return len({str(label) for indices in chosen for label in self.labels[indices]})


def check_samples(vectors: Any, labels: Sequence[str], types: Sequence[str], views: Sequence[str]) -> Samples:
    """Check labelled embeddings.

    Args:
        vectors: Embeddings `[N, P, C]` of any floating type; they are compared as float32.
        labels: The person of each sequence.
        types: The recording of each sequence.
        views: The camera of each sequence.

    Returns:
        The same, as arrays.

    Raises:
        ValueError: There are no embeddings, their shape or their values cannot be used, or their names as in
            `check_names`.
    """
    if isinstance(vectors, torch.Tensor) and vectors.is_floating_point():
        vectors = vectors.detach().float().cpu()
    array = np.asarray(vectors)
    if array.ndim != 3 or array.dtype.kind != "f" or 0 in array.shape:
        raise ValueError(
            f"vectors must be embeddings [N, P, C] of a floating type; got {array.dtype} {list(array.shape)}"
        )
    named = check_names(len(array), labels, types, views)
    array = array.astype(np.float32, copy=False)
    finite = _finite_rows(array)
    if not finite.all():
        first = int(finite.argmin())
        where = "/".join(str(names[first]) for names in named[1:])
        raise ValueError(
            f"vectors must be finite; got NaN or infinity in {int((~finite).sum())} of {len(array)} embeddings, "
            f"the first of them number {first} ({where})"
        )
    return named._replace(vectors=array)


def check_names(count: int, labels: Sequence[str], types: Sequence[str], views: Sequence[str]) -> Samples:
    """Check the names of sequences that need not be embedded yet.

    Args:
        count: The number of sequences.
        labels: The person of each sequence.
        types: The recording of each sequence.
        views: The camera of each sequence.

    Returns:
        The names as arrays, with vectors `[N, 0, 0]`.

    Raises:
        ValueError: There are other numbers of names than of sequences, or people are named in two ways.
    """
    for what, names in {"labels": labels, "types": types, "views": views}.items():
        if isinstance(names, str) or len(names) != count:
            got = repr(names) if isinstance(names, str) else str(len(names))
            raise ValueError(f"{what} must name each of the {count} embeddings; got {got}")
    people = [composed(str(label)) for label in labels]
    _refuse_two_spellings(people)
    return Samples(
        np.empty((count, 0, 0), np.float32),
        np.array(people, np.str_),
        np.array([str(name) for name in types], np.str_),
        np.array([str(name) for name in views], np.str_),
    )


def composed(name: str) -> str:
    """Return a name in Unicode's form NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def listed(names: Iterable[object]) -> str:
    """Join names for a message: all of a few, or the first few and the number of the others."""
    known = sorted({str(name) for name in names})
    shown = ", ".join(known[:_NAMED]) or "none"
    return shown if len(known) <= _NAMED else f"{shown} and {len(known) - _NAMED} more"


def no_such_types(protocol: str, what: str, wanted: Iterable[str], samples: Samples) -> ValueError:
    """Return the error for data without the types that a protocol needs."""
    return ValueError(
        f"{protocol} needs {what} of the types {', '.join(wanted)}; the data have the types {listed(samples.types)}"
    )


def _finite_rows(array: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether all values of each embedding are finite, `[N]`."""
    blocks = (array[start : start + _ROWS_AT_ONCE] for start in range(0, len(array), _ROWS_AT_ONCE))
    return np.concatenate([np.isfinite(block).all(axis=(1, 2)) for block in blocks])


def _refuse_two_spellings(people: Iterable[str]) -> None:
    """Refuse people whose names are one number in two spellings: their sequences would be those of strangers."""
    spellings: dict[int, str] = {}
    for label in people:
        if label.isdecimal() and spellings.setdefault(int(label), label) != label:
            raise ValueError(
                f"labels must name a person in one way; got {spellings[int(label)]!r} and {label!r}, the same number"
            )
