"""The programs that the kit starts beside Python: the compiler, the sanitizer, the profiler, and itself."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.core.text import anonymous
from benchmarks.gpu import supervise

ROOT = Path(__file__).parents[2]
# A program ends with the process that waits for it, so that none is left on the device.
OPTIONS: dict[str, Any] = {"cwd": ROOT, "text": True, "errors": "replace", "preexec_fn": supervise.die_with_parent}
# Where NVIDIA's packages put programs that are on nobody's path.
PLACES = ("/usr/local/cuda/bin", "/opt/cuda/bin", "/usr/local/cuda/compute-sanitizer")
VARIABLES = ("CUDA_HOME", "CUDA_PATH")


class MissingProgram(Exception):
    """A program is not installed; the message names it."""


def find(name: str) -> str:
    """The path of a program of the CUDA toolkit; raises MissingProgram."""
    homes = [str(Path(os.environ[variable], "bin")) for variable in VARIABLES if os.environ.get(variable)]
    nsight = sorted(map(str, Path("/opt/nvidia/nsight-compute").glob("*")), reverse=True)
    for path in (None, *homes, *PLACES, *nsight):
        found = shutil.which(name, path=path)
        if found is not None:
            return found
    raise MissingProgram(f"{name} is not installed: it is neither on the path nor in a CUDA toolkit's usual places")


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of the kit's modules in a Python of its own."""
    return [sys.executable, "-m", f"benchmarks.gpu.{name}", *arguments]


def run(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository for at most so many seconds; raises subprocess.TimeoutExpired."""
    full = {**os.environ, **(environment or {})}
    return subprocess.run(command, env=full, capture_output=True, timeout=seconds, check=False, **OPTIONS)


@contextmanager
def lines(command: Sequence[str]) -> Iterator[tuple[Iterator[str], "Ending"]]:
    """Run a command in the repository; its lines as it prints them, and afterwards how it ended."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **OPTIONS) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield iter(process.stdout), Ending(process, process.stderr)
        finally:
            process.kill()


class Ending:
    """The way in which a program ended."""

    def __init__(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self._process, self._errors = process, errors

    def reason(self) -> str:
        """The last line of its errors, once it has ended, or the way in which it ended."""
        said = self._errors.read()
        return last_line(said) or f"its process {supervise.ending(self._process.wait())}"


def last_line(said: str) -> str:
    """The last line that is not empty, without folders."""
    found = [line for line in said.splitlines() if line.strip()]
    return anonymous(found[-1])[:300] if found else ""
