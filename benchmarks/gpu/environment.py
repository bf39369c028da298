"""The device and the software of the figures, without the name of a host, a user or a folder."""

import hashlib
import platform
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.core import processor
from hstl_fast import info
from hstl_fast.backends import measured

ROOT = Path(__file__).parents[2]
# The fields that nvidia-smi reads, in MHz and watts.
CLOCKS = ("driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem", "power.draw", "power.limit")


def identity(device: torch.device, tiny: bool) -> dict[str, Any]:
    """The properties that two runs must share to be parts of one: the kit, torch, the device, the sizes."""
    return {"kit": kit(), "torch": torch.__version__, "device": device_name(device), "tiny": tiny}


def describe(device: torch.device) -> dict[str, Any]:
    """Device, driver, versions, commit and the backends of this installation."""
    installed = info.collect()
    return {
        "device": device_name(device),
        **_device(device),
        "nvidia_smi": clocks(device),
        "torch": installed["torch"],
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "triton": _triton(),
        "python": platform.python_version(),
        "cpu": installed["cpu"],
        "processor": processor.description(),
        "cores": installed["cores"],
        "threads": installed["threads"],
        "hstl_fast": installed["hstl_fast"],
        "commit": commit(),
        "sources": sources(),
        "native_cpu": installed["native_cpu"]["loaded"],
        "backends": [row for row in installed["backends"] if row["device"] == device.type],
    }


def device_name(device: torch.device) -> str:
    """The device's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(info.collect()["cpu"])


def clocks(device: torch.device) -> dict[str, str]:
    """Driver, clocks and power as nvidia-smi reads them at this moment, or the reason why it does not."""
    program = shutil.which("nvidia-smi")
    if device.type != "cuda" or program is None:
        return {"unavailable": "no nvidia-smi" if device.type == "cuda" else "no GPU"}
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    which = [] if uuid is None else ["-i", f"GPU-{uuid}"]
    command = [program, *which, f"--query-gpu={','.join(CLOCKS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
        return dict(zip(CLOCKS, values, strict=True))
    except (OSError, subprocess.SubprocessError, IndexError, ValueError) as error:
        return {"unavailable": type(error).__name__}


def commit() -> str | None:
    """The checkout's commit, "+" behind it if tracked files differ; None where there is no git history."""
    head, changes = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    return head and head + ("+" if changes else "")


def sources(stage: str = "bench") -> str:
    """A fingerprint of the package, its native sources and, for the stages check and micro, the tests or the program:
    rows about them are measured again when it changes."""
    native = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    if stage == "micro":
        own = (ROOT / "benchmarks" / "gpu" / "micro").glob("*.cu*")
        return fingerprint([*own, *(path for path in native if path.suffix == ".cuh")])
    tests = (ROOT / "tests").rglob("*.py") if stage == "check" else ()
    return fingerprint([*(ROOT / "hstl_fast").rglob("*.py"), *native, *tests])


def kit() -> str:
    """A fingerprint of everything that decides the figures of the baselines: another kit gives other results."""
    shared = (ROOT / "benchmarks" / "core").glob("*.py")
    definitions = [ROOT / "hstl_fast" / f"{name}.py" for name in ("reference", "losses")]
    return fingerprint([*Path(__file__).parent.rglob("*.py"), *shared, *definitions])


def fingerprint(paths: Iterable[Path]) -> str:
    """A fingerprint of the files' names and contents."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _device(device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {}
    properties = torch.cuda.get_device_properties(device)
    return {
        "compute_capability": f"{properties.major}.{properties.minor}",
        "generation": measured.generation(device),
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
    }


def _triton() -> str | None:
    try:
        import triton
    except ImportError:
        return None
    return str(triton.__version__)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
