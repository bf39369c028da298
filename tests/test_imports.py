"""Who may import whom, read off the source text: the layers stay layers, and the native code stays free of torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hstl_fast"
CSRC = ROOT / "csrc"

KERNELS = "hstl_fast.backends.triton"
LAYERS = ("hstl_fast.ops", "hstl_fast.functional", "hstl_fast.nn", "hstl_fast.models")
BASE_INSTALL = {"torch", "numpy"}


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def native_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, only_at_import_time: bool = False) -> Iterator[str]:
    """Every module a file names in an import: `from a import b` gives both `a` and `a.b`."""
    tree = ast.parse(source)
    nodes = tree.body if only_at_import_time else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    return set(imports(path.read_text(encoding="utf-8")))


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def test_reads_every_form_of_import() -> None:
    source = "import a.b, c\nfrom d import e\ndef f() -> None:\n    from g.h import i\n"
    assert set(imports(source)) == {"a.b", "c", "d", "d.e", "g.h", "g.h.i"}
    assert set(imports(source, only_at_import_time=True)) == {"a.b", "c", "d", "d.e"}


def test_reference_needs_torch_only() -> None:
    roots = {module.split(".")[0] for module in imports_of(PACKAGE / "reference.py")}
    assert roots - sys.stdlib_module_names == {"torch"}


@pytest.mark.parametrize("layer", range(len(LAYERS)))
def test_layers_import_downwards_only(layer: int) -> None:
    above = LAYERS[layer + 1 :]
    for path in python_files():
        if within(module_of(path), LAYERS[layer]):
            upward = {module for module in imports_of(path) if any(within(module, name) for name in above)}
            assert not upward, f"{path} imports {sorted(upward)}"


@pytest.mark.parametrize("package", ["silhouettes", "evaluation"])
def test_silhouettes_and_evaluation_do_without_operators(package: str) -> None:
    files = sorted((PACKAGE / package).rglob("*.py"))
    assert files
    for path in files:
        forbidden = {module for module in imports_of(path) if within(module, "hstl_fast.ops")}
        assert not forbidden, f"{path} imports {sorted(forbidden)}"


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("hstl_fast.cli", ("hstl_fast.__main__",)),
        ("hstl_fast.training", ("hstl_fast.cli",)),
        ("hstl_fast.demo", ("hstl_fast.cli",)),
    ],
)
def test_nothing_below_imports_programs(package: str, allowed: tuple[str, ...]) -> None:
    for path in python_files():
        if not any(within(module_of(path), name) for name in (package, *allowed)):
            upward = {module for module in imports_of(path) if within(module, package)}
            assert not upward, f"{path} imports {sorted(upward)}"


def test_base_install_is_enough_outside_the_command_line() -> None:
    for path in python_files():
        if within(module_of(path), "hstl_fast.cli") or within(module_of(path), KERNELS):
            continue
        source = path.read_text(encoding="utf-8")
        roots = {module.split(".")[0] for module in imports(source, only_at_import_time=True)}
        extra = roots - sys.stdlib_module_names - BASE_INSTALL - {"hstl_fast"}
        assert not extra, f"{path} imports {sorted(extra)} when it is imported"


def test_kernels_are_imported_by_operators_and_only_when_used() -> None:
    for path in python_files():
        source = path.read_text(encoding="utf-8")
        if within(module_of(path), KERNELS):
            roots = {module.split(".")[0] for module in imports(source)}
            assert roots - sys.stdlib_module_names <= BASE_INSTALL | {"hstl_fast", "triton"}
        elif within(module_of(path), "hstl_fast.ops"):
            assert not any(within(module, KERNELS) for module in imports(source, only_at_import_time=True)), path
        else:
            assert not any(within(module, KERNELS) for module in imports(source)), path


def test_importing_the_package_leaves_the_compiler_alone() -> None:
    code = "import sys, hstl_fast; sys.exit('torch._dynamo' in sys.modules or 'triton' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^">]+)[">]', path.read_text(encoding="utf-8"), re.MULTILINE)


def test_native_code_has_no_torch() -> None:
    assert native_files()
    for path in native_files():
        headers = [name for name in includes(path) if name.split("/")[0] in {"torch", "ATen", "c10", "caffe2"}]
        assert not headers, f"{path} includes {headers}"


def test_only_bindings_see_python() -> None:
    binding = re.compile(r"pybind11|Python\.h|py::")
    assert any(binding.search(path.read_text(encoding="utf-8")) for path in CSRC.rglob("bindings.cpp"))
    for path in native_files():
        if path.name != "bindings.cpp":
            assert not binding.search(path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize(("folder", "other"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_cpu_and_cuda_do_not_include_each_other(folder: str, other: str) -> None:
    for path in native_files():
        if (CSRC / folder) in path.parents:
            foreign = [name for name in includes(path) if other in Path(name).parts]
            foreign += [name for name in includes(path) if (CSRC / other) in (path.parent / name).resolve().parents]
            assert not foreign, f"{path} includes {foreign}"


def test_openmp_only_in_parallel_h() -> None:
    openmp = re.compile(r"#\s*pragma\s+omp|_Pragma\(\s*\"omp|\bomp_\w+\s*\(|<omp\.h>")
    users = [
        path.relative_to(CSRC).as_posix() for path in native_files() if openmp.search(path.read_text(encoding="utf-8"))
    ]
    assert users == ["cpu/parallel.h"]
