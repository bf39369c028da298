"""Compiles the CUDA kernels for the CPU, against the emulator beside this, into modules that Python can import.

Objects are cached by what they are made of: the text of a source and of all that it includes, and the flags. So a
module with one changed source costs one compilation.
"""

import fcntl
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import runpy
import shutil
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FLAGS = [
    *("-std=c++17", "-g1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas"),
    # launch.cuh has no use for the stream here.
    "-Wno-unused-parameter",
]
# The emulator is optimised, as it does the arithmetic; the kernels are not, as they are compiled often.
EMULATOR_FLAGS = ["-O3"]
KERNEL_FLAGS = ["-O1", "-DHSTL_HOST_SHIM"]
DAYS = 7  # that an object stays in the cache unused


@cache
def compiler() -> list[str]:
    """The command of the C++ compiler; raises csrc/build.py's CannotBuildError where there is none."""
    build = runpy.run_path(str(ROOT / "csrc" / "build.py"))
    command: list[str] = build["find_compiler"](build["Settings"].from_environment())
    return command


@cache
def cache_folder() -> Path:
    """The folder of objects and modules, outside the checkout; forgets what was not used for some days."""
    folder = Path(tempfile.gettempdir()) / f"hstl_fast-shim-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        if path.stat().st_mtime < time.time() - DAYS * 86400:
            path.unlink(missing_ok=True)
    return folder


def included(source: Path, folders: Sequence[Path]) -> Iterator[Path]:
    """The source and the files of the project that it includes, directly or not."""
    found, todo = {source}, [source]
    while todo:
        path = todo.pop()
        yield path
        for name in re.findall(r'^\s*#\s*include\s*[<"]([^">]+)[">]', path.read_text(), re.MULTILINE):
            for folder in (path.parent, *folders):
                target = (folder / name).resolve()
                if target.is_file():
                    if target not in found:
                        found.add(target)
                        todo.append(target)
                    break


def compile_object(source: Path, flags: Sequence[str], folders: Sequence[Path]) -> Path:
    """The object of one source, from the cache if it is there; `folders` are searched for headers."""
    command = [*compiler(), *FLAGS, *flags]
    key = hashlib.sha256("\0".join([*command, source.name]).encode())
    for path in included(source.resolve(), folders):
        key.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    target = cache_folder() / f"{source.stem}-{key.hexdigest()[:20]}.o"
    if target.exists():
        os.utime(target)
        return target
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process of tests may be compiling it
        if not target.exists():
            compile_to(target, source, command, folders)
    return target


def compile_to(target: Path, source: Path, command: Sequence[str], folders: Sequence[Path]) -> None:
    """Compile a source; the object is there as a whole or not at all."""
    places = [f"-I{folder}" for folder in folders]
    # The last that fits counts: messages name kernels from the repository's root or, if changed, by their file's name.
    names = [f"-fmacro-prefix-map={folder}/=" for folder in (source.parent, ROOT)]
    written = target.with_suffix(f".{os.getpid()}.{source.stem}.tmp")
    run([*command, *names, *places, "-x", "c++", "-c", str(source), "-o", str(written)])
    written.replace(target)


def build(sources: Sequence[Path], extra: Sequence[str] = (), csrc: Path | None = None) -> Path:
    """A shared library of kernels, bindings and the emulator.

    Args:
        sources: kernels (.cu) and their bindings (.cpp).
        extra: further flags for them.
        csrc: where their headers lie; by default the project's.
    """
    import pybind11

    csrc = csrc or ROOT / "csrc"
    python = [Path(pybind11.get_include()), Path(sysconfig.get_paths()["include"])]
    emulator = sorted(HERE.glob("*.cpp"))
    jobs = [(path, [*KERNEL_FLAGS, *extra], [csrc / "cuda", csrc, HERE, *python]) for path in sources]
    jobs += [(path, EMULATOR_FLAGS, [HERE, *python]) for path in emulator]
    with ThreadPoolExecutor(min(2, int(os.environ.get("MAX_JOBS") or 2))) as pool:
        objects = list(pool.map(lambda job: compile_object(*job), jobs))
    key = hashlib.sha256("\0".join(map(str, objects)).encode()).hexdigest()[:20]
    target = cache_folder() / f"module-{key}.so"
    if not target.exists():
        written = target.with_suffix(f".{os.getpid()}.tmp")
        run([*compiler(), "-shared", *map(str, objects), "-o", str(written)])
        written.replace(target)
    os.utime(target)
    return target


def load(library: Path, name: str) -> ModuleType:
    """Import a library under a name, whose last part is that of its PYBIND11_MODULE; sys.modules stays as it is.

    pybind11 has one module of a name, so another library needs another name.
    """
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    assert module.__file__ == str(library), f"{name} is already the name of {module.__file__}"
    return module


def cuda_sources(csrc: Path | None = None) -> list[Path]:
    """The sources of hstl_fast._cuda."""
    csrc = csrc or ROOT / "csrc"
    return [*sorted((csrc / "cuda").glob("*.cu")), csrc / "cuda" / "bindings.cpp"]


def cuda_module(*extra: str, name: str = "emulated._cuda") -> ModuleType:
    """hstl_fast._cuda for the CPU, compiled with further flags."""
    return load(build(cuda_sources(), extra), name)


# Gives back the stacks of the changed module that was made last.
_releases: list[Callable[[], None]] = []


def mutated(source: str, old: str, new: str, *extra: str) -> ModuleType:
    """hstl_fast._cuda with one change.

    Args:
        source: a file in csrc/cuda.
        old: a text that stands there exactly once.
        new: what takes its place.
        extra: further flags.

    Raises:
        AssertionError: if `old` stands there another number of times.
    """
    with tempfile.TemporaryDirectory() as folder:
        csrc = Path(folder, "csrc")
        shutil.copytree(ROOT / "csrc", csrc)
        change(csrc / "cuda" / source, old, new)
        library = build(cuda_sources(csrc), extra, csrc)
        module = load(library, f"{library.stem}._cuda")
        # A module stays in the process for good, and so would the stacks of its threads.
        while _releases:
            _releases.pop()()
        if hasattr(module, "shim"):
            _releases.append(module.shim.release_stacks)
        return module


def change(path: Path, old: str, new: str) -> None:
    """Replace the only occurrence of a text in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{path.name}: expected {old!r} once, found it {text.count(old)} times"
    path.write_text(text.replace(old, new))


def run(command: list[str]) -> None:
    """Run the compiler; raises AssertionError with what it prints if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
