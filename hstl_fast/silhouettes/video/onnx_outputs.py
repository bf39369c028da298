"""Outputs of segmentation models as maps of people: probabilities, logits, class channels, labels and instances."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hstl_fast.silhouettes.errors import SilhouetteError, short
from hstl_fast.silhouettes.video.onnx_options import ModelOptions

Floats = NDArray[np.float32]
Shape = tuple[int, ...]
# The class of people by the number of classes: people alone, background and person, Pascal VOC, ADE20K, COCO.
PERSON_OF = {1: 0, 2: 1, 21: 15, 150: 12, 80: 0}
# Names under which classes of people go.
PERSON_NAMES = ("person", "people", "human", "pedestrian")
# A map of fewer rows or columns than this shows no outline.
SMALLEST_MAP = 8
# Probabilities may leave the range from 0 to 1, and their sum over the classes 1, by so much, as rounding does.
TOLERANCE = 0.01
# Detections below this score show nobody; of two that share more than this of their union, the better one is kept.
LEAST_SCORE, MOST_OVERLAP = 0.25, 0.7
# The logits of instances are clipped to this.
LARGEST_LOGIT = 10.0


class Decoder(Protocol):
    """Turns outputs, without the axis of the batch, into a map of people."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are needed."""

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        """Compute a map `[h, w]`: above 0 where people are."""


@dataclass(frozen=True)
class Trial:
    """A model, and what it gave for a trial picture.

    Attributes:
        source: The model, for errors.
        size: Rows and columns of the input.
        layout: Layout of the input, `nchw` or `nhwc`.
        outputs: The outputs by name, without the axis of the batch.
        metadata: The texts in the model's file.
    """

    source: str
    size: tuple[int, int]
    layout: str
    outputs: dict[str, NDArray[Any]]
    metadata: Mapping[str, str]


def decoder_for(trial: Trial, options: ModelOptions) -> Decoder:
    """Choose the decoder that fits the outputs of a model.

    Args:
        trial: The model's outputs for a trial picture.
        options: How the model is used.

    Returns:
        The decoder.

    Raises:
        SilhouetteError: No output is a mask, several may be, or it is not known which class is a person.
    """
    _refuse_other_tasks(trial)
    pair = _instance_outputs(trial) if options.output is None else None
    if pair is not None:
        return _instances(trial, options, *pair)
    name, axis = _mask_output(trial, options)
    array = trial.outputs[name]
    count = 1 if axis is None else array.shape[axis]
    if count > 1:
        return _class_channels(trial, options, name, axis or 0)
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        classes = (1,) if array.dtype == bool else person_classes(trial, options, None, f"labels ({array.dtype})")
        return _Labels((name,), axis, classes)
    if options.classes is not None:
        person_classes(trial, options, 1, "one channel")
    trial_values = _floats(array, trial.source)
    outside = trial_values.min() < -TOLERANCE or trial_values.max() > 1 + TOLERANCE
    holds_logits = options.values == "logits" or (options.values is None and bool(outside))
    return _OneChannel((name,), trial.source, axis, options.threshold or 0.5, holds_logits)


def _refuse_other_tasks(trial: Trial) -> None:
    task = trial.metadata.get("task")
    if is_ultralytics(trial.metadata) and task != "segment":
        raise SilhouetteError(
            f"{trial.source}: expected a model that segments, got one for the task {short(str(task))}"
        )


def is_ultralytics(metadata: Mapping[str, str]) -> bool:
    """Tell whether a model's metadata are those that Ultralytics writes."""
    return {"task", "stride", "names"} <= set(metadata)


def trained_size(metadata: Mapping[str, str]) -> tuple[int, int] | None:
    """Read the size of the input that a model of Ultralytics was trained on; None where it states none."""
    numbers = re.findall(r"\d{1,5}", metadata.get("imgsz", "")) if is_ultralytics(metadata) else []
    return (int(numbers[0]), int(numbers[1])) if len(numbers) == 2 and "0" not in numbers else None


def _mask_output(trial: Trial, options: ModelOptions) -> tuple[str, int | None]:
    """The output that holds the mask, and its axis of channels."""
    outputs = trial.outputs
    if options.output is not None:
        if options.output not in outputs:
            names = ", ".join(map(short, outputs))
            raise SilhouetteError(f"{trial.source}: output: expected one of {names}, got {short(options.output)!r}")
        outputs = {options.output: outputs[options.output]}
    masks = {name: array for name, array in outputs.items() if _channel_axes(array.shape, trial.size)}
    forms = {(array.shape, array.dtype) for array in masks.values()}
    if len(forms) == 1:
        name, array = next(iter(masks.items()))
        axes = _channel_axes(array.shape, trial.size)
        return name, min(axes, key=lambda axis: _preference(array.shape, axis, trial.layout))
    described = ", ".join(f"{short(name)} {list(array.shape)}" for name, array in outputs.items())
    if forms:
        raise SilhouetteError(
            f"{trial.source} has several outputs that may hold the mask: {described}; add the option output=NAME"
        )
    rows, columns = trial.size
    raise SilhouetteError(
        f"{trial.source}: expected an output that is a mask, such as [1, 1, {rows}, {columns}], got {described} "
        "(without the axis of the batch)"
    )


