"""Compiles the driver beside it with the package's native operators, as csrc/build.py says."""

import os
import runpy
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def build_driver(
    folder: Path, compiler: str, isa: str, extra: list[str], runtime: list[str], own: Sequence[str] = ()
) -> Path:
    """The program, in `folder`, with the operators for one instruction set that needs no flags: "plain" or "neon".

    `extra` flags come last, but for the driver's `own`; `runtime` is what OpenMP's functions are linked from: a flag,
    or a source.
    """
    build = runpy.run_path(str(ROOT / "csrc" / "build.py"))
    csrc = [(ROOT / "csrc" / "cpu" / f"{job.source}.cpp", job.flags) for job in build["compilations"]({isa: []})]

    def compile_one(job: tuple[Path, list[str]]) -> str:
        source, flags = job
        command = [compiler, *build["FLAGS"], "-fopenmp", *extra, *flags]
        run([*command, "-c", str(source), "-o", f"{source.stem}.o"], folder)
        return f"{source.stem}.o"

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
        objects = list(pool.map(compile_one, [(HERE / "driver.cpp", list(own)), *csrc]))
    run([compiler, *extra, *objects, *runtime, "-o", "driver"], folder)
    return folder / "driver"


def run(command: list[str], folder: Path, **environment: str) -> str:
    """What the command prints; raises AssertionError with it if the command fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout
