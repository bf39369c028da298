"""The package as it is installed: its binaries, its archives, and what its metadata promises."""

import json
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

import hstl_fast
from hstl_fast.backends.cpu import library

if sys.version_info >= (3, 11):
    import tomllib

ROOT = Path(__file__).parents[1]
BINARIES = sorted((ROOT / "hstl_fast").glob("_cpu*.so"))
CUDA_BINARIES = sorted((ROOT / "hstl_fast").glob("_cuda*.so"))

needs_binary = pytest.mark.skipif(not BINARIES, reason="no native binary was built")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads ELF files and /proc")

USE = """
import torch
from hstl_fast import functional
x, w, p = torch.rand(1, 2, 6, 8, 5), torch.rand(2, 4, 2, 3, 3, 3), torch.full((2,), 6.5)
y = functional.arme(x, w, [5, 3]{options})
functional.astp(y, None, p, [5, 3]{options})
print("ran")
"""


def python(code: str, **environment: str) -> str:
    """What `code` prints in a fresh interpreter."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=environment.get("PYTHONPATH", ROOT),
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_binary
@needs_linux
@pytest.mark.parametrize("binary", [*BINARIES, *CUDA_BINARIES], ids=lambda path: path.name)
def test_binaries_know_nothing_of_torch(binary: Path) -> None:
    if not shutil.which("nm") or not shutil.which("readelf"):
        pytest.skip("needs binutils")
    symbols = subprocess.check_output(["nm", "--dynamic", "--demangle", binary], text=True)
    assert "PyInit_" in symbols, "nm reads the binary"
    assert not re.findall(r"\b(?:at|c10|torch|caffe2)::.*", symbols)
    needed = re.findall(r"NEEDED.*\[(.*)\]", subprocess.check_output(["readelf", "--dynamic", binary], text=True))
    assert "libc.so.6" in needed
    assert not [library for library in needed if re.search(r"torch|c10|cuda", library)]


@needs_binary
@needs_linux
def test_one_openmp_runtime_serves_torch_and_us() -> None:
    code = USE.format(options=", backend='cpu'") + "print(open('/proc/self/maps').read())"
    mapped = set(re.findall(r"\S*/lib(?:gomp|iomp5|omp)[-\w]*\.so\S*", python(code)))
    assert len(mapped) == 1, mapped


def test_works_without_binaries(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    shutil.copytree(ROOT / "hstl_fast", tmp_path / "hstl_fast", ignore=ignored)
    # An editable installation would find the binary in the checkout.
    hide = "import sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
    code = (
        hide
        + USE.format(options="")
        + (
            "import hstl_fast, hstl_fast.info as i; print(hstl_fast.__file__);"
            "print([b['reason'] for b in i.collect()['backends'] if b['backend'] == 'cpu'])"
        )
    )
    printed = python(code, PYTHONPATH=str(tmp_path))
    assert "ran" in printed
    assert str(tmp_path) in printed
    assert "was not built" in printed


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel); the wheel is built from the sdist, both in build isolation."""
    source = tmp_path_factory.mktemp("source") / "checkout"
    out = tmp_path_factory.mktemp("dist")
    probe = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(out / "probe"), "pybind11"]
    if subprocess.run(probe, capture_output=True, timeout=120, check=False).returncode:
        pytest.skip("build isolation needs a package index, and none can be reached")
    outside = shutil.ignore_patterns(".*", "*.so", "*.egg-info", "__pycache__", "build", "dist", "shared", "venv")
    shutil.copytree(ROOT, source, ignore=outside)
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(source)]
    environment = {**os.environ, "HSTL_FAST_CPU": "1" if BINARIES else "0", "HSTL_FAST_CUDA": "0"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_sdist_holds_what_a_build_needs(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[0]) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    sources = (path for path in (ROOT / "csrc").rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh", ".py"})
    native = {path.relative_to(ROOT).as_posix() for path in sources}
    assert {"csrc/build.py", "csrc/build_cuda.py", "csrc/cuda/arme_forward.cu", "csrc/cuda/device.cuh"} <= native
    others = {
        "setup.py",
        "pyproject.toml",
        "LICENSE",
        "README.md",
        "hstl_fast/py.typed",
        "hstl_fast/weights/walkers.pt",
    }
    assert native | others <= names
    assert not [name for name in names if name.endswith((".so", ".o", ".pyc"))]


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[1]) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"hstl_fast", f"hstl_fast-{metadata_version()}.dist-info"}
    assert {"hstl_fast/py.typed", "hstl_fast/backends/measured.json", "hstl_fast/weights/walkers.pt"} <= set(names)
    page = (ROOT / "hstl_fast" / "recognition" / "server" / "static").iterdir()
    assert {path.relative_to(ROOT).as_posix() for path in page} <= set(names)
    assert [name for name in names if name.endswith(sysconfig.get_config_var("EXT_SUFFIX"))] == (
        [f"hstl_fast/_cpu{sysconfig.get_config_var('EXT_SUFFIX')}"] if BINARIES else []
    )


