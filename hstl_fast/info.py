"""Facts about this installation: versions, backends (and why one cannot run), caches, and a check of the backends."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hstl_fast import backends, environment, functional, options, reference
from hstl_fast._caches import cache_bytes
from hstl_fast.backends.cpu import library
from hstl_fast.backends.cuda import library as cuda_library
from hstl_fast.ops import _dispatch
from hstl_fast.version import __version__

# The extras that users install, others are for work on the package itself.
EXTRAS = ("cli", "video", "data", "plot", "train", "hierarchy", "recognition", "segmenter", "onnx", "triton")
# The largest error of an operator relative to its largest value; gradients may have ten times as much.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5}


class Check(NamedTuple):
    """One comparison of a backend with the float64 reference.

    Attributes:
        backend: The backend's name.
        operator: The operator, and what is compared: its output or one of its gradients.
        device: The device's type.
        dtype: The type computed in.
        error: The largest error, relative to the largest value.
        tolerance: The largest error that passes.
    """

    backend: str
    operator: str
    device: str
    dtype: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance."""
        return self.error <= self.tolerance


def collect() -> dict[str, Any]:
    """Collect what can be said about this installation and this process.

    Returns:
        Versions, machine, threads, native libraries, caches and backends as plain values that `json.dumps` takes.
        `wrong_variables` has a sentence for each environment variable whose value is not allowed.
        `extras` has, for each extra that users install, `installed` or which packages it lacks.
        `caches` has the bytes that each cache of this process holds for later calls.
        `backends` has a row for each operator, device and backend: {"operator", "device", "backend", "available",
        "reason" (None if available), "automatic" (True for the one "auto" picks), "verified" (False for kernels that
        have not been seen to compute the right thing on a GPU)}.
    """
    return {
        "hstl_fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "extras": {extra: _lacks(extra) for extra in EXTRAS},
        "native_cpu": _native_cpu(),
        "native_cuda": _native_cuda(),
        "requested_backend": options.BACKEND.value(),
        "requested_algorithm": options.ALGORITHM.value(),
        "wrong_variables": environment.faults(),
        "caches": cache_bytes(),
        "backends": _backends(),
    }


def _lacks(extra: str) -> str:
    """`installed`, or the packages of an extra that are missing; `unknown` in a checkout that is not installed."""
    packages = _packages(extra)
    if not packages:
        return "unknown"
    missing = sorted(name for name in packages if not _is_installed(name))
    return f"lacks {', '.join(missing)}" if missing else "installed"


def _packages(extra: str) -> set[str]:
    """The names of the packages of an extra, and of those that it includes."""
    found: set[str] = set()
    for requirement in _requirements():
        if not re.search(rf"extra == ['\"]{extra}['\"]", requirement):
            continue
        name, included = re.findall(r"^([\w.-]+)(?:\[([\w,-]+)\])?", requirement)[0]
        if name.replace("-", "_") == "hstl_fast":
            found |= set().union(*(_packages(other) for other in included.split(",")))
        else:
            found.add(name)
    return found


def _requirements() -> list[str]:
    try:
        return metadata.requires("hstl_fast") or []
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        return []


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def check() -> list[Check]:
    """Compare every operator, forward and backward, on every backend that can run here with the float64 reference.

    ARME is computed by every algorithm that its backend has, whichever the environment asks for.

    Returns:
        One comparison for every output and gradient, in float64 and float32.
    """
    results = []
    with _without_tf32():
        for device in _devices():
            for backend in _dispatch.BACKENDS[1:]:
                for operator in _dispatch.OPERATORS:
                    for dtype in TOLERANCES:
                        if _dispatch.why_not(operator, backend, device, dtype) is None:
                            for algorithm in _algorithms(operator, backend, dtype):
                                results += _compare(operator, backend, device, dtype, algorithm)
    return results


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Compute convolutions in full float32, which the tolerances are for."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _native_cpu() -> dict[str, Any]:
    binary = library.cpu()
    if binary is None:
        return {"loaded": False, "reason": library.cpu_error()}
    return {
        "loaded": True,
        "instruction_set": binary.instruction_set(),
        "instruction_sets": binary.instruction_sets(),
        "openmp": binary.openmp(),
        **binary.build_info(),
    }


