"""Facts that the backends for GPUs share: which GPU will do, how float32 is multiplied, and the largest map.

Every question is about one device, which need not be the current one.
"""

from __future__ import annotations

import torch

# NVIDIA's oldest compute capability with bfloat16.
OLDEST_GPU = (8, 0)
# A map may have so many positions: kernels count them in 32 bits, past the last by less than a block of 1024. Elements
# are counted in 64 bits.
MOST_POSITIONS = 2**31 - 1024


def why_not_this_gpu(device: torch.device | None = None) -> str | None:
    """Why a GPU cannot run kernels of ours; without `device` or its index, the current GPU."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_GPU:
        needed, found = (".".join(map(str, version)) for version in (OLDEST_GPU, capability))
        return f"a GPU of compute capability {needed} or newer is needed, found {found}"
    return None


def precision(device: torch.device) -> str:
    """How kernels multiply float32 on `device`, "tf32" or "ieee": as torch is asked to convolve, where they can."""
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


def countable(positions: int, backend: str) -> int:
    """`positions`, if kernels can count them."""
    if positions > MOST_POSITIONS:
        raise ValueError(
            f"x must have at most {MOST_POSITIONS} positions (frames times rows times columns) in the {backend} "
            f"backend, got {positions}; take fewer sequences at once"
        )
    return positions
