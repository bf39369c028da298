"""The log of a training: lines of JSON, and the same for TensorBoard."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hstl_fast.silhouettes import extras
from hstl_fast.training import folder
from hstl_fast.training.watcher import Watcher


class Log:
    """Means of what is measured in each step, written every so many steps.

    Args:
        output: The folder of the training.
        every: Steps between lines.
        step: Number of steps that were made.
        tensorboard: Whether the lines are written for TensorBoard, too.
        watcher: Told each line.
    """

    def __init__(self, output: Path, every: int, step: int, tensorboard: bool, watcher: Watcher) -> None:
        self._output, self._every, self._watcher = output, every, watcher
        # The sum of each value and the number of steps that had it.
        self._sums: dict[str, list[float]] = {}
        lines = folder.read_lines(output / folder.LOG)
        self._seconds = max((line.get("seconds", 0.0) for line in lines), default=0.0)
        self._started = time.perf_counter()
        self._board = _board(output, step) if tensorboard else None

    def state(self) -> dict[str, Any]:
        """Describe the steps since the last line, as a checkpoint keeps them.

        Returns:
            Plain numbers by name; `restore` reads them.
        """
        return {"sums": {name: list(pair) for name, pair in self._sums.items()}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where another process stopped.

        Args:
            state: What `state` returned.
        """
        self._sums = {name: list(pair) for name, pair in state["sums"].items()}

    @property
    def seconds(self) -> float:
        """The time of the training so far, that of processes before this one up to their last lines."""
        return self._seconds + time.perf_counter() - self._started

    def add(self, values: Mapping[str, float]) -> None:
        """Add a step's values.

        Args:
            values: Numbers by name.
        """
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = [total + value, count + 1]

    def is_due(self, step: int) -> bool:
        """Return whether a line is to be written.

        Args:
            step: Number of steps that were made.

        Returns:
            Whether the step is a multiple of `every`.
        """
        return step % self._every == 0

    def write(self, step: int, measured: Mapping[str, float]) -> None:
        """Write a line of the means since the last one.

        Args:
            step: Number of steps that were made.
            measured: Numbers that are written as they are.
        """
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        entry = {"step": step, **means, **measured, "seconds": self.seconds}
        folder.append_line(self._output / folder.LOG, entry)
        self._chart("training", entry)
        self._watcher.on_log(entry)

    def evaluation(self, step: int, results: Mapping[str, Any]) -> None:
        """Write the results of an evaluation.

        Args:
            step: Number of steps that were made.
            results: What JSON can hold, by name.
        """
        entry = {"step": step, **results}
        folder.append_line(self._output / folder.EVALUATION, entry)
        self._chart("evaluation", entry)
        self._watcher.on_evaluation(entry)

    def notice(self, step: int, sentence: str) -> None:
        """Tell the user something, and write it into the log.

        Args:
            step: Number of steps that were made.
            sentence: What to tell.
        """
        folder.append_line(self._output / folder.LOG, {"step": step, "notice": sentence})
        self._watcher.on_notice(sentence)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._board is not None:
            self._board.close()

    def _chart(self, group: str, entry: Mapping[str, Any]) -> None:
        if self._board is None:
            return
        for name, value in entry.items():
            if name != "step" and isinstance(value, (int, float)) and not isinstance(value, bool):
                self._board.add_scalar(f"{group}/{name}", value, entry["step"])
        self._board.flush()


def peak_memory(device: torch.device) -> int:
    """Measure the most memory that was in use.

    Args:
        device: The device that computes.

    Returns:
        Bytes: of the GPU's memory what torch has allocated, or else of this process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _board(output: Path, step: int) -> Any:
    # Points of later steps, which a process wrote that was killed, are not shown.
    return extras.tensorboard().SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)
