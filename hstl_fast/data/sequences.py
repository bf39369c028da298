"""Labelled silhouette sequences that are read one by one; every layout and every packed file is opened as one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.io import Reading
from hstl_fast.silhouettes.left_out import LeftOut


class Item(NamedTuple):
    """Names of a sequence, known without reading it.

    Attributes:
        label: The person.
        type: The recording, such as `nm-01` (CASIA-B), `00` (OUMVLP) or `camid0_videoid2` (Gait3D); may be empty.
        view: The camera, such as `090`; may be empty.
        name: `label/type/view[/...]`, without empty components; unique in its data set.
    """

    label: str
    type: str
    view: str
    name: str


class Partition(NamedTuple):
    """A division of a data set as a partition file names it.

    Attributes:
        train: Labels of the people in training.
        test: Labels of the people in the test set.
        probes: Names of the sequences that are probes, `label-type-view` as in OpenGait's files; may be empty.
        gallery: Names of the sequences that are the gallery, in the same form; empty where everything else is.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    probes: tuple[str, ...] = ()
    gallery: tuple[str, ...] = ()


class Sequences(ABC):
    """A data set of labelled sequences.

    Attributes:
        items: Names of each sequence, in the order of their names.
        source: The path that was opened.
        layout: The name of its layout, one of `LAYOUTS`, or `packed`.
        partition: The division into training and test set, or None.
        left_out: What was found beside the sequences and left out.
        knows_lengths: Whether `num_frames` and `read_frames` read no more than they have to.
        notes: Sentences about the data set as a whole, such as labels that differ by leading zeros only.
    """

    knows_lengths = False

    def __init__(
        self,
        items: Iterable[Item],
        source: str,
        layout: str,
        partition: Partition | None = None,
        left_out: Iterable[LeftOut] = (),
        notes: Iterable[str] = (),
    ) -> None:
        self.items = tuple(items)
        self.source = source
        self.layout = layout
        self.partition = partition
        self.left_out = tuple(left_out)
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def labels(self) -> tuple[str, ...]:
        """The person of each sequence."""
        return tuple(item.label for item in self.items)

    @property
    def types(self) -> tuple[str, ...]:
        """The recording of each sequence."""
        return tuple(item.type for item in self.items)

    @property
    def views(self) -> tuple[str, ...]:
        """The camera of each sequence."""
        return tuple(item.view for item in self.items)

    @property
    def names(self) -> tuple[str, ...]:
        """The unique name of each sequence."""
        return tuple(item.name for item in self.items)

    @property
    def total_frames(self) -> int | None:
        """The frames of all sequences, where the storage knows them without reading; else None."""
        return None

    @abstractmethod
    def reading(self, index: int) -> Reading:
        """Read a sequence, with what was left out of it.

        Args:
            index: Number of the sequence.

        Returns:
            Its silhouettes `[T, 64, 64]` uint8 and what was left out.

        Raises:
            SilhouetteError: The sequence cannot be read; the message names its file.
            IndexError: There is no such sequence.
        """

    def read(self, index: int) -> NDArray[np.uint8]:
        """Read a sequence.

        Args:
            index: Number of the sequence.

        Returns:
            Its silhouettes `[T, 64, 64]` uint8.

        Raises:
            SilhouetteError: The sequence cannot be read; the message names its file.
            IndexError: There is no such sequence.
        """
        return self.reading(index).silhouettes

    def path(self, index: int) -> str | None:
        """Return where a sequence is on disk.

        Args:
            index: Number of the sequence.

        Returns:
            Its file or folder, or None if it has none of its own.
        """
        return None

    def num_frames(self, index: int) -> int:
        """Count the frames of a sequence; where the storage does not know it, the sequence is read.

        Args:
            index: Number of the sequence.

        Returns:
            The number of frames that `read` gives.
        """
        return len(self.read(index))

    def read_frames(self, index: int, frames: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Read some frames of a sequence; storages that can do it read no others.

        Args:
            index: Number of the sequence.
            frames: Numbers `[n]` of the frames, in any order, with repetitions.

        Returns:
            The silhouettes `[n, 64, 64]` uint8.
        """
        return self.read(index)[frames]

    def subset(self, indices: Iterable[int]) -> Sequences:
        """Choose sequences; nothing is read.

        Args:
            indices: Numbers of the sequences, in the order of the result.

        Returns:
            A data set of these sequences.
        """
        return _Subset(self, list(indices))


class _Subset(Sequences):
    def __init__(self, whole: Sequences, indices: list[int]) -> None:
        items = [whole.items[i] for i in indices]
        super().__init__(items, whole.source, whole.layout, whole.partition, whole.left_out, whole.notes)
        self._whole, self._indices, self.knows_lengths = whole, indices, whole.knows_lengths

    @property
    def total_frames(self) -> int | None:
        if self._whole.total_frames is None:
            return None
        return sum(self.num_frames(i) for i in range(len(self)))

    def reading(self, index: int) -> Reading:
        return self._whole.reading(self._indices[index])

    def path(self, index: int) -> str | None:
        return self._whole.path(self._indices[index])

    def num_frames(self, index: int) -> int:
        return self._whole.num_frames(self._indices[index])

    def read_frames(self, index: int, frames: NDArray[np.intp]) -> NDArray[np.uint8]:
        return self._whole.read_frames(self._indices[index], frames)
