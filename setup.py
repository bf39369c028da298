"""Lets setuptools build hstl_fast._cpu with csrc/build.py, which says what the environment variables mean."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def load_build() -> ModuleType:
    """csrc/build.py as a module, found by its path: in an isolated build the project's folder is not importable."""
    spec = importlib.util.spec_from_file_location("hstl_fast_build", ROOT / "csrc" / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{ROOT / 'csrc' / 'build.py'} cannot be read")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = load_build()
try:
    SETTINGS = build.Settings.from_environment()
except build.InvalidVariableError as error:
    raise SystemExit(str(error)) from error


class BuildNative(build_ext):
    """Builds the module, or warns and leaves none behind where the environment allows that."""

    def run(self) -> None:
        self.in_place = bool(self.inplace)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        output = Path(self.get_ext_fullpath(ext.name)).resolve()
        try:
            build.build_module(SETTINGS, Path(self.build_temp).resolve(), output, self.distribution.get_version())
        except build.CannotBuildError as error:
            if SETTINGS.mode == "1":
                raise SystemExit(f"HSTL_FAST_CPU=1, but {error}") from error
            line = "=" * 80
            print(line, f"WARNING: hstl_fast has NO native CPU code: {error}", line, sep="\n", file=sys.stderr)
            output.unlink(missing_ok=True)
            if self.in_place:
                (ROOT / self.get_ext_filename(ext.name)).unlink(missing_ok=True)


if __name__ == "__main__":
    extension = Extension("hstl_fast._cpu", sources=[], optional=SETTINGS.mode == "auto")
    setup(ext_modules=[] if SETTINGS.mode == "0" else [extension], cmdclass={"build_ext": BuildNative})
