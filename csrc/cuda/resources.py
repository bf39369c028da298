"""Prints what each kernel takes of a GPU: registers, shared memory, spills, tensor-core instructions, ptxas' notes.

    python csrc/cuda/resources.py [ARCH ...] [--json]

compiles every file of csrc/cuda for each architecture, 80 and 90a unless others are named, and needs nvcc; without
cuobjdump, which stands beside nvcc or comes with the extra `cuda-tools`, nothing is
known of the instructions. No GPU is needed. Dynamic shared memory is asked for at the launch and not counted here.
"""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

HERE = Path(__file__).parent.resolve()
build = SimpleNamespace(**runpy.run_path(str(HERE.parent / "build_cuda.py")))
# What ptxas says where it does not let wgmma run in the background.
SERIALIZED = re.compile(r"C7510|C7514|serialized", re.IGNORECASE)


class Kernel(NamedTuple):
    """A kernel compiled for one architecture, and the resources that it takes.

    Attributes:
        file: The source's name.
        architecture: A compute capability such as 90a.
        name: The kernel's name with the arguments of its template.
        registers: Registers of a thread.
        shared: Bytes of static shared memory.
        stack: Bytes of a thread's stack frame.
        spill_stores: Bytes written to spilled registers.
        spill_loads: Bytes read from spilled registers.
        hmma: Instructions of mma.sync; None if unknown.
        hgmma: Instructions of wgmma; None if unknown.
        notes: What ptxas says of lost speed, such as products that are serialized.
    """

    file: str
    architecture: str
    name: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    hmma: int | None
    hgmma: int | None
    notes: tuple[str, ...]

    @property
    def is_serialized(self) -> bool:
        """Whether products wait for one another."""
        return any(SERIALIZED.search(note) for note in self.notes)


def measure(architectures: Iterable[str], jobs: int | None = None) -> list[Kernel]:
    """Compiles all kernels; raises CannotBuildError where nvcc is missing or fails."""
    settings = build.Settings.from_environment()
    nvcc, tool = build.find_nvcc(settings), find_cuobjdump(build.find_nvcc(settings))
    tasks = [(name, each) for each in architectures for name in build.sources()]
    with ThreadPoolExecutor(jobs or settings.jobs or 2) as pool:
        found = pool.map(lambda task: list(of_file(*task, nvcc, tool)), tasks)
        return [kernel for kernels in found for kernel in kernels]


def find_cuobjdump(nvcc: list[str]) -> str | None:
    """The command of cuobjdump; None if there is none."""
    program = shutil.which(nvcc[0])
    beside = [Path(program).with_name("cuobjdump")] if program else []
    installed = sorted(Path(sysconfig.get_path("purelib"), "nvidia").glob("cu*/bin/cuobjdump"))
    for place in (*beside, Path("cuobjdump"), Path("/usr/local/cuda/bin/cuobjdump"), *installed):
        if found := shutil.which(place):
            return found
    return None


def of_file(name: str, architecture: str, nvcc: list[str], cuobjdump: str | None) -> Iterator[Kernel]:
    """The kernels of one file, compiled for one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, f"{name}.cubin")
        said = output([*nvcc, *command_flags(architecture), str(HERE / f"{name}.cu"), "-o", str(cubin)])
        sass = output([cuobjdump, "-sass", str(cubin)]) if cuobjdump else None
    instructions = None if sass is None else dict(instructions_of(sass))
    names = dict(zip(symbols := symbols_of(said), demangled(symbols)))
    for symbol, text in blocks_of(said):
        counted = None if instructions is None else instructions.get(symbol, "")
        yield Kernel(
            name,
            architecture,
            names[symbol],
            number(r"Used (\d+) registers", text),
            number(r"(\d+) bytes smem", text),
            number(r"(\d+) bytes stack frame", text),
            number(r"(\d+) bytes spill stores", text),
            number(r"(\d+) bytes spill loads", text),
            None if counted is None else len(re.findall(r"\bHMMA\b", counted)),
            None if counted is None else len(re.findall(r"\bHGMMA\b", counted)),
            notes_of(said, symbol),
        )


def command_flags(architecture: str) -> list[str]:
    return [*build.FLAGS, f"-arch=sm_{architecture}", "-Xptxas=-v", "-cubin"]


def output(command: list[str]) -> str:
    """Run a command and return its output; raises CannotBuildError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise build.CannotBuildError(f"{command[0]} failed:\n{(done.stdout + done.stderr).strip()[:3000]}")
    return done.stdout + done.stderr


COMPILING = re.compile(r"Compiling entry function '([^']+)' for '[^']+'")


def symbols_of(said: str) -> list[str]:
    return COMPILING.findall(said)


def blocks_of(said: str) -> Iterator[tuple[str, str]]:
    """The kernels' symbols, and what ptxas says of each."""
    parts = COMPILING.split(said)
    yield from zip(parts[1::2], parts[2::2])


def notes_of(said: str, symbol: str) -> tuple[str, ...]:
    """The notes and warnings that name a kernel."""
    lines = [line.split(":", 1)[-1].strip() for line in said.splitlines() if symbol in line]
    return tuple(line for line in lines if SERIALIZED.search(line) or "Performance" in line)


def number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0


def instructions_of(sass: str) -> Iterator[tuple[str, str]]:
    """The kernels' symbols, and the instructions of each."""
    parts = re.split(r"^\s*Function : (\S+)$", sass, flags=re.MULTILINE)
    yield from zip(parts[1::2], parts[2::2])


def demangled(symbols: list[str]) -> list[str]:
    """The names without namespaces and parameters, where there is a program that reads them."""
    program = shutil.which("c++filt") or shutil.which("cu++filt")
    if program is None or not symbols:
        return symbols
    lines = output([program, *symbols]).splitlines()
    return [short(line) for line in lines]


def short(name: str) -> str:
    """A demangled name without return type, namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|\b(?:\w+::)+", "", name)
    return re.sub(r"\([^()]*\)$", "", name).removeprefix("void ")


def table(kernels: list[Kernel]) -> Iterator[str]:
    """Lines to read: one for each kernel."""
    columns = f"{'registers':>9} {'shared':>6} {'stack':>5} {'spills':>6} {'HMMA':>5} {'HGMMA':>5}"
    yield f"{'file':16} {'sm':5} {columns}  kernel"
    for k in kernels:
        counts = ["?" if count is None else str(count) for count in (k.hmma, k.hgmma)]
        spills = k.spill_stores + k.spill_loads
        row = f"{k.registers:9} {k.shared:6} {k.stack:5} {spills:6} {counts[0]:>5} {counts[1]:>5}"
        yield f"{k.file:16} {k.architecture:5} {row}  {k.name}"
        yield from (f"{'':16} {note}" for note in k.notes)


def main(arguments: list[str]) -> None:
    """Prints the table, or all of it as JSON."""
    words = [word for word in arguments if word != "--json"]
    architectures = [build.capability(word) for word in words] or list(build.DEFAULT)
    if None in architectures:
        raise SystemExit("usage: python csrc/cuda/resources.py [ARCH ...] [--json], with ARCH such as 80 or 90a")
    kernels = measure(architectures)
    lines = [json.dumps([kernel._asdict() for kernel in kernels], indent=1)] if len(words) < len(arguments) else None
    print("\n".join(lines or table(kernels)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (build.CannotBuildError, build.InvalidVariableError) as error:
        raise SystemExit(str(error)) from error