def _channel_axes(shape: Shape, size: tuple[int, int]) -> list[int | None]:
    """The axes that may be that of the channels; None: there is none. Empty: the output is no map of the picture."""

    def fits(rows: int, columns: int) -> bool:
        return min(rows, columns) >= SMALLEST_MAP and abs(rows * size[1] - columns * size[0]) <= max(size)

    if len(shape) == 2:
        return [None] if fits(*shape) else []
    if len(shape) == 3 and min(shape) > 0:
        return [axis for axis, (rows, columns) in ((0, shape[1:]), (2, shape[:2])) if fits(rows, columns)]
    return []


def _preference(shape: Shape, axis: int | None, layout: str) -> tuple[int, bool]:
    return (0, False) if axis is None else (shape[axis], (axis == 0) != (layout == "nchw"))


def _class_channels(trial: Trial, options: ModelOptions, name: str, axis: int) -> Decoder:
    count = trial.outputs[name].shape[axis]
    classes = person_classes(trial, options, count, f"{count} class channels")
    if len(classes) == count:
        raise SilhouetteError(f"{trial.source}: class: expected fewer than all {count} class channels, got all")
    scores = _floats(trial.outputs[name], trial.source)
    shares = scores.min() >= -TOLERANCE and bool((abs(scores.sum(axis=axis) - 1) <= TOLERANCE).all())
    holds_logits = options.values == "logits" or (options.values is None and not shares)
    return _ClassChannels((name,), trial.source, axis, classes, options.threshold, holds_logits)


def _instance_outputs(trial: Trial) -> tuple[str, str] | None:
    """The outputs with detections and prototypes, where a model has both."""
    tables = [name for name, array in trial.outputs.items() if array.ndim == 2]
    maps = [name for name, array in trial.outputs.items() if array.ndim == 3]
    if len(tables) != 1 or len(maps) != 1 or _channel_axes(trial.outputs[tables[0]].shape, trial.size):
        return None
    return (tables[0], maps[0]) if 0 in _channel_axes(trial.outputs[maps[0]].shape, trial.size) else None


def _instances(trial: Trial, options: ModelOptions, table: str, maps: str) -> Decoder:
    rows, columns = trial.outputs[table].shape
    num_prototypes = trial.outputs[maps].shape[0]
    finished, names = columns == 6 + num_prototypes, class_names(trial.metadata)
    count: int | None = rows - 4 - num_prototypes
    if finished:
        count = len(names) or None
    elif count is None or count < 1 or rows > columns or (names and count != len(names)):
        raise SilhouetteError(
            f"{trial.source}: expected detections [4 + classes + {num_prototypes}, N] or [N, {6 + num_prototypes}], as "
            f"models of Ultralytics from YOLOv8 on have them, got [{rows}, {columns}]"
        )
    classes = person_classes(trial, options, count, f"{count or 'unnamed'} classes")
    threshold = options.threshold or LEAST_SCORE
    return _Instances((table, maps), trial.source, classes, num_prototypes, finished, threshold, trial.size)


def person_classes(trial: Trial, options: ModelOptions, count: int | None, what: str) -> tuple[int, ...]:
    """Find out which classes are people.

    Args:
        trial: The model.
        options: How the model is used.
        count: Number of classes, or None where it is not known.
        what: What the model has, for errors, such as `19 class channels`.

    Returns:
        Indices of the classes.

    Raises:
        SilhouetteError: It is not known, or a class is out of range.
    """
    if options.classes is not None:
        if count is not None and max(options.classes) >= count:
            raise SilhouetteError(
                f"{trial.source}: class: expected at most {count - 1}, since it has {what}, got {max(options.classes)}"
            )
        return options.classes
    names = class_names(trial.metadata)
    named = tuple(i for i, name in names.items() if name.lower() in PERSON_NAMES and (count is None or i < count))
    if named:
        return named
    if count is not None and count in PERSON_OF and not names:
        return (PERSON_OF[count],)
    raise SilhouetteError(
        f"{trial.source} has {what} and does not say which is a person; add an option, such as ?class=1"
    )


def class_names(metadata: Mapping[str, str]) -> dict[int, str]:
    """Read the names of the classes that a model of Ultralytics states; others state none."""
    try:
        names = ast.literal_eval(metadata.get("names", "{}"))
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {}
    items = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list | tuple) else ()
    return {i: name for i, name in items if isinstance(i, int) and i >= 0 and isinstance(name, str)}


