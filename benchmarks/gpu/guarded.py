"""Measurements that may raise, or leave a broken device behind."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.core.text import in_one_line
from benchmarks.gpu import timing
from benchmarks.gpu.supervise import Reporter


def guarded(call: Callable[[], Any], device: torch.device, reporter: Reporter, key: str) -> Any:
    """The call's result, or a row that says why there is none.

    An error after which the device no longer answers ends this process; `key`'s row is reported before.
    """
    try:
        return call()
    except Exception as error:
        row = {"status": "failed", "reason": in_one_line(error)}
    if not answers(device):
        reporter.finished(key, row)
        reporter.leave()
    return row


def answers(device: torch.device) -> bool:
    """True if the device still works after an error, whose memory is released first."""
    gc.collect()
    try:
        timing.synchronise(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    except Exception:
        return False
    return True
