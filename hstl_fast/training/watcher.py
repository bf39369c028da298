"""The methods through which a training tells its caller how it goes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from signal import Signals
from typing import Any, NamedTuple


class TrainingWarning(UserWarning):
    """Something that the user of a training should know."""


class TrainingError(RuntimeError):
    """A training that cannot go on: a loss is not finite, or what is in its folder does not fit."""


class TrainingStopped(RuntimeError):
    """A training that a signal has stopped; its checkpoint is written, and the same call goes on from there.

    Attributes:
        signal: The signal; None where it came to another process.
    """

    signal: Signals | None = None


class Status(NamedTuple):
    """A step that was made.

    Attributes:
        step: Number of steps that were made.
        steps: Number of all steps.
        loss: The loss of the step.
        lr: Its learning rate.
        seconds_left: An estimate of the time until the end.
    """

    step: int
    steps: int
    loss: float
    lr: float
    seconds_left: float


class Watcher:
    """Methods that a training calls in its first process; they do nothing, and a subclass overrides some of them."""

    def on_step(self, status: Status) -> None:
        """Take notice of a step.

        Args:
            status: The step.
        """

    def on_log(self, entry: Mapping[str, Any]) -> None:
        """Take notice of a line of the log.

        Args:
            entry: Its fields.
        """

    def on_evaluation(self, entry: Mapping[str, Any]) -> None:
        """Take notice of an evaluation.

        Args:
            entry: The fields of its line in `evaluation.jsonl`.
        """

    def on_notice(self, sentence: str) -> None:
        """Tell the user something; here by a `TrainingWarning`.

        Args:
            sentence: What to tell.
        """
        warnings.warn(sentence, TrainingWarning, stacklevel=2)
