"""Options of a segmentation model: what its file does not say, as text such as `mean=0.5&std=0.5`.

* `class`: the channel or label of people, such as `15`, or several, such as `1,2` or `1-5`. Without it: the class named
  person in the file's metadata; else channel 1 of 2, 15 of 21 (Pascal VOC), 12 of 150 (ADE20K), 0 of 80 (COCO).
* `scale`, `mean`, `std`: an input value is (byte / scale - mean) / std; one number each, or three in the order of the
  input's channels. Asked for where the input is of floats, unless the file says that it is a model of Ultralytics;
  a scale that is left out is 255, or 1 where a mean is above 1.
* `rgb`: 1 where the input's channels are red, green, blue, as without it; 0 for blue, green, red.
* `size`: rows and columns of the input, such as `384x512`, where the file leaves them open. Without it: those that a
  model of Ultralytics was trained on, else the frame's, rounded to multiples of 32.
* `letterbox`: 1 where frames keep their proportions and get grey borders, as models of Ultralytics have it; 0 where
  they are stretched, as others have it.
* `layout`: `nchw` or `nhwc`, where the file leaves open which axis has the 3 channels.
* `output`: the output that holds the mask. Without it: the first, where all have one form.
* `values`: whether an output of one channel holds `probabilities` or `logits`. Without it: logits, if a trial picture
  gives values outside 0 to 1.
* `threshold`: the probability from which on a pixel is a person's. Without it: 0.5; among several classes the most
  probable one decides. For the detections of instances it is the least score, 0.25 without it.

A file may state its options itself, as metadata of the same names; the text goes before the file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from hstl_fast.silhouettes.errors import SilhouetteError, short

Three = tuple[float, float, float]
LAYOUTS = ("nchw", "nhwc")
VALUES = ("probabilities", "logits")
# A mean above this is one of bytes, not of shares.
LARGEST_SHARE = 1.0
MOST_CLASSES = 100_000
# Rows and columns of an input at most; a picture of this size has 200 MB.
LARGEST_SIZE = 8192


@dataclass(frozen=True)
class ModelOptions:
    """How a model is used; None: not said.

    Attributes:
        classes: Channels or labels of people.
        mean: What is taken from the scaled values of each channel.
        std: What the result is divided by.
        scale: What bytes are divided by first.
        rgb: Whether the channels are red, green, blue; else blue, green, red.
        size: Rows and columns of the input.
        letterbox: Whether the frame keeps its proportions.
        layout: One of LAYOUTS.
        output: Name of the output that holds the mask.
        values: One of VALUES.
        threshold: Least probability of a person.
    """

    classes: tuple[int, ...] | None = None
    mean: Three | None = None
    std: Three | None = None
    scale: float | None = None
    rgb: bool | None = None
    size: tuple[int, int] | None = None
    letterbox: bool | None = None
    layout: str | None = None
    output: str | None = None
    values: str | None = None
    threshold: float | None = None

    @property
    def normalises(self) -> bool:
        """Whether anything is said about the values of the input."""
        return not (self.mean is None and self.std is None and self.scale is None)

    def normalisation(self) -> tuple[Three, Three]:
        """Return gain and offset of each channel: an input value is gain * byte + offset."""
        mean, std = self.mean or (0.0,) * 3, self.std or (1.0,) * 3
        scale = self.scale or (1.0 if max(map(abs, mean)) > LARGEST_SHARE else 255.0)
        gains = tuple(1 / (scale * s) for s in std)
        offsets = tuple(-m / s for m, s in zip(mean, std, strict=True))
        return (gains[0], gains[1], gains[2]), (offsets[0], offsets[1], offsets[2])

    def completed(self, other: ModelOptions) -> ModelOptions:
        """Return these options, and those of `other` that are not said here; normalisations are not mixed."""
        missing = {field.name for field in fields(self) if getattr(self, field.name) is None}
        if self.normalises:
            missing -= {"mean", "std", "scale"}
        return replace(self, **{name: getattr(other, name) for name in missing})


def parse_options(text: str, source: str) -> ModelOptions:
    """Read the options of a model from text.

    Args:
        text: Options such as `class=15&rgb=0`, or nothing.
        source: What the text belongs to, for errors.

    Returns:
        The options.

    Raises:
        SilhouetteError: An option is unknown, given twice, or has no possible value.
    """
    given: dict[str, str] = {}
    for part in text.split("&") if text else []:
        name, equals, value = part.partition("=")
        if name not in _READERS or not equals:
            raise SilhouetteError(f"{source}: expected options among {', '.join(_READERS)}, got {short(part)!r}")
        if name in given:
            raise SilhouetteError(f"{source}: expected the option {name} once, got it twice")
        given[name] = value
    return _read(given, source)


def options_in(metadata: Mapping[str, str], source: str) -> ModelOptions:
    """Read the options that a model's metadata state; other metadata is passed over.

    Args:
        metadata: Texts by name.
        source: The file, for errors.

    Returns:
        The options.

    Raises:
        SilhouetteError: Metadata of an option's name has no value that is possible for it.
    """
    return _read({name: metadata[name] for name in _READERS if name in metadata}, f"{source}: metadata")


def _read(given: Mapping[str, str], source: str) -> ModelOptions:
    found: dict[str, Any] = {}
    for name, value in given.items():
        reader, expected = _READERS[name]
        try:
            found["classes" if name == "class" else name] = reader(value.strip())
        except ValueError:
            raise SilhouetteError(f"{source}: {name}: expected {expected}, got {short(value)!r}") from None
    return ModelOptions(**found)


def _classes(text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(text)
        start, end = int(first), int(last) if dash else int(first)
        if not start <= end < MOST_CLASSES:
            raise ValueError(text)
        found.update(range(start, end + 1))
    return tuple(sorted(found))


def _three(text: str) -> Three:
    numbers = [float(part) for part in text.strip("[]()").split(",")]
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise ValueError(text)
    first, second, third = numbers * 3 if len(numbers) == 1 else numbers
    return first, second, third


def _positive_three(text: str) -> Three:
    numbers = _three(text)
    if min(numbers) <= 0:
        raise ValueError(text)
    return numbers


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _flag(text: str) -> bool:
    return bool(("0", "1").index(text))


def _size(text: str) -> tuple[int, int]:
    rows, columns = text.lower().split("x")
    size = int(rows), int(columns)
    if not 8 <= min(size) <= max(size) <= LARGEST_SIZE:
        raise ValueError(text)
    return size


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise ValueError(text)
    return number


def _among(words: tuple[str, ...]) -> Callable[[str], str]:
    return lambda text: words[words.index(text.lower())]


def _name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


# How the value of every option is read, and what it has to be.
_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "class": (_classes, "a class's number from 0 on, or several such as 1,2 or 1-5"),
    "mean": (_three, "one number, or three separated by commas"),
    "std": (_positive_three, "one positive number, or three separated by commas"),
    "scale": (_positive, "a positive number"),
    "rgb": (_flag, "1 (red, green, blue) or 0 (blue, green, red)"),
    "size": (_size, "rows and columns from 8 to 8192, such as 384x512"),
    "letterbox": (_flag, "1 (proportions are kept) or 0 (stretched)"),
    "layout": (_among(LAYOUTS), " or ".join(LAYOUTS)),
    "output": (_name, "the name of an output"),
    "values": (_among(VALUES), " or ".join(VALUES)),
    "threshold": (_share, "a number between 0 and 1"),
}
