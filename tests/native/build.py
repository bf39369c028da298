"""Compiles the driver beside it with the package's native operators, by the flags of setup.py."""

import os
import runpy
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def build_driver(folder: Path, compiler: str, isa: str, extra: list[str], runtime: list[str]) -> Path:
    """The program, in `folder`, with the operators for one instruction set that needs no flags: "plain" or "neon".

    `extra` flags come last; `runtime` is what OpenMP's functions are linked from: a flag, or a source.
    """
    setup = runpy.run_path(str(ROOT / "setup.py"))
    operators = [ROOT / "csrc" / "cpu" / f"{name}.cpp" for name in ("dispatch", *setup["OPERATORS"])]

    def compile_one(source: Path) -> str:
        flags = [*setup["FLAGS"], "-fopenmp", f"-DHSTL_ISA={isa}", *extra]
        run([compiler, *flags, "-c", str(source), "-o", f"{source.stem}.o"], folder)
        return f"{source.stem}.o"

    with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
        objects = list(pool.map(compile_one, [HERE / "driver.cpp", *operators]))
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