@pytest.mark.slow
def test_wheel_installs_in_a_clean_environment(archives: tuple[Path, Path], tmp_path: Path) -> None:
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")])
    clean = tmp_path / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(clean), "install", "--quiet", "--no-deps", str(archives[1])]
    subprocess.check_call(install)
    site = subprocess.check_output([clean, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    # The dependencies come from this environment: a second torch would be a download of hundreds of megabytes.
    Path(site.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import hstl_fast; print(hstl_fast.__file__, hstl_fast.__version__)"
    printed = subprocess.check_output([clean, "-c", code], text=True, cwd=tmp_path, env=environment)
    assert printed.split() == [str(Path(site.strip(), "hstl_fast", "__init__.py")), metadata_version()]
    command = [clean.with_name("hstl-fast"), "info", "--check", "--json"]
    facts = json.loads(subprocess.check_output(command, text=True, cwd=tmp_path, env=environment))
    assert {row["backend"] for row in facts["backends"] if row["automatic"]} == {"cpu" if BINARIES else "reference"}


# ---- the build of the native module


def load_build(root: Path = ROOT) -> SimpleNamespace:
    """csrc/build.py of a source tree."""
    return SimpleNamespace(**runpy.run_path(str(root / "csrc" / "build.py")))


BUILD = load_build()
# A compiler for whatever processor `machine` names: it compiles nothing, but says and links what a test wants it to.
COMPILER = """\
#!/bin/sh
for last; do :; done
case " $* " in
*" -dumpmachine "*) echo {machine}-unknown-linux-gnu ;;
*" -shared "*) cp {module} "$last" ;;
*" -c "*) if [ -n {complaint} ]; then echo {complaint}; exit 1; fi; : > "$last" ;;
*) : > "$last" ;;
esac
"""


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a compiler of the kind above into the environment."""
    if sys.platform == "win32" or not shutil.which("ninja"):
        pytest.skip("needs ninja")
    monkeypatch.setitem(sys.modules, "pybind11", SimpleNamespace(get_include=lambda: "include"))
    monkeypatch.setitem(sys.modules, "ninja", None)
    for name in ("HSTL_FAST_CPU", "MAX_JOBS", "HSTL_FAST_SANITIZE"):
        monkeypatch.delenv(name, raising=False)

    def make(module: Path, complaint: str = "", machine: str = platform.machine()) -> None:
        program = tmp_path / "fake-c++"
        words = {"module": str(module), "complaint": complaint, "machine": machine}
        text = COMPILER.format(**{name: shlex.quote(word) for name, word in words.items()})
        program.write_text(text, encoding="utf-8")
        program.chmod(0o755)
        monkeypatch.setenv("CXX", str(program))

    return make


def build_module(root: Path, folder: Path, build: SimpleNamespace = BUILD) -> Path:
    output = root / "hstl_fast" / "_cpu.so"
    build.build_module(build.Settings.from_environment(), folder, output, "1.0")
    return output


@pytest.fixture
def no_module(tmp_path: Path) -> Path:
    """A file that no interpreter can load."""
    path = tmp_path / "text.so"
    path.write_text("not a library")
    return path


@needs_binary
@pytest.mark.parametrize("name", ["plain", "a|b", "a b", "a$b", "a:b", "a'b"])
def test_builds_in_any_path(name: str, tmp_path: Path, compiler: Any) -> None:
    shutil.copytree(ROOT / "csrc", tmp_path / name / "csrc", ignore=shutil.ignore_patterns("__pycache__"))
    compiler(BINARIES[0])
    output = build_module(tmp_path / name, tmp_path / name / "build" / "temp", load_build(tmp_path / name))
    assert output.read_bytes() == BINARIES[0].read_bytes()


def test_what_cannot_be_loaded_is_not_called_built(tmp_path: Path, compiler: Any, no_module: Path) -> None:
    compiler(no_module)
    with pytest.raises(BUILD.CannotBuildError, match=r"fake-c\+\+ built cannot be loaded: ImportError: .*CXX must be"):
        build_module(tmp_path, tmp_path / "temp")
    assert not (tmp_path / "hstl_fast" / "_cpu.so").exists()


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_a_c_compiler_is_told_from_a_cpp_compiler(tmp_path: Path, compiler: Any) -> None:
    """gcc compiles C++, but what it links lacks the C++ library."""
    source, module = tmp_path / "module.cpp", tmp_path / "module.so"
    source.write_text('extern "C" void* PyInit__cpu() { throw 1; }\n')
    subprocess.check_call(["gcc", "-shared", "-fPIC", str(source), "-o", str(module)])
    compiler(module)
    with pytest.raises(
        BUILD.CannotBuildError, match=r"cannot be loaded: .*undefined symbol.*\(CXX must be a C\+\+ compiler"
    ):
        build_module(tmp_path, tmp_path / "temp")


def test_what_is_built_for_other_processors_is_not_loaded(tmp_path: Path, compiler: Any, no_module: Path) -> None:
    compiler(no_module, machine="riscv64")
    assert build_module(tmp_path, tmp_path / "temp").read_text() == "not a library"


def test_what_is_built_with_sanitizers_is_not_loaded(
    tmp_path: Path, compiler: Any, no_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs their runtimes first in the process."""
    compiler(no_module)
    monkeypatch.setenv("HSTL_FAST_SANITIZE", "address,undefined")
    assert build_module(tmp_path, tmp_path / "temp").read_text() == "not a library"
    assert "-fsanitize=address,undefined" in (tmp_path / "temp" / "build.ninja").read_text()


def test_a_failing_compiler_is_quoted(tmp_path: Path, compiler: Any, no_module: Path) -> None:
    compiler(no_module, complaint="arme.cpp:7: error: expected a tile")
    with pytest.raises(
        BUILD.CannotBuildError, match=r"(?s)the compiler failed:\n.*arme\.cpp:7: error: expected a tile"
    ):
        build_module(tmp_path, tmp_path / "temp")


def test_a_failing_ninja_is_quoted(tmp_path: Path) -> None:
    if not shutil.which("ninja"):
        pytest.skip("needs ninja")
    (tmp_path / "build.ninja").write_text("build nothing\n")
    with pytest.raises(BUILD.CannotBuildError, match=r"(?s)failed:\n.*ninja: error: build\.ninja:1"):
        BUILD.run_ninja(tmp_path, 1)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HSTL_FAST_CPU", "yes", "HSTL_FAST_CPU: expected auto, 1 or 0, got 'yes'"),
        ("MAX_JOBS", "many", "MAX_JOBS: expected a number of parallel compilations, at least 1, got 'many'"),
        ("MAX_JOBS", "0", "MAX_JOBS: expected a number of parallel compilations, at least 1, got '0'"),
        ("MAX_JOBS", "-2", "MAX_JOBS: expected a number of parallel compilations, at least 1, got '-2'"),
        (
            "HSTL_FAST_SANITIZE",
            "address memory",
            "HSTL_FAST_SANITIZE: expected sanitizers such as address,undefined, got",
        ),
        ("CXX", "g++ 'x", 'CXX: expected the command of a C++ compiler (No closing quotation), got "g++ \'x"'),
    ],
)
def test_variables_of_the_build_are_checked_alike(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BUILD.InvalidVariableError, match="^" + re.escape(sentence)):
        BUILD.Settings.from_environment()


@pytest.mark.parametrize("name", ["HSTL_FAST_CPU", "MAX_JOBS", "HSTL_FAST_SANITIZE", "CXX"])
def test_an_empty_variable_counts_as_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("HSTL_FAST_CPU", "MAX_JOBS", "HSTL_FAST_SANITIZE", "CXX"):
        monkeypatch.delenv(each, raising=False)
    unset = BUILD.Settings.from_environment()
    monkeypatch.setenv(name, "")
    assert BUILD.Settings.from_environment() == unset == ("auto", [], None, "")


def run_setup(tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools", minversion="77")
    folders = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp")]
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", *folders],
        capture_output=True,
        text=True,
        env={**os.environ, "HSTL_FAST_CUDA": "0", **environment},
        cwd=ROOT,
        timeout=120,
        check=False,
    )


def test_setup_fails_or_warns_as_it_is_asked_to(tmp_path: Path) -> None:
    missing = "CXX: expected a command that can be run, got 'no-such-compiler'"
    asked = run_setup(tmp_path, CXX="no-such-compiler", HSTL_FAST_CPU="1")
    assert asked.returncode
    assert f"HSTL_FAST_CPU=1, but {missing}" in asked.stderr
    tried = run_setup(tmp_path, CXX="no-such-compiler", HSTL_FAST_CPU="auto")
    assert tried.returncode == 0, tried.stderr
    assert f"WARNING: hstl_fast has NO native CPU code: {missing}" in tried.stderr
    malformed = run_setup(tmp_path, MAX_JOBS="many", HSTL_FAST_CPU="auto")
    assert malformed.returncode
    assert malformed.stderr.strip().splitlines()[-1].startswith("MAX_JOBS: expected a number")


def test_one_list_of_operator_files() -> None:
    """What is compiled is what fills the tables of functions."""
    header = (ROOT / "csrc" / "cpu" / "operators.h").read_text(encoding="utf-8")
    listed = re.search(r"#define HSTL_OPERATOR_FILES\(X\)(.*?[^\\])\n", header, re.DOTALL)[1]
    assert sorted(re.findall(r"X\((\w+)\)", listed)) == BUILD.operators()


def project() -> dict:
    if sys.version_info < (3, 11):
        pytest.skip("reads TOML with Python 3.11 or newer")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> list[Requirement]:
    """Those of the base install and of every extra."""
    extras = project()["optional-dependencies"].values()
    return [Requirement(text) for text in [*project()["dependencies"], *(text for extra in extras for text in extra)]]


def metadata_version() -> str:
    return re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


def test_version_is_the_installed_one() -> None:
    if hstl_fast.__version__ == "0+unknown":
        pytest.skip("runs from a checkout that was not installed")
    assert hstl_fast.__version__ == version("hstl_fast") == metadata_version()
    if library.cpu() is not None:
        assert library.cpu().build_info()["version"] == metadata_version()


def test_base_install_is_torch_and_numpy_without_upper_bounds() -> None:
    assert [Requirement(text).name for text in project()["dependencies"]] == ["torch", "numpy"]
    for requirement in requirements():
        assert {specifier.operator for specifier in requirement.specifier} <= {">="}, requirement


def test_tested_versions_lie_within_the_stated_ranges() -> None:
    lines = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in requirements():
        if requirement.name != project()["name"]:
            assert requirement.specifier.contains(pins[requirement.name]), requirement


def test_readme_states_the_same_floors() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    names = {"python": "Python", "torch": "PyTorch", "numpy": "NumPy"}
    floors = [f"python{project()['requires-python']}", *project()["dependencies"]]
    for name, floor in (text.split(">=") for text in floors):
        assert f"{names[name]} {floor}" in readme
