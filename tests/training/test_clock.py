"""The times of the stages of steps."""

from itertools import accumulate

import pytest
import torch

from hstl_fast.training import clock
from hstl_fast.training.clock import STAGES, Clock


def test_medians_of_the_last_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = [5.0] * 6000 + [1.0] * 6000
    times = accumulate(seconds)
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(times))
    timed = Clock(torch.device("cpu"))
    for _ in range(len(seconds) // (1 + len(STAGES))):
        timed.start()
        for stage in STAGES:
            timed.mark(stage)
    assert timed.medians() == {**{f"{stage}_s": 1.0 for stage in STAGES}, "step_s": 5.0}
    assert timed.medians() == {}
