"""The build of hstl_fast._cpu: flags, the probing of the compiler, the ninja file; setup.py calls `build_module`.

Needs the standard library, pybind11 and ninja; knows nothing of setuptools. The environment variables are

    HSTL_FAST_CPU=auto|1|0   auto: without a working compiler, warn and install pure Python; 1: fail; 0: do not build
    CXX                      the compiler's command (GCC or Clang); default: the one of Python, c++, g++ or clang++
    MAX_JOBS                 parallel compilations; default: ninja's
    HSTL_FAST_SANITIZE       sanitizers to build with, as in -fsanitize=address,undefined; see .ci/sanitize

`python csrc/build.py flags` and `python csrc/build.py objects` print, for other programs that link the operators, the
compiler's flags and the operators' objects in the build's folder. build_cuda.py beside this builds hstl_fast._cuda.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).parent.resolve()
# Every other file beside them holds operators and is compiled once per instruction set.
ONCE = ("dispatch", "bindings")
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
]
X86_FLAGS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma",
    "plain": "",
}
RULES = """\
cxx = {cxx}
rule compile
  command = $cxx -MMD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx {link} $in -o $out
"""
# The module is loaded by its path, as hstl_fast is not importable during a build.
LOAD = """\
import importlib.util, sys
spec = importlib.util.spec_from_file_location(sys.argv[2], sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


class CannotBuildError(Exception):
    """The module cannot be built here; says what failed."""


class InvalidVariableError(Exception):
    """An environment variable has a value that it cannot have, whether or not a module could be built."""

    def __init__(self, name: str, expected: str, got: str) -> None:
        super().__init__(f"{name}: expected {expected}, got {got!r}")


class Settings(NamedTuple):
    """The build that the environment variables ask for."""

    mode: str  # "auto", "1" or "0"
    compiler: list[str]  # empty: any
    jobs: int | None
    sanitizers: str

    @classmethod
    def from_environment(cls) -> Settings:
        """The settings; raises InvalidVariableError."""
        mode = os.environ.get("HSTL_FAST_CPU") or "auto"
        if mode not in ("auto", "1", "0"):
            raise InvalidVariableError("HSTL_FAST_CPU", "auto, 1 or 0", mode)
        jobs = jobs_from_environment()
        sanitizers = os.environ.get("HSTL_FAST_SANITIZE", "")
        if not re.fullmatch(r"([a-z-]+(,[a-z-]+)*)?", sanitizers):
            raise InvalidVariableError("HSTL_FAST_SANITIZE", "sanitizers such as address,undefined", sanitizers)
        compiler = os.environ.get("CXX", "")
        try:
            command = shlex.split(compiler)
        except ValueError as error:
            raise InvalidVariableError("CXX", f"the command of a C++ compiler ({error})", compiler) from error
        return cls(mode, command, jobs, sanitizers)


def jobs_from_environment() -> int | None:
    """Parallel compilations, None for as many as ninja chooses; raises InvalidVariableError."""
    jobs = os.environ.get("MAX_JOBS") or None
    if jobs is not None and not re.fullmatch(r"0*[1-9][0-9]{0,4}", jobs.strip()):
        raise InvalidVariableError("MAX_JOBS", "a number of parallel compilations, at least 1", jobs)
    return None if jobs is None else int(jobs)


def operators() -> list[str]:
    """Names of the files with operators."""
    return sorted(path.stem for path in (CSRC / "cpu").glob("*.cpp") if path.stem not in ONCE)


def find_compiler(settings: Settings) -> list[str]:
    """The compiler's command."""
    if sys.platform == "win32":
        raise CannotBuildError("the native CPU code needs GCC or Clang on Linux or macOS")
    if settings.compiler:
        if shutil.which(settings.compiler[0]):
            return settings.compiler
        raise CannotBuildError(f"CXX: expected a command that can be run, got {shlex.join(settings.compiler)!r}")
    for candidate in (sysconfig.get_config_var("CXX"), "c++", "g++", "clang++"):
        command = shlex.split(candidate or "")
        if command and shutil.which(command[0]):
            return command
    raise CannotBuildError("no C++ compiler was found (CXX is unset; install g++ or clang)")


def has_openmp(compiler: list[str]) -> bool:
    """Whether OpenMP's header and library are there; Clang often comes without."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        command = [*compiler, "-fopenmp", str(source), "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def target_of(compiler: list[str]) -> str:
    """The processor that the compiler compiles for: "x86_64", "aarch64" or another name."""
    machine = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True, check=False).stdout
    return processor(machine.strip().split("-")[0])


def processor(machine: str) -> str:
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())


def instruction_sets(target: str) -> dict[str, list[str]]:
    """Names of the instruction sets that the operators are compiled for, with their flags."""
    if target == "x86_64":
        return {name: flags.split() for name, flags in X86_FLAGS.items()}
    return {"neon" if target == "aarch64" else "plain": []}


def common_flags(settings: Settings, openmp: bool) -> list[str]:
    """The flags of every compilation."""
    return [*FLAGS, *(["-fopenmp"] if openmp else []), *sanitizer_flags(settings)]


def sanitizer_flags(settings: Settings) -> list[str]:
    if not settings.sanitizers:
        return []
    return [f"-fsanitize={settings.sanitizers}", "-fno-sanitize-recover=all", "-O1", "-g1"]


class Compilation(NamedTuple):
    """One file of csrc/cpu, the object it becomes, and the flags it needs beside the common ones."""

    source: str
    target: str
    flags: list[str]


def compilations(sets: dict[str, list[str]]) -> list[Compilation]:
    """Those of all operators and of their dispatch."""
    jobs = [Compilation("dispatch", "dispatch.o", ["-DHSTL_X86"] if "avx2" in sets else [])]
    for isa, flags in sets.items():
        jobs += [Compilation(name, f"{name}.{isa}.o", [f"-DHSTL_ISA={isa}", *flags]) for name in operators()]
    return jobs


def bindings(flags: list[str], version: str) -> Compilation:
    """The name of the Python module itself."""
    includes = [f"-isystem{folder}" for folder in python_includes()]
    about = [f'-DHSTL_VERSION="{version}"', f'-DHSTL_FLAGS="{" ".join(flags)}"']
    return Compilation("bindings", "bindings.o", [*includes, *about])


def python_includes() -> tuple[str, str]:
    """The folders with the headers of pybind11 and Python."""
    try:
        import pybind11
    except ImportError as error:
        raise CannotBuildError("pybind11 is not installed") from error
    return pybind11.get_include(), sysconfig.get_path("include")


def ninja_file(compiler: list[str], flags: list[str], link: list[str], jobs: list[Compilation], output: str) -> str:
    """The ninja file of a folder that holds a link to csrc, so that the paths in it need no escaping wherever it is."""
    lines = [RULES.format(cxx=quoted(compiler), link=quoted(link))]
    for job in jobs:
        lines.append(f"build {job.target}: compile csrc/cpu/{job.source}.cpp")
        lines.append(f"  flags = {quoted([*flags, *job.flags])}")
    lines.append(f"build {output}: link " + " ".join(job.target for job in jobs) + "\n")
    return "\n".join(lines)


def quoted(words: list[str]) -> str:
    """The words of a command for a shell, as the value of a variable of ninja."""
    return shlex.join(words).replace("$", "$$")


def run_ninja(folder: Path, jobs: int | None) -> None:
    """Runs the ninja file of a folder; raises CannotBuildError with what the compiler or ninja said."""
    try:
        import ninja

        program = Path(ninja.BIN_DIR) / "ninja"
    except ImportError:
        program = Path(shutil.which("ninja") or "ninja")
    command = [str(program), *(["-j", str(jobs)] if jobs else [])]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CannotBuildError(f"ninja does not run ({error})") from error
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode:
        # Ninja prints what it runs and what failing commands say to stdout, and its own errors to stderr.
        said = done.stdout[max(done.stdout.find("FAILED: "), 0) :][:6000] + done.stderr[-2000:]
        raise CannotBuildError(f"the compiler failed:\n{said.strip() or f'{program} ended with {done.returncode}'}")


CXX_ADVICE = "CXX must be a C++ compiler that links the C++ library: g++ or clang++, not gcc or clang"


def check_loads(module: Path, name: str, compiler: list[str], advice: str = CXX_ADVICE) -> None:
    """Loads the module in a child process; raises CannotBuildError with what the loader said."""
    command = [sys.executable, "-c", LOAD, str(module), name]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        last = said[-1] if said else f"exit {done.returncode}"
        raise CannotBuildError(f"what {shlex.join(compiler)} built cannot be loaded: {last} ({advice})")


def build_module(settings: Settings, folder: Path, output: Path, version: str) -> None:
    """Builds the Python module in a folder, loads it once, and copies it to `output`; raises CannotBuildError."""
    compiler = find_compiler(settings)
    target, openmp = target_of(compiler), has_openmp(compiler)
    flags, sanitize = common_flags(settings, openmp), sanitizer_flags(settings)
    link = ["-shared", *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else sanitize or ["-s"])]
    jobs = [*compilations(instruction_sets(target)), bindings(flags, version)]
    text = ninja_file(compiler, flags, [*link, *(["-fopenmp"] if openmp else [])], jobs, output.name)
    with locked(folder):
        link_csrc(folder)
        (folder / "build.ninja").write_text(text, encoding="utf-8")
        run_ninja(folder, settings.jobs)
        if not settings.sanitizers and target == processor(platform.machine()):
            check_loads(folder / output.name, "hstl_fast._cpu", compiler)
        install(folder / output.name, output)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which no other build uses the folder, which is made; a lock ends with the process that holds it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w", encoding="utf-8") as lock:
        try:
            import fcntl
        except ImportError:
            pass  # on Windows nothing is built
        else:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def install(module: Path, output: Path) -> None:
    """Copies the module to its place in one step: a build that is killed leaves the whole one before."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        shutil.copy2(module, draft)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


def link_csrc(folder: Path) -> None:
    """Puts a link to csrc into the folder."""
    link = folder / "csrc"
    if link.is_symlink():
        link.unlink()
    link.symlink_to(CSRC, target_is_directory=True)


def main(wanted: list[str]) -> None:
    """Prints what another program needs to link the operators."""
    settings = Settings.from_environment()
    compiler = find_compiler(settings)
    if wanted == ["flags"]:
        print(shlex.join(common_flags(settings, has_openmp(compiler))))
    elif wanted == ["objects"]:
        print(" ".join(job.target for job in compilations(instruction_sets(target_of(compiler)))))
    else:
        raise SystemExit("usage: python csrc/build.py flags|objects")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (CannotBuildError, InvalidVariableError) as error:
        raise SystemExit(str(error)) from error
