"""The build of hstl_fast._cuda: nvcc, the architectures, the ninja file; setup.py calls `build_module`.

No GPU is needed or asked for. The environment variables are

    HSTL_FAST_CUDA=auto|1|0   auto: without nvcc, or where it fails, say so and go on; 1: fail; 0: do not build
    HSTL_FAST_CUDA_ARCHS      compute capabilities such as 80 90a, or all; default: TORCH_CUDA_ARCH_LIST, else 80 90a
    TORCH_CUDA_ARCH_LIST      as for extensions of torch; what is older than 8.0 is left out
    NVCC                      nvcc's command; default: CUDA_HOME/bin/nvcc, nvcc on the PATH, /usr/local/cuda/bin/nvcc
    CUDA_HOME                 the folder of the CUDA toolkit
    CXX, MAX_JOBS             as for build.py

For every architecture there is machine code, and of the newest one without a suffix PTX as well, which newer GPUs
compile for themselves. Hopper's 90 is always 90a, the only one with its matrix products.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

CSRC = Path(__file__).parent.resolve()
build = SimpleNamespace(**runpy.run_path(str(CSRC / "build.py")))
CannotBuildError, InvalidVariableError = build.CannotBuildError, build.InvalidVariableError

DEFAULT = ("80", "90a")
ALL = ("80", "86", "89", "90a", "100", "120")
OLDEST = 80
FLAGS = ["-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden,-Wall,-Wextra"]
# The runtime is linked statically and stays invisible: torch brings one of its own.
LINK = ["-shared", "-cudart=static", "-Xlinker=-s", "-Xlinker=--exclude-libs,ALL"]
RULES = """\
nvcc = {nvcc}
rule compile
  command = $nvcc -MMD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $nvcc {link} $in -o $out
"""
ADVICE = "nvcc and the host's compiler must be of one architecture"
# Those of torch's names for generations that are new enough.
GENERATIONS = {"ampere": ("80", "86"), "ada": ("89",), "hopper": ("90a",), "blackwell": ("100", "120")}


class NoCompilerError(CannotBuildError):
    """There is no nvcc, so that the module is left out as on most machines."""


class Settings(NamedTuple):
    """The build that the environment variables ask for."""

    mode: str  # "auto", "1" or "0"
    architectures: tuple[str, ...]
    nvcc: list[str]  # empty: the one that is found
    compiler: list[str]  # empty: nvcc's choice
    jobs: int | None

    @classmethod
    def from_environment(cls) -> Settings:
        """The settings; raises InvalidVariableError."""
        mode = os.environ.get("HSTL_FAST_CUDA") or "auto"
        if mode not in ("auto", "1", "0"):
            raise InvalidVariableError("HSTL_FAST_CUDA", "auto, 1 or 0", mode)
        text = os.environ.get("NVCC", "")
        try:
            nvcc = shlex.split(text)
        except ValueError as error:
            raise InvalidVariableError("NVCC", f"nvcc's command ({error})", text) from error
        compiler = build.Settings.from_environment().compiler
        return cls(mode, architectures_from_environment(), nvcc, compiler, build.jobs_from_environment())


def architectures_from_environment() -> tuple[str, ...]:
    """The compute capabilities that machine code is made for, oldest first; raises InvalidVariableError."""
    text = os.environ.get("HSTL_FAST_CUDA_ARCHS", "").strip()
    if text:
        words = ALL if text == "all" else re.split(r"[\s,;]+", text)
        found = [capability(word) for word in words]
        if None in found:
            expected = f"compute capabilities from {OLDEST} on, such as 80 90a, or all"
            raise InvalidVariableError("HSTL_FAST_CUDA_ARCHS", expected, text)
    else:
        words = re.split(r"[\s,;]+", os.environ.get("TORCH_CUDA_ARCH_LIST", ""))
        found = [each for word in words for each in GENERATIONS.get(word.lower(), (capability(word),))]
    wanted = {each for each in found if each is not None} or set(DEFAULT)
    return tuple(sorted(wanted, key=order))


def capability(word: str) -> str | None:
    """A capability such as 80 from how it may be written: 8.0, sm_80, 8.0+PTX; None if it is none, or too old."""
    match = re.fullmatch(r"(?:sm_|compute_)?(\d{1,2})\.?(\d)(a?)(?:\+ptx)?", word.lower())
    if match is None or int(match[1] + match[2]) < OLDEST:
        return None
    name = match[1] + match[2]
    return f"{name}a" if match[3] or name == "90" else name


def order(architecture: str) -> tuple[int, bool]:
    return int(architecture.rstrip("a")), architecture.endswith("a")


def ptx_of(architectures: tuple[str, ...]) -> str:
    """The capability of the PTX: of the newest architecture that has no suffix, else of the newest without its own."""
    plain = [each for each in architectures if not each.endswith("a")]
    return max(plain or [each.rstrip("a") for each in architectures], key=order)


def code_of(architectures: tuple[str, ...]) -> list[str]:
    """The code that the binary holds: machine code, sm_XX, and PTX, compute_XX."""
    return [*(f"sm_{each}" for each in architectures), f"compute_{ptx_of(architectures)}"]


def code_flags(architectures: tuple[str, ...]) -> list[str]:
    """The flags that make that code."""
    machine = [f"-gencode=arch=compute_{each},code=sm_{each}" for each in architectures]
    ptx = ptx_of(architectures)
    return [*machine, f"-gencode=arch=compute_{ptx},code=compute_{ptx}"]


def find_nvcc(settings: Settings) -> list[str]:
    """nvcc's command; raises CannotBuildError, which says where it was looked for."""
    if settings.nvcc:
        if shutil.which(settings.nvcc[0]):
            return settings.nvcc
        raise CannotBuildError(f"NVCC: expected a command that can be run, got {shlex.join(settings.nvcc)!r}")
    home = os.environ.get("CUDA_HOME")
    places = [Path(home, "bin", "nvcc")] if home else [Path("nvcc"), Path("/usr/local/cuda/bin/nvcc")]
    for place in places:
        if found := shutil.which(place):
            return [str(found)]
    where = f"in {places[0].parent} (CUDA_HOME)" if home else "on the PATH, nor in /usr/local/cuda/bin"
    raise NoCompilerError(f"nvcc was not found {where}; install the CUDA toolkit, or set NVCC or CUDA_HOME")


