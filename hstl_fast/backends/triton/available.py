"""Whether Triton's kernels can run: they are compiled for the GPU when first used, or interpreted on the CPU."""

import functools
import importlib.util
import os
import re
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from hstl_fast.backends.triton.tables import Slots
    from hstl_fast.backends.triton.tuning import Measured, Product

OLDEST = (3, 4)
"""The oldest version whose language the kernels are written in."""
OLDEST_GPU = (8, 0)
"""NVIDIA's oldest compute capability with bfloat16."""


def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, which is asked for before they are first used."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def why_not(device_type: str, dtype: torch.dtype) -> str | None:
    """Why Triton cannot compute tensors of this device and type; None if it can."""
    if dtype == torch.float64:
        return "the triton backend computes float16, bfloat16 and float32, not torch.float64"
    if device_type not in ("cuda", "cpu"):
        return f"the triton backend computes tensors on a GPU, not on {device_type}"
    if device_type == "cpu" and not is_interpreted():
        return "the triton backend computes tensors on a GPU; on the CPU only interpreted (TRITON_INTERPRET=1)"
    return why_no_triton() or (why_not_this_gpu() if device_type == "cuda" else None)


def precision() -> str:
    """How the kernels multiply float32: as torch is asked to convolve, where Triton's compiler can."""
    if torch.version.hip is not None and not torch.cuda.get_device_properties().gcnArchName.startswith("gfx942"):
        return "ieee"
    convolutions = getattr(torch.backends.cudnn, "conv", None)  # newer than torch 2.6, whose one switch may then raise
    if convolutions is None:
        return "tf32" if torch.backends.cudnn.allow_tf32 else "ieee"
    return "tf32" if convolutions.fp32_precision == "tf32" else "ieee"


def tune(
    convolutions: Iterable[tuple[int, int, tuple[int, ...], int, int]],
    dtypes: Iterable[torch.dtype],
    say: Callable[["Product", torch.dtype, "Measured"], None],
    path: Path | None,
) -> Path:
    """Measure the products of these convolutions on the current GPU; every tile goes into the file at once, the
    user's own if none is named."""
    from hstl_fast.backends.triton import tiles, tuning

    path, products = path or tiles.own_file(), tuning.products(convolutions)
    for dtype in dtypes:
        for product in products:
            found = tuning.measure(product, torch.device("cuda"), dtype)
            tiles.write(path, {found.key: found.best})
            say(product, dtype, found)
    return path


def slots(frames: int, sequences: int, device: torch.device) -> "Slots":
    """Tables at fixed places, for what is launched again without Python."""
    from hstl_fast.backends.triton.tables import Slots

    return Slots(frames, sequences, device)


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


def why_not_this_gpu() -> str | None:
    """Why the current GPU cannot run the kernels."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if torch.version.hip is not None:
        return None
    capability = torch.cuda.get_device_capability()
    if capability < OLDEST_GPU:
        needed, found = (".".join(map(str, version)) for version in (OLDEST_GPU, capability))
        return f"a GPU of compute capability {needed} or newer is needed, found {found}"
    return None
