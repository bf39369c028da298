"""Builds hstl_fast._cpu with ninja; pyproject.toml holds everything else.

HSTL_FAST_CPU=auto|1|0   auto: without a working compiler, warn and install pure Python; 1: fail; 0: do not build
CXX, MAX_JOBS            compiler command (GCC or Clang), parallel compilations
HSTL_FAST_SANITIZE       sanitizers to build with, as in -fsanitize=address,undefined; see .ci/sanitize
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"),
    *("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
]
X86_FLAGS = {
    "avx512": "-mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx2 -mfma -mprefer-vector-width=512",
    "avx2": "-mavx2 -mfma",
    "plain": "",
}
SANITIZERS = os.environ.get("HSTL_FAST_SANITIZE", "")
SANITIZE = [f"-fsanitize={SANITIZERS}", "-fno-sanitize-recover=all", "-O1", "-g1"] if SANITIZERS else []
OPERATORS = (
    *("arme_direct", "arme_direct_wgrad", "arme_winograd_prepack", "arme_winograd", "arme_winograd_wgrad"),
    *("astp", "fta", "max_pool", "head", "support"),
)
RULES = """\
cxx = {cxx}
rule compile
  command = $cxx -MMD -MF $out.d $flags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx {link} $in -o $out
"""


class CannotBuild(Exception):
    pass


def find_compiler() -> list[str]:
    if sys.platform == "win32":
        raise CannotBuild("the native CPU code needs GCC or Clang on Linux or macOS")
    candidates = [os.environ.get("CXX"), sysconfig.get_config_var("CXX"), "c++", "g++", "clang++"]
    for candidate in candidates if not candidates[0] else candidates[:1]:
        command = shlex.split(candidate or "")
        if command and shutil.which(command[0]):
            return command
    raise CannotBuild(f"no C++ compiler found (CXX={candidates[0] or 'unset'}; install g++ or clang)")


def has_openmp(compiler: list[str]) -> bool:
    """Whether header and library are there; Clang often comes without."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.cpp")
        source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
        command = [*compiler, "-fopenmp", str(source), "-o", str(Path(folder, "probe"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def instruction_sets(compiler: list[str]) -> dict[str, str]:
    target = subprocess.run([*compiler, "-dumpmachine"], capture_output=True, text=True, check=False).stdout
    if target.startswith(("x86_64", "amd64")):
        return X86_FLAGS
    return {"neon" if target.startswith(("aarch64", "arm64")) else "plain": ""}


def escaped(path: Path | str) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


def ninja_file(compiler: list[str], output: Path, version: str) -> str:
    try:
        import pybind11
    except ImportError as error:
        raise CannotBuild("pybind11 is not installed") from error
    flags = [*FLAGS, *(["-fopenmp"] if has_openmp(compiler) else []), *SANITIZE]
    link = ["-shared", *(["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else SANITIZE or ["-s"])]
    sets = instruction_sets(compiler)
    x86 = ["-DHSTL_X86"] if sets is X86_FLAGS else []
    includes = [f"-isystem{folder}" for folder in (pybind11.get_include(), sysconfig.get_path("include"))]
    about = [f'-DHSTL_VERSION="{version}"', f'-DHSTL_FLAGS="{" ".join(flags)}"']
    jobs = [("dispatch.cpp", "dispatch", x86), ("bindings.cpp", "bindings", [*includes, *about])]
    for isa, machine in sets.items():
        jobs += [(f"{name}.cpp", f"{name}.{isa}", [f"-DHSTL_ISA={isa}", *machine.split()]) for name in OPERATORS]
    lines = [RULES.format(cxx=shlex.join(compiler), link=shlex.join([*link, *(f for f in flags if "openmp" in f)]))]
    for source, name, extra in jobs:
        lines.append(f"build {name}.o: compile {escaped(ROOT / 'csrc' / 'cpu' / source)}")
        lines.append(f"  flags = {shlex.join([*flags, *extra]).replace('$', '$$')}")
    lines.append(f"build {escaped(output)}: link " + " ".join(f"{name}.o" for _, name, _ in jobs) + "\n")
    return "\n".join(lines)


def run_ninja(folder: Path) -> None:
    try:
        import ninja

        program = Path(ninja.BIN_DIR) / "ninja"
    except ImportError:
        program = Path(shutil.which("ninja") or "ninja")
    jobs = ["-j", os.environ["MAX_JOBS"]] if os.environ.get("MAX_JOBS") else []
    try:
        done = subprocess.run([str(program), *jobs], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CannotBuild(f"ninja does not run ({error})") from error
    print(done.stdout, done.stderr, sep="\n")
    if done.returncode:
        raise CannotBuild("the compiler failed:\n" + done.stdout[-4000:])


class BuildNative(build_ext):
    def run(self) -> None:
        self.in_place = bool(self.inplace)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            self.compile_into(output)
        except CannotBuild as error:
            if MODE == "1":
                raise SystemExit(f"HSTL_FAST_CPU=1, but {error}") from error
            line = "=" * 80
            print(line, f"WARNING: hstl_fast has NO native CPU code: {error}", line, sep="\n", file=sys.stderr)
            output.unlink(missing_ok=True)
            if self.in_place:
                (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)

    def compile_into(self, output: Path) -> None:
        folder = Path(self.build_temp).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        text = ninja_file(find_compiler(), output, self.distribution.get_version())
        (folder / "build.ninja").write_text(text)
        run_ninja(folder)


MODE = os.environ.get("HSTL_FAST_CPU", "auto")
if MODE not in ("auto", "1", "0"):
    raise SystemExit(f"HSTL_FAST_CPU: expected auto, 1 or 0, got {MODE!r}")

if __name__ == "__main__":
    setup(
        ext_modules=[] if MODE == "0" else [Extension("hstl_fast._cpu", sources=[], optional=MODE == "auto")],
        cmdclass={"build_ext": BuildNative},
    )
