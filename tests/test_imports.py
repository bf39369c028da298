"""Who may import whom, read off the source text: the layers stay layers, and the native code stays free of torch."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hstl_fast"
CSRC = ROOT / "csrc"

# Who may import whom: a module imports modules of earlier lines, and of its own package. A package's name stands for
# all that is in it, unless a longer name stands elsewhere.
ORDER = (
    ("_starting",),
    ("reference", "names", "progress", "version", "_caches", "_torch_private", "files", "distributed", "signals"),
    ("environment", "_untouched", "layout", "models.config"),
    ("options", "silhouettes"),
    ("backends", "data"),
    ("evaluation",),
    ("ops",),
    ("functional", "losses"),
    ("nn",),
    ("models",),
    ("drop_in", "checkpoints", "export", "info"),
    ("network",),
    ("embedding",),
    ("hierarchy", "training", "recognition"),
    ("demo",),
    ("cli",),
    ("__main__",),
)
BASE_INSTALL = {"torch", "numpy"}
# The modules that import Triton; the others of its package can be asked whether it can run.
KERNELS = "hstl_fast.backends.triton"
ASKABLE = (KERNELS, f"{KERNELS}.available")
NEEDS_EXTRAS = ("hstl_fast.cli", "hstl_fast.recognition.storage", KERNELS)


def python_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def native_files() -> list[Path]:
    return sorted(path for path in CSRC.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"})


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in python_files()}


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


@cache
def imports_of(path: Path) -> set[str]:
    return set(imports(path.read_text(encoding="utf-8")))


def own_imports_of(path: Path) -> set[str]:
    """The modules of this package that a file imports, as exactly as it names them."""
    named = {module for module in imports_of(path) if module in MODULES and module != "hstl_fast"}
    return {module for module in named if not any(within(other, module) and other != module for other in named)}


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def place_of(module: str) -> tuple[int, str]:
    """The line of a module in `ORDER`, and the name that stands for it there: the longest."""
    places = [(i, name) for i, line in enumerate(ORDER) for name in line if within(module, f"hstl_fast.{name}")]
    assert places, f"{module} has no place in ORDER"
    return max(places, key=lambda place: len(place[1]))


def test_reads_every_form_of_import() -> None:
    source = "import a.b, c\nfrom d import e\ndef f() -> None:\n    from g.h import i\n"
    assert set(imports(source)) == {"a.b", "c", "d", "d.e", "g.h", "g.h.i"}
    assert set(imports(source, only_at_import_time=True)) == {"a.b", "c", "d", "d.e"}


@pytest.mark.parametrize("module", [module for module in MODULES if module != "hstl_fast"])
def test_modules_import_what_stands_before_them(module: str) -> None:
    line, name = place_of(module)
    for imported in own_imports_of(MODULES[module]):
        other_line, other = place_of(imported)
        assert other_line < line or other == name, f"{module} imports {imported}"


def test_no_modules_import_each_other() -> None:
    graph = {module: own_imports_of(path) - {module} for module, path in MODULES.items() if module != "hstl_fast"}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(("module", "roots"), [("reference", {"torch"}), ("models.config", set()), ("names", set())])
def test_modules_that_know_little(module: str, roots: set[str]) -> None:
    found = {name.split(".")[0] for name in imports_of(MODULES[f"hstl_fast.{module}"])}
    assert found - sys.stdlib_module_names - {"hstl_fast"} == roots


def test_base_install_is_enough_outside_the_command_line() -> None:
    for module, path in MODULES.items():
        if any(within(module, name) for name in NEEDS_EXTRAS):
            continue
        source = path.read_text(encoding="utf-8")
        roots = {name.split(".")[0] for name in imports(source, only_at_import_time=True)}
        extra = roots - sys.stdlib_module_names - BASE_INSTALL - {"hstl_fast"}
        assert not extra, f"{path} imports {sorted(extra)} when it is imported"


def test_only_the_triton_backend_imports_kernels() -> None:
    kernels = {module for module in MODULES if within(module, KERNELS)} - set(ASKABLE)
    assert len(kernels) > 5
    for module, path in MODULES.items():
        if within(module, KERNELS):
            roots = {name.split(".")[0] for name in imports_of(path)}
            assert roots - sys.stdlib_module_names <= BASE_INSTALL | {"hstl_fast", "triton"}
        else:
            assert not kernels & imports_of(path), path
            assert "triton" not in {name.split(".")[0] for name in imports_of(path)} or module == PRIVATE, path


PRIVATE = "hstl_fast._torch_private"
PRIVATE_NAME = re.compile(
    r"(?<![.\w])(?:torch|triton)(?:\.\w+)*\._[A-Za-z]\w*|_dynamo_marked_constant|_backward_cls\b"
    r"|\._(?:modules|parameters|version|forward_hooks|forward_pre_hooks|backward_hooks|backward_pre_hooks)\b"
)
PUBLIC_ENOUGH = re.compile(r"\.__\w+__")


def test_private_names_of_torch_and_triton_stand_in_one_place() -> None:
    found = {
        module: names
        for module, path in MODULES.items()
        if (names := set(PRIVATE_NAME.findall(PUBLIC_ENOUGH.sub("", path.read_text(encoding="utf-8")))))
    }
    assert set(found) == {PRIVATE}, found
    assert found[PRIVATE] == PRIVATE_NAMES


PRIVATE_NAMES = {
    "_backward_cls",
    "_dynamo_marked_constant",
    "._modules",
    "._parameters",
    "._version",
    "torch._C",
    "torch._C._functorch",
    "torch._dynamo",
    "torch._subclasses",
    "torch.utils._device",
    "torch.utils._pytree",
}


def test_importing_the_package_leaves_the_compiler_and_the_counter_of_flops_alone() -> None:
    code = (
        "import sys, hstl_fast; assert not {'torch._dynamo', 'triton', 'torch.utils.flop_counter'} & set(sys.modules)"
    )
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
        if path.name not in {"binding.h", "bindings.cpp", "program.h"}:
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