@dataclass(frozen=True)
class _OneChannel:
    outputs: tuple[str, ...]
    source: str
    axis: int | None
    threshold: float
    holds_logits: bool

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        values = _floats(arrays[0] if self.axis is None else arrays[0].take(0, self.axis), self.source)
        if self.holds_logits:
            return values - np.float32(math.log(self.threshold / (1 - self.threshold)))
        if values.min() < -TOLERANCE or values.max() > 1 + TOLERANCE:
            raise SilhouetteError(
                f"{self.source}: output {self.outputs[0]}: expected probabilities from 0 to 1, got values from "
                f"{values.min():.3g} to {values.max():.3g}; if they are logits, add the option values=logits"
            )
        return values - np.float32(self.threshold)


@dataclass(frozen=True)
class _ClassChannels:
    outputs: tuple[str, ...]
    source: str
    axis: int
    classes: tuple[int, ...]
    threshold: float | None
    holds_logits: bool

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        scores = _floats(np.moveaxis(arrays[0], self.axis, 0), self.source)
        people = list(self.classes)
        if self.threshold is None:
            others = (scores[i] for i in range(len(scores)) if i not in people)
            return np.asarray(reduce(np.maximum, (scores[i] for i in people)) - reduce(np.maximum, others))
        if self.holds_logits:
            scores = np.exp(scores - scores.max(axis=0))
            scores /= scores.sum(axis=0)
        return np.asarray(scores[people].sum(axis=0) - np.float32(self.threshold))


@dataclass(frozen=True)
class _Labels:
    outputs: tuple[str, ...]
    axis: int | None
    classes: tuple[int, ...]

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        labels = arrays[0] if self.axis is None else arrays[0].take(0, self.axis)
        return np.where(np.isin(labels, self.classes), np.float32(1), np.float32(-1))


@dataclass(frozen=True)
class _Instances:
    """The union of the people that a model of Ultralytics finds.

    A detection is a box, scores of the classes, and as many coefficients as there are prototypes: maps `[h, w]`, whose
    sum weighted by the coefficients is the instance's logit inside its box.
    """

    outputs: tuple[str, ...]
    source: str
    classes: tuple[int, ...]
    num_prototypes: int
    finished: bool
    threshold: float
    size: tuple[int, int]

    def __call__(self, arrays: Sequence[NDArray[Any]]) -> Floats:
        detections, prototypes = (_floats(array, self.source) for array in arrays)
        boxes, scores, coefficients = self._people(detections)
        scale = np.array(prototypes.shape[:0:-1] * 2) / np.array(self.size[::-1] * 2)
        people = np.full(prototypes.shape[1:], -LARGEST_LOGIT, np.float32)
        for i in _best_of(boxes, scores):
            left, top, right, bottom = (boxes[i] * scale).round().astype(int).clip(0).tolist()
            window = np.s_[top:bottom, left:right]
            logits = np.tensordot(coefficients[i], prototypes[:, top:bottom, left:right], 1)
            people[window] = np.maximum(people[window], logits.clip(-LARGEST_LOGIT, LARGEST_LOGIT))
        return people

    def _people(self, detections: Floats) -> tuple[Floats, Floats, Floats]:
        """Corners `[K, 4]`, scores `[K]` and coefficients `[K, prototypes]` of the people."""
        if self.finished:
            shown = (detections[:, 4] >= self.threshold) & np.isin(detections[:, 5].round(), self.classes)
            people = detections[shown]
            return people[:, :4], people[:, 4], people[:, 6:]
        classes = detections[4 : -self.num_prototypes]
        best = classes.argmax(axis=0)
        kept = np.flatnonzero(np.isin(best, self.classes) & (classes.max(axis=0) >= self.threshold))
        middles, extents = detections[:2, kept].T, detections[2:4, kept].T
        boxes = np.concatenate([middles - extents / 2, middles + extents / 2], axis=1)
        return boxes, classes.max(axis=0)[kept], detections[-self.num_prototypes :, kept].T


def _best_of(boxes: Floats, scores: Floats) -> list[int]:
    """Indices of the detections, the best first, without those that show what a better one shows."""
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    left: NDArray[np.intp] = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(left):
        best, left = int(left[0]), np.delete(left, 0)
        kept.append(best)
        corners = np.minimum(boxes[best, 2:], boxes[left, 2:]) - np.maximum(boxes[best, :2], boxes[left, :2])
        common = np.prod(corners.clip(0), axis=1)
        left = left[common <= MOST_OVERLAP * (areas[best] + areas[left] - common)]
    return kept


def _floats(array: NDArray[Any], source: str) -> Floats:
    values = np.asarray(array, np.float32)
    if not np.isfinite(values).all():
        raise SilhouetteError(f"{source}: expected finite values as output, got infinity or NaN")
    return values