def _native_cuda() -> dict[str, Any]:
    binary = cuda_library.cuda()
    if binary is None:
        return {"loaded": False, "reason": cuda_library.cuda_error()}
    return {
        "loaded": True,
        "has_run_on_a_gpu": "cuda" not in backends.UNVERIFIED,
        "architectures": list(binary.architectures),
        "runtime": cuda_library.version_name(binary.runtime_version),
        "driver": cuda_library.version_name(binary.driver_version()) if binary.driver_version() else None,
        **binary.build_info(),
    }


def _backends() -> list[dict[str, Any]]:
    rows = []
    for operator in _dispatch.OPERATORS:
        for device in _devices():
            reasons = {
                name: _dispatch.why_not(operator, name, device, torch.float32) for name in _dispatch.BACKENDS[1:]
            }
            order = _dispatch.candidates(operator, device, torch.float32)
            automatic = next(name for name in order if reasons[name] is None)
            rows += [
                {
                    "operator": operator,
                    "device": device,
                    "backend": name,
                    "available": reason is None,
                    "reason": reason,
                    "automatic": name == automatic,
                    "verified": name not in backends.UNVERIFIED,
                }
                for name, reason in reasons.items()
            ]
    return rows


def _devices() -> list[str]:
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _algorithms(operator: str, backend: str, dtype: torch.dtype) -> list[str | None]:
    """Return the algorithms that the operator can be asked for; None stands for the only one there is."""
    if operator != "arme":
        return [None]
    return ["direct"] if _dispatch.why_no_winograd(backend, dtype) else ["direct", "winograd"]


def _compare(operator: str, backend: str, device: str, dtype: torch.dtype, algorithm: str | None) -> list[Check]:
    inputs = _inputs(operator)
    expected = _run(getattr(reference, operator), inputs, {})
    arguments = [value.to(device, dtype) for value in inputs]
    options = {"backend": backend} if algorithm is None else {"backend": backend, "algorithm": algorithm}
    got = _run(getattr(functional, operator), arguments, options)
    title = f"{operator} by Winograd" if algorithm == "winograd" else operator
    names = ["forward", *(f"gradient of {name}" for name in _ARGUMENTS[operator])]
    return [
        Check(
            backend=backend,
            operator=f"{title}, {name}",
            device=device,
            dtype=str(dtype).removeprefix("torch."),
            error=float((y.cpu().double() - e).abs().max() / e.abs().max()),
            tolerance=TOLERANCES[dtype] * (1 if name == "forward" else 10),
        )
        for name, y, e in zip(names, got, expected, strict=True)
    ]


_ARGUMENTS = {"arme": ("x", "weights"), "astp": ("x", "proj", "p"), "fta": ("x", "weights", "biases")}
_SPLIT, _SEQ_LENS = [5, 1, 3], [4, 7, 3]


def _inputs(operator: str) -> list[Tensor]:
    """Return arguments with well separated maxima, so that rounding cannot change which frame wins."""
    generator = torch.Generator().manual_seed(1)
    c, t, h, w, m = 6, sum(_SEQ_LENS), sum(_SPLIT), 7, len(_SPLIT)
    x = torch.randperm(c * t * h * w, generator=generator).double().view(1, c, t, h, w) / (c * t * h * w) - 0.3

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64) / 5

    if operator == "arme":
        return [x, normal(m, 8, c, 3, 3, 3)]
    if operator == "astp":
        return [x, normal(10, c), 6.5 + normal(m)]
    return [x, normal(m, 2, c, c), normal(m, 2, c)]


def _run(function: Any, inputs: list[Tensor], options: dict[str, str]) -> list[Tensor]:
    leaves = [value.detach().clone().requires_grad_() for value in inputs]
    y = function(*leaves, _SPLIT, seq_lens=_SEQ_LENS, **options)
    direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view(y.shape).to(y.device, y.dtype)
    return [y.detach(), *torch.autograd.grad(y, leaves, direction)]
