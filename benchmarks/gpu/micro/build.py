"""The build of the micro-benchmarks' program."""

import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.core.text import anonymous
from benchmarks.gpu import environment, programs
from hstl_fast.files import atomic_file

HERE = Path(__file__).parent
HEADERS = programs.ROOT / "csrc" / "cuda"
FOLDER = programs.ROOT / "build" / "gpu-micro"
# Seconds that a compilation may take.
LONGEST = 200.0
HOPPER = "arch=compute_90a,code=sm_90a"
AMPERE = "arch=compute_80,code=[sm_80,compute_80]"


class CannotCompile(Exception):
    """The program cannot be compiled; the message is the compiler's."""


def built(capability: tuple[int, int] | None = None) -> Path:
    """The program for a GPU of this compute capability, or for all that a kernel uses instructions of; compiled unless
    one of the same sources is there. Raises MissingProgram and CannotCompile."""
    program = FOLDER / f"micro-{fingerprint()}"
    if not program.exists():
        compile_to(program, architectures(capability))
    return program


def fingerprint() -> str:
    """The fingerprint of everything that the program is compiled from."""
    return environment.fingerprint([*sources(), *HERE.glob("*.cuh"), *(HEADERS / f"{n}.cuh" for n in INCLUDED)])


INCLUDED = ("device", "launch")


def sources() -> list[Path]:
    """The files that are compiled."""
    return sorted(HERE.glob("*.cu"))


def architectures(capability: tuple[int, int] | None) -> list[str]:
    """The architectures to compile for, as -gencode takes them."""
    if capability is None:
        return [AMPERE, HOPPER]
    if capability == (9, 0):
        return [HOPPER]
    name = "{}{}".format(*capability)
    return [f"arch=compute_{name},code=[sm_{name},compute_{name}]"]


def compile_to(program: Path, wanted: list[str]) -> None:
    """Compile all files at the same time, and link them with CUDA's static runtime."""
    nvcc = [programs.find("nvcc"), *(f"-gencode={name}" for name in wanted)]
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        objects = [Path(folder, f"{path.stem}.o") for path in sources()]
        flags = ["-std=c++17", "-O3", f"-I{HEADERS}", "-c"]
        commands = [[*nvcc, *flags, str(path), "-o", str(o)] for path, o in zip(sources(), objects)]
        list(pool.map(_run, commands))
        with atomic_file(program) as draft:
            _run([*nvcc, "-cudart=static", *map(str, objects), "-o", str(draft)])
            draft.chmod(0o755)


def _run(command: list[str]) -> None:
    try:
        done = programs.run(command, LONGEST)
    except subprocess.TimeoutExpired as error:
        raise CannotCompile(f"nvcc was stopped after {LONGEST:.0f} seconds") from error
    if done.returncode:
        wrong = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if "error" in line]
        raise CannotCompile(f"nvcc: {anonymous(wrong[0])[:300] if wrong else programs.last_line(done.stderr)}")