def version_of(nvcc: list[str]) -> str:
    """The version that nvcc says it has, such as 13.0.88."""
    done = subprocess.run([*nvcc, "--version"], capture_output=True, text=True, errors="replace", check=False)
    match = re.search(r"\bV(\d+(?:\.\d+)+)", done.stdout)
    if done.returncode or match is None:
        said = (done.stderr or done.stdout).strip()[:500]
        raise CannotBuildError(f"{shlex.join(nvcc)} is no nvcc that works: {said or f'exit {done.returncode}'}")
    return match[1]


def sources() -> list[str]:
    """Names of the files with kernels."""
    return sorted(path.stem for path in (CSRC / "cuda").glob("*.cu"))


def flags_of(settings: Settings) -> list[str]:
    """The flags of every compilation."""
    return [*FLAGS, *host_flags(settings), *code_flags(settings.architectures)]


def host_flags(settings: Settings) -> list[str]:
    return [f"-ccbin={shlex.join(settings.compiler)}"] if settings.compiler else []


def ninja_file(settings: Settings, nvcc: list[str], output: str) -> str:
    """The ninja file of a folder that holds a link to csrc and the header about.h."""
    flags = flags_of(settings)
    lines = [RULES.format(nvcc=build.quoted(nvcc), link=build.quoted([*LINK, *host_flags(settings)]))]
    for name in sources():
        lines += [f"build {name}.o: compile csrc/cuda/{name}.cu", f"  flags = {build.quoted(flags)}"]
    includes = [f"-isystem={folder}" for folder in build.python_includes()]
    lines += [
        "build bindings.o: compile csrc/cuda/bindings.cpp | about.h",
        f"  flags = {build.quoted([*flags, *includes, '-include=about.h'])}",
    ]
    objects = " ".join(f"{name}.o" for name in (*sources(), "bindings"))
    return "\n".join([*lines, f"build {output}: link {objects}\n"])


def about(settings: Settings, nvcc: list[str], version: str) -> str:
    """A header with what the bindings tell of the build."""
    facts = {
        "VERSION": version,
        "FLAGS": " ".join(flags_of(settings)),
        "NVCC": version_of(nvcc),
        "ARCHITECTURES": " ".join(code_of(settings.architectures)),
    }
    escaped = {name: text.replace("\\", "\\\\").replace('"', '\\"') for name, text in facts.items()}
    return "".join(f'#define HSTL_{name} "{text}"\n' for name, text in escaped.items())


def build_module(settings: Settings, folder: Path, output: Path, version: str) -> None:
    """Builds the Python module in a folder, loads it once, and copies it to `output`; raises CannotBuildError."""
    nvcc = find_nvcc(settings)
    header, text = about(settings, nvcc, version), ninja_file(settings, nvcc, output.name)
    with build.locked(folder):
        build.link_csrc(folder)
        write_if_changed(folder / "about.h", header)
        (folder / "build.ninja").write_text(text, encoding="utf-8")
        build.run_ninja(folder, settings.jobs)
        build.check_loads(folder / output.name, "hstl_fast._cuda", nvcc, ADVICE)
        build.install(folder / output.name, output)


def write_if_changed(path: Path, text: str) -> None:
    """Writes a file, unless it holds the text already."""
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")
