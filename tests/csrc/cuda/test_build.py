"""csrc/build_cuda.py: nvcc, the architectures, and what is left where a build fails, is killed, or meets another."""

import multiprocessing
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.csrc.cuda.build import load

ROOT = Path(__file__).parents[3]
BUILD = SimpleNamespace(**runpy.run_path(str(ROOT / "csrc" / "build_cuda.py")))
VARIABLES = (
    *("HSTL_FAST_CPU", "HSTL_FAST_CUDA", "HSTL_FAST_CUDA_ARCHS", "TORCH_CUDA_ARCH_LIST"),
    *("NVCC", "CUDA_HOME", "CXX", "MAX_JOBS", "HSTL_FAST_SANITIZE"),
)
# An nvcc that compiles nothing: it says its version, writes empty objects, and links what a test wants it to.
NVCC = """\
#!/bin/sh
for last; do :; done
case " $* " in
*" --version "*) echo "Cuda compilation tools, release 12.9, V12.9.86" ;;
*" -shared "*) sleep {linking}; cp {module} "$last" ;;
*) echo "$*" >> {log}; if [ -n {complaint} ]; then echo {complaint}; exit 1; fi; : > "$last" ;;
esac
"""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def settings(**variables: str) -> SimpleNamespace:
    """What these variables ask for."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return BUILD.Settings.from_environment()


@pytest.mark.parametrize(
    ("variables", "code"),
    [
        ({}, "sm_80 sm_90a compute_80"),
        ({"HSTL_FAST_CUDA_ARCHS": "all"}, "sm_80 sm_86 sm_89 sm_90a sm_100 sm_120 compute_120"),
        ({"HSTL_FAST_CUDA_ARCHS": "90a"}, "sm_90a compute_90"),
        ({"HSTL_FAST_CUDA_ARCHS": "9.0, 8.6;sm_120"}, "sm_86 sm_90a sm_120 compute_120"),
        ({"TORCH_CUDA_ARCH_LIST": "7.5 8.0;8.6+PTX"}, "sm_80 sm_86 compute_86"),
        ({"TORCH_CUDA_ARCH_LIST": "Turing;Ampere;Hopper"}, "sm_80 sm_86 sm_90a compute_86"),
        ({"TORCH_CUDA_ARCH_LIST": "7.0 7.5"}, "sm_80 sm_90a compute_80"),
        ({"TORCH_CUDA_ARCH_LIST": "8.6", "HSTL_FAST_CUDA_ARCHS": "89"}, "sm_89 compute_89"),
    ],
    ids=str,
)
def test_architectures(variables: dict[str, str], code: str) -> None:
    architectures = settings(**variables).architectures
    assert BUILD.code_of(architectures) == code.split()
    flags = BUILD.code_flags(architectures)
    assert [re.search(r"code=(\w+)$", flag)[1] for flag in flags] == code.split()
    assert len(flags) == len(architectures) + 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("HSTL_FAST_CUDA", "yes", "HSTL_FAST_CUDA: expected auto, 1 or 0, got 'yes'"),
        ("HSTL_FAST_CUDA_ARCHS", "75", "HSTL_FAST_CUDA_ARCHS: expected compute capabilities from 80 on, such as"),
        ("HSTL_FAST_CUDA_ARCHS", "80 hopper", "HSTL_FAST_CUDA_ARCHS: expected compute capabilities from 80 on"),
        ("NVCC", "nvcc 'x", "NVCC: expected nvcc's command (No closing quotation), got \"nvcc 'x\""),
        ("MAX_JOBS", "0", "MAX_JOBS: expected a number of parallel compilations, at least 1, got '0'"),
    ],
)
def test_wrong_values_are_refused(name: str, value: str, sentence: str) -> None:
    with pytest.raises(BUILD.InvalidVariableError, match="^" + re.escape(sentence)):
        settings(**{name: value})


def test_nvcc_is_the_one_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    for place in (tmp_path / "named" / "my-nvcc", tmp_path / "toolkit" / "bin" / "nvcc", tmp_path / "path" / "nvcc"):
        place.parent.mkdir(parents=True)
        place.touch(0o755)
    named, home = str(tmp_path / "named" / "my-nvcc"), str(tmp_path / "toolkit")
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    assert BUILD.find_nvcc(settings()) == [str(tmp_path / "path" / "nvcc")]
    monkeypatch.setenv("CUDA_HOME", home)
    assert BUILD.find_nvcc(settings()) == [f"{home}/bin/nvcc"]
    assert BUILD.find_nvcc(settings(NVCC=f"{named} -v")) == [named, "-v"]
    with pytest.raises(BUILD.CannotBuildError, match="NVCC: expected a command that can be run, got 'no-such-nvcc'"):
        BUILD.find_nvcc(settings(NVCC="no-such-nvcc"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(BUILD.NoCompilerError, match=r"nvcc was not found in .*/bin \(CUDA_HOME\)"):
        BUILD.find_nvcc(settings())


def test_what_is_no_nvcc_is_told() -> None:
    with pytest.raises(BUILD.CannotBuildError, match="false is no nvcc that works: false "):
        BUILD.version_of(["false"])


# ---- builds by an nvcc that compiles nothing


@pytest.fixture
def nvcc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts such an nvcc into the environment; returns the file with its command lines."""
    monkeypatch.setitem(sys.modules, "pybind11", SimpleNamespace(get_include=lambda: "include"))

    def make(module: Path, complaint: str = "", linking: float = 0) -> Path:
        program, log = tmp_path / "nvcc", tmp_path / "commands"
        words = {"module": module, "complaint": complaint, "log": log, "linking": linking}
        program.write_text(NVCC.format(**{name: shlex.quote(str(word)) for name, word in words.items()}))
        program.chmod(0o755)
        monkeypatch.setenv("NVCC", str(program))
        return log

    return make


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A library that an interpreter can load as hstl_fast._cuda."""
    source, path = tmp_path / "module.c", tmp_path / "module.so"
    source.write_text(
        "#include <Python.h>\n"
        'static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_cuda", 0, -1};\n'
        "PyMODINIT_FUNC PyInit__cuda(void) { return PyModule_Create(&module); }\n"
    )
    include = f"-I{sysconfig.get_path('include')}"
    done = subprocess.run(["cc", "-shared", "-fPIC", include, str(source), "-o", str(path)], check=False)
    if done.returncode:
        pytest.skip("needs a C compiler and Python's headers")
    return path


def run(folder: Path, output: Path) -> None:
    BUILD.build_module(BUILD.Settings.from_environment(), folder, output, "1.0")


def test_every_file_is_compiled_for_every_architecture(
    tmp_path: Path, nvcc: Callable[..., Path], module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "g++")
    log = nvcc(module)
    run(tmp_path / "temp", tmp_path / "out" / "_cuda.so")
    assert (tmp_path / "out" / "_cuda.so").read_bytes() == module.read_bytes()
    lines = log.read_text().splitlines()
    assert {re.search(r"-c csrc/cuda/(\S+)", line)[1] for line in lines} == {
        "bindings.cpp",
        *(f"{name}.cu" for name in BUILD.sources()),
    }
    for line in lines:
        assert "arch=compute_80,code=sm_80" in line
        assert "arch=compute_90a,code=sm_90a" in line
        assert "arch=compute_80,code=compute_80" in line
        assert "-ccbin=g++" in line
    header = (tmp_path / "temp" / "about.h").read_text()
    assert '#define HSTL_NVCC "12.9.86"' in header
    assert '#define HSTL_ARCHITECTURES "sm_80 sm_90a compute_80"' in header
    assert "-cudart=static" in (tmp_path / "temp" / "build.ninja").read_text()


def test_a_second_build_compiles_nothing(tmp_path: Path, nvcc: Callable[..., Path], module: Path) -> None:
    log = nvcc(module)
    run(tmp_path / "temp", tmp_path / "_cuda.so")
    count = len(log.read_text().splitlines())
    run(tmp_path / "temp", tmp_path / "_cuda.so")
    assert len(log.read_text().splitlines()) == count


def test_a_failing_nvcc_is_quoted_and_leaves_the_module_before(
    tmp_path: Path, nvcc: Callable[..., Path], module: Path
) -> None:
    output = tmp_path / "_cuda.so"
    output.write_text("the one before")
    nvcc(module, complaint="tiles.cu(7): error: expected a tile")
    with pytest.raises(BUILD.CannotBuildError, match=r"(?s)the compiler failed:\n.*tiles\.cu\(7\): error"):
        run(tmp_path / "temp", output)
    assert output.read_text() == "the one before"


def test_what_cannot_be_loaded_is_not_called_built(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    text = tmp_path / "text.so"
    text.write_text("not a library")
    nvcc(text)
    with pytest.raises(BUILD.CannotBuildError, match="nvcc built cannot be loaded: ImportError"):
        run(tmp_path / "temp", tmp_path / "_cuda.so")
    assert not (tmp_path / "_cuda.so").exists()


def test_two_builds_at_once_wait_for_one_another(tmp_path: Path, nvcc: Callable[..., Path], module: Path) -> None:
    log = nvcc(module, linking=0.5)
    outputs = [tmp_path / name / "_cuda.so" for name in "ab"]
    context = multiprocessing.get_context("fork")
    builds = [context.Process(target=run, args=(tmp_path / "temp", output)) for output in outputs]
    for each in builds:
        each.start()
    for each in builds:
        each.join()
    assert [each.exitcode for each in builds] == [0, 0]
    assert [output.read_bytes() for output in outputs] == [module.read_bytes()] * 2
    assert len(log.read_text().splitlines()) == len(BUILD.sources()) + 1


def test_a_killed_build_leaves_the_module_before_and_the_next_one_builds(
    tmp_path: Path, nvcc: Callable[..., Path], module: Path
) -> None:
    output = tmp_path / "out" / "_cuda.so"
    output.parent.mkdir()
    output.write_text("the one before")
    log = nvcc(module, linking=60)
    killed = multiprocessing.get_context("fork").Process(target=_run_in_a_group, args=(tmp_path / "temp", output))
    killed.start()
    while not log.exists() or len(log.read_text().splitlines()) <= len(BUILD.sources()):
        time.sleep(0.05)
        assert killed.is_alive()
    os.killpg(killed.pid, 9)
    killed.join()
    assert output.read_text() == "the one before"
    nvcc(module)
    run(tmp_path / "temp", output)
    assert output.read_bytes() == module.read_bytes()
    assert [path.name for path in output.parent.iterdir()] == ["_cuda.so"]


def _run_in_a_group(folder: Path, output: Path) -> None:
    os.setsid()
    run(folder, output)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_module_itself(tmp_path: Path, emulated: ModuleType) -> None:
    """Compiled by nvcc for one architecture; it is loaded without a driver.

    For this one nvcc makes the binary from the PTX that goes beside it; test_resources.py compiles for another.
    """
    wanted = settings(HSTL_FAST_CUDA_ARCHS="80", MAX_JOBS=str(os.cpu_count()))
    try:
        BUILD.find_nvcc(wanted)
    except BUILD.CannotBuildError as error:
        pytest.skip(str(error))
    output = tmp_path / "_cuda.so"
    BUILD.build_module(wanted, tmp_path / "temp", output, "1.0")
    binary = load(output, "built._cuda")  # pybind11 knows the emulated one under the other name
    assert binary.architectures == ("sm_80", "compute_80")
    assert binary.fields == emulated.fields
    assert binary.build_info()["version"] == "1.0"
    assert binary.runtime_version >= 12000
    if shutil.which("readelf"):
        needed = subprocess.check_output(["readelf", "--dynamic", output], text=True)
        assert "libc.so.6" in needed
        assert not re.search(r"NEEDED.*(torch|c10|cuda)", needed)


# ---- setup.py


def run_setup(tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("setuptools", minversion="77")
    folders = ["--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "build")]
    return subprocess.run(
        [sys.executable, "setup.py", "build_ext", *folders],
        capture_output=True,
        text=True,
        env={**os.environ, "HSTL_FAST_CPU": "0", **variables},
        cwd=ROOT,
        timeout=120,
        check=False,
    )


def test_without_nvcc_one_line_says_so(tmp_path: Path) -> None:
    tried = run_setup(tmp_path, HSTL_FAST_CUDA="auto", CUDA_HOME=str(tmp_path))
    assert tried.returncode == 0, tried.stderr
    (line,) = [line for line in tried.stderr.splitlines() if "CUDA" in line]
    assert line.startswith("hstl_fast has NO native CUDA code: nvcc was not found in ")
    assert "WARNING" not in tried.stderr
    asked = run_setup(tmp_path, HSTL_FAST_CUDA="1", CUDA_HOME=str(tmp_path))
    assert asked.returncode
    assert "HSTL_FAST_CUDA=1, but nvcc was not found" in asked.stderr
    assert not run_setup(tmp_path, HSTL_FAST_CUDA="0", CUDA_HOME=str(tmp_path)).stderr


def test_a_failing_cuda_build_does_not_cost_the_cpu_module(tmp_path: Path, nvcc: Callable[..., Path]) -> None:
    """The compiler of the CPU's module is missing as well, so that both warn."""
    nvcc(tmp_path, complaint="error: expected a tile")
    both = run_setup(tmp_path, HSTL_FAST_CPU="auto", CXX="g++ --no-such-option")
    assert both.returncode == 0, both.stderr
    assert both.stderr.index("NO native CPU code") < both.stderr.index("WARNING: hstl_fast has NO native CUDA code")
    assert "error: expected a tile" in both.stderr
    assert "error: expected a tile" in run_setup(tmp_path, HSTL_FAST_CUDA="1").stderr
