"""Whether Triton's kernels can run: they are compiled for the GPU when first used, or interpreted on the CPU.

This module does not import Triton, nor any other module of its package. A question about tensors that are there already
is answered for their device, which need not be the current one.
"""

import functools
import importlib.util
import os
import re
from importlib import metadata

import torch

# The kernels are written in the language of this version of Triton.
OLDEST = (3, 4)
# NVIDIA's oldest compute capability with bfloat16.
OLDEST_GPU = (8, 0)


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which is asked for before they are first used."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """Why Triton cannot compute tensors of this device and type; None if it can.

    Of several GPUs the current one is asked. Whether the kernels can run on another one is asked when they are launched
    there.
    """
    if dtype == torch.float64:
        return "the triton backend computes float16, bfloat16 and float32, not torch.float64"
    if device_type not in ("cuda", "cpu"):
        return f"the triton backend computes tensors on a GPU, not on {device_type}"
    if device_type == "cpu" and not is_interpreted():
        return "the triton backend computes tensors on a GPU; on the CPU only interpreted (TRITON_INTERPRET=1)"
    return why_no_triton() or (why_not_this_gpu() if device_type == "cuda" else None)


def precision(device: torch.device) -> str:
    """How the kernels multiply float32 on `device`: as torch is asked to convolve, where Triton's compiler can."""
    on_hip = torch.version.hip is not None and device.type == "cuda"
    if on_hip and not torch.cuda.get_device_properties(device).gcnArchName.startswith("gfx942"):
        return "ieee"
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # newer than torch 2.6, whose one switch may then raise
    if convolutions is None:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    return "tf32" if convolutions.fp32_precision == "tf32" else "ieee"


def is_capturing(device: torch.device) -> bool:
    """Whether `device` captures, on its current stream, a CUDA graph."""
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()


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


def why_not_this_gpu(device: torch.device | None = None) -> str | None:
    """Why a GPU cannot run the kernels; without `device`, the current GPU."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        needed, found = (".".join(map(str, version)) for version in (OLDEST_GPU, capability))
        return f"a GPU of compute capability {needed} or newer is needed, found {found}"
    return None
