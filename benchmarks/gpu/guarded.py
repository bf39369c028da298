"""A measurement that may go wrong."""

import gc
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu import timing
from benchmarks.gpu.supervise import Say, plain_words


def attempt(call: Callable[[], Any], device: torch.device, say: Say, key: str) -> Any:
    """The call's result, or a row that says why there is none.

    An error after which the device no longer answers ends this process; `key`'s row is said before.
    """
    try:
        return call()
    except Exception as error:
        row = {"status": "failed", "reason": plain_words(error)}
    gc.collect()
    try:
        timing.synchronise(device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    except Exception:
        say.row(key, row)
        say.leave()
    return row
