"""The CUDA binary, and the GPUs that it has code for."""

from __future__ import annotations

import functools
import re
from types import ModuleType

import torch

from hstl_fast.backends import binaries, gpu

_ADVICE = "install again with nvcc (PATH, NVCC or CUDA_HOME) and HSTL_FAST_CUDA=1, which makes a failing build say why"

# The interface that this code calls, `kInterface` in csrc/cuda.
INTERFACE = 1

_cuda, _cuda_error = binaries.load("hstl_fast._cuda", INTERFACE, _ADVICE)
# The kind of device in whose memory the binary's functions compute. Tests put the emulator in the binary's place, which
# is the same source compiled for the CPU.
_device_type = "cuda"


def cuda() -> ModuleType | None:
    """The CUDA binary, or None if it could not be loaded."""
    return _cuda


def cuda_error() -> str:
    """Why the CUDA binary could not be loaded, and what to do; empty if it was."""
    return _cuda_error


def device_type() -> str:
    """The kind of device whose tensors the binary's functions take."""
    return _device_type


def require_cuda() -> ModuleType:
    """Return the CUDA binary.

    Returns:
        The module `hstl_fast._cuda`.

    Raises:
        RuntimeError: The binary could not be loaded; the message says why.
    """
    if _cuda is None:
        raise RuntimeError(_cuda_error)
    return _cuda


def why_not_this_gpu(device: torch.device) -> str | None:
    """Why a GPU cannot run the binary's kernels; without an index, the current GPU."""
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    index = torch.cuda.current_device() if device.index is None else device.index
    return _why_not_this_gpu(require_cuda(), index)


@functools.cache
def _why_not_this_gpu(binary: ModuleType, index: int) -> str | None:
    if torch.version.hip is not None:
        return "the cuda backend computes on NVIDIA's GPUs only"
    device = torch.device("cuda", index)
    return gpu.why_not_this_gpu(device) or why_no_code(
        binary.architectures,
        torch.cuda.get_device_capability(device),
        binary.driver_version(),
        binary.runtime_version,
    )


def why_no_code(architectures: tuple[str, ...], capability: tuple[int, int], driver: int, runtime: int) -> str | None:
    """Say why a binary has no code for a GPU.

    A driver runs machine code of every runtime of its own major version, but compiles PTX only of runtimes that are not
    newer than itself.

    Args:
        architectures: Those of the binary's code: sm_XX, machine code, and compute_XX, PTX.
        capability: The GPU's compute capability.
        driver: The newest runtime that the driver serves, 1000 major + 10 minor.
        runtime: The binary's runtime.

    Returns:
        A reason; None if the GPU can run the code.
    """
    kind = device_code(architectures, capability)
    if kind is None:
        return (
            f"hstl_fast._cuda was built for {', '.join(architectures)}; this GPU is sm_{capability[0]}{capability[1]}; "
            f"install again with HSTL_FAST_CUDA_ARCHS={capability[0]}{capability[1]}"
        )
    if driver // 1000 < runtime // 1000 or (kind.startswith("compute_") and driver < runtime):
        needed, found = version_name(runtime), version_name(driver)
        return f"hstl_fast._cuda needs a driver for CUDA {needed} or newer to run {kind}, found one for {found}"
    return None


def version_name(version: int) -> str:
    """Name a version of CUDA: 13.0 for 13000."""
    return f"{version // 1000}.{version % 1000 // 10}"


def device_code(architectures: tuple[str, ...], capability: tuple[int, int]) -> str | None:
    """Find the code that a GPU runs.

    Args:
        architectures: Those of a binary's code: sm_XX, machine code, and compute_XX, PTX.
        capability: The GPU's compute capability.

    Returns:
        The architecture of the newest machine code of the GPU's generation, else of the newest PTX that is not newer
        than the GPU; None if there is no such code.
    """
    found = [(name, parsed) for name in architectures if (parsed := _parsed(name)).runs_on(capability)]
    return max(found, key=lambda pair: pair[1].order, default=(None, None))[0]


class _Code:
    """One architecture of a binary: machine code or PTX, of a compute capability, perhaps for that one only."""

    def __init__(self, is_ptx: bool, capability: tuple[int, int], is_specific: bool) -> None:
        self.is_ptx, self.capability, self.is_specific = is_ptx, capability, is_specific

    @property
    def order(self) -> tuple[bool, tuple[int, int], bool]:
        return not self.is_ptx, self.capability, self.is_specific

    def runs_on(self, gpu: tuple[int, int]) -> bool:
        if self.is_specific:
            return gpu == self.capability
        return self.capability <= gpu and (self.is_ptx or self.capability[0] == gpu[0])


def _parsed(name: str) -> _Code:
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)(a?)", name)
    if match is None:
        raise ValueError(f"unknown architecture {name!r}")
    kind, major, minor, specific = match.groups()
    return _Code(kind == "compute", (int(major), int(minor)), bool(specific))
