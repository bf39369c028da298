"""Whether Triton's kernels can run: they are compiled for the GPU when first used, or interpreted on the CPU.

This module does not import Triton, nor any other module of its package.
"""

import functools
import importlib.util
import os
import re
from importlib import metadata

import torch

from hstl_fast.backends.gpu import why_not_this_gpu

# The kernels are written in the language of this version of Triton.
OLDEST = (3, 4)


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which is asked for before they are first used."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why Triton cannot compute tensors of this device and type; None if it can."""
    if dtype == torch.float64:
        return "the triton backend computes float16, bfloat16 and float32, not torch.float64"
    if device.type not in ("cuda", "cpu"):
        return f"the triton backend computes tensors on a GPU, not on {device.type}"
    if device.type == "cpu" and not is_interpreted():
        return "the triton backend computes tensors on a GPU; on the CPU only interpreted (TRITON_INTERPRET=1)"
    return why_no_triton() or (why_not_this_gpu(device) if device.type == "cuda" else None)


@functools.cache
def why_no_triton() -> str | None:
    """Why Triton itself cannot be used."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed (pip install triton)"
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return None  # another distribution of it, whose version says nothing
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        return f"Triton {'.'.join(map(str, OLDEST))} or newer is needed, found {version} (pip install -U triton)"
    return None
