"""Fixtures that every test may use."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import hstl_fast
from hstl_fast.backends.cpu import library
from hstl_fast.backends.triton import available
from hstl_fast.ops import _dispatch
from tests.helpers.postgres import postgres_server, postgres_url  # noqa: F401 (fixtures)

# Without a GPU, tests/backends/test_triton.py runs these in a process whose Triton interprets.
collect_ignore = [] if torch.cuda.is_available() or available.is_interpreted() else ["backends/triton"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take long")
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="cuda: run only the tests that need a device, on the GPU; cpu (default): run all tests on the CPU",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Keep what one file's tests share in one of pytest-xdist's processes, unless the command line says otherwise."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "worksteal"


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda needs a GPU that torch can use; there is none")
    if os.environ.pop("PYTEST_XDIST_WORKER", None):  # so that tests may start pytest themselves
        # Tests beside one another get one thread each, and so do the processes that they start.
        torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))
    _keep_byte_code()
    _give_compiled_kernels_a_place(config)
    config.addinivalue_line("markers", "slow: takes long; runs only with --slow")


def _keep_byte_code() -> None:
    """Let the first of all processes compile a module for the others, even where the environment says otherwise.

    Every process of tests imports all files of tests, and tests start a hundred processes that import the package.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False


def _give_compiled_kernels_a_place(config: pytest.Config) -> None:
    """Let every process of tests keep torch's compiled kernels in a folder of its own.

    In one folder for all, a process may load a kernel while another writes it, or one for another instruction set.
    """
    folder = tempfile.mkdtemp(prefix="hstl_fast-inductor-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


def pytest_collection_finish() -> None:
    """Leave the thousands of tests, which stay until the process ends, out of every garbage collection from here on."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if _is_emulated(item, config):
            item.add_marker("slow")
        if "slow" in item.keywords and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs with --slow"))
    if config.getoption("--device") == "cuda":
        left_out = [item for item in items if not _needs_a_device(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def _is_emulated(item: pytest.Item, config: pytest.Config) -> bool:
    """Whether a test runs CUDA kernels on the CPU: compiling them takes half a minute."""
    fixtures = set(getattr(item, "fixturenames", ()))
    on_gpu = config.getoption("--device") == "cuda"
    return bool(fixtures & {"emulated", "emulator_kernels"}) or ("installed" in fixtures and not on_gpu)


def _needs_a_device(item: pytest.Item) -> bool:
    folder = item.path.relative_to(Path(__file__).parent).parts[:2]
    return "device" in getattr(item, "fixturenames", ()) or folder in (("backends", "triton"), ("backends", "cuda"))


def chosen_device(config: pytest.Config) -> torch.device:
    """The device that the tests run on, for those that are made for it."""
    return torch.device(config.getoption("--device"))


@pytest.fixture
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of the option `--device`."""
    return chosen_device(request.config)


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fill `torch.empty` with NaN, so that an element which a kernel does not write cannot look right."""
    monkeypatch.setenv("HSTL_FAST_MEMORY_CACHE", "0")  # whose blocks torch does not fill
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def skip_without_binary(backend: str) -> None:
    """Skip a test of the native backend where it was not built; a binary that is there must load."""
    built = any(Path(hstl_fast.__file__).parent.glob("_cpu*.so"))
    if backend == "cpu" and not built:
        pytest.skip(library.cpu_error())


@pytest.fixture(params=["reference", "cpu"])
def backend(request: pytest.FixtureRequest, poisoned: None) -> Iterator[str]:
    """The name of a backend that computes on the CPU, in force for this thread, uninitialised memory poisoned."""
    skip_without_binary(request.param)
    with hstl_fast.use_backend(request.param):
        yield request.param


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def environment() -> dict[str, str]:
    """The environment for a child process that finds the same packages."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), os.getenv("PYTHONPATH", "")])}


@pytest.fixture
def native() -> str:
    """The native CPU backend; skipped with its reason where there is no binary."""
    reason = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
    if reason is not None:
        pytest.skip(reason)
    return "cpu"


@pytest.fixture
def process_group() -> Iterator[None]:
    """A process group of torch.distributed that has this process alone."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    gc.collect()  # wrapped models in cycles would keep gloo's threads until the interpreter ends, which may abort it
    torch.distributed.destroy_process_group()
