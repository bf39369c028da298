"""The time that the stages of a training step take."""

from __future__ import annotations

import time
from collections import deque
from statistics import median
from typing import Any

import torch

STAGES = ("data", "forward", "loss", "backward", "optimizer")
# So many steps are kept: only the first process asks for medians, and seldom if it seldom writes a line.
_MOST_STEPS = 1000


class Clock:
    """A stopwatch for the stages of each step.

    On a GPU it measures between events in the device's stream, since the host runs ahead; on a CPU it reads the time.

    Args:
        device: The device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._steps: deque[list[tuple[str, Any]]] = deque(maxlen=_MOST_STEPS)

    def start(self) -> None:
        """Begin a step."""
        self._steps.append([])
        self.mark("")

    def mark(self, stage: str) -> None:
        """End a stage.

        Args:
            stage: Its name.
        """
        if self._steps:
            self._steps[-1].append((stage, self._now()))

    def medians(self) -> dict[str, float]:
        """Compute the medians of the steps since the last call, or of the last 1000 of them.

        Returns:
            Seconds of each stage as `<stage>_s`, and of a whole step as `step_s`.
        """
        steps = [marks for marks in self._steps if len(marks) == 1 + len(STAGES)]
        self._steps.clear()
        if not steps:
            return {}
        if self._on_gpu:
            steps[-1][-1][1].synchronize()
        of_stages = {
            f"{stage}_s": median(self._between(marks[i][1], marks[i + 1][1]) for marks in steps)
            for i, stage in enumerate(STAGES)
        }
        return {**of_stages, "step_s": median(self._between(marks[0][1], marks[-1][1]) for marks in steps)}

    def _now(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        seconds: float = start.elapsed_time(end) / 1000 if self._on_gpu else end - start
        return seconds
