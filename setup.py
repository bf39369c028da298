"""Lets setuptools build hstl_fast._cpu and hstl_fast._cuda with csrc/build.py and csrc/build_cuda.py.

These say what the environment variables mean.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def load(name: str) -> ModuleType:
    """A file of csrc as a module, found by its path: in an isolated build the project's folder is not importable."""
    path = ROOT / "csrc" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"hstl_fast_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build_cuda = load("build_cuda")
build = build_cuda.build
try:
    CPU, CUDA = build.Settings.from_environment(), build_cuda.Settings.from_environment()
except build.InvalidVariableError as error:
    raise SystemExit(str(error)) from error


class BuildNative(build_ext):
    """Builds the modules, or warns and leaves none behind where the environment allows that."""

    def run(self) -> None:
        self.in_place = bool(self.inplace)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        temp, version = Path(self.build_temp).resolve(), self.distribution.get_version()
        try:
            if ext.name == "hstl_fast._cpu":
                build.build_module(CPU, temp, output, version)
            else:
                build_cuda.build_module(CUDA, temp / "cuda", output, version)
        except build.CannotBuildError as error:
            self.do_without(ext, output, error)

    def do_without(self, ext: Extension, output: Path, error: Exception) -> None:
        """Says that there is no such module, and why; leaves none of an earlier build behind."""
        is_cpu = ext.name == "hstl_fast._cpu"
        kind, mode = ("CPU", CPU.mode) if is_cpu else ("CUDA", CUDA.mode)
        if mode == "1":
            raise SystemExit(f"HSTL_FAST_{kind}=1, but {error}") from error
        text = f"hstl_fast has NO native {kind} code: {error}"
        if isinstance(error, build_cuda.NoCompilerError):
            print(f"{text} (it is optional)", file=sys.stderr)
        else:
            line = "=" * 80
            print(line, f"WARNING: {text}", line, sep="\n", file=sys.stderr)
        output.unlink(missing_ok=True)
        if self.in_place:
            (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)


if __name__ == "__main__":
    modes = {"hstl_fast._cpu": CPU.mode, "hstl_fast._cuda": CUDA.mode}
    extensions = [Extension(name, sources=[], optional=mode == "auto") for name, mode in modes.items() if mode != "0"]
    setup(ext_modules=extensions, cmdclass={"build_ext": BuildNative})
