"""Fixtures of the tests of the cuda backend: its kernels on a GPU, or emulated where there is none."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hstl_fast import use_backend
from hstl_fast.backends import tables
from hstl_fast.backends.cuda import arme, library
from hstl_fast.ops import _dispatch
from tests.csrc.cuda import build

pytest.register_assert_rewrite("tests.backends.triton.helpers")
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out FTA, which has no kernels here, where a test is for every operator."""
    items[:] = [item for item in items if not _is_for_fta(item) or HERE not in item.path.parents]


def _is_for_fta(item: pytest.Item) -> bool:
    case = getattr(item, "callspec", None)
    return case is not None and getattr(case.params.get("operator"), "name", "") == "fta"


@pytest.fixture(scope="session")
def emulated() -> ModuleType:
    """`hstl_fast._cuda`, compiled for the CPU."""
    try:
        build.compiler()
    except Exception as error:
        pytest.skip(f"the emulator cannot be built: {error}")
    return build.cuda_module()


@pytest.fixture
def installed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The binary that computes in the test: that of the GPU, or the emulated one in its place."""
    if torch.cuda.is_available():
        reason = _dispatch.why_not("arme", "cuda", "cuda", torch.float32)
        if reason is not None:
            pytest.skip(reason)
        return library.require_cuda()
    binary: ModuleType = request.getfixturevalue("emulated")
    monkeypatch.setattr(library, "_cuda", binary)
    monkeypatch.setattr(library, "_cuda_error", "")
    monkeypatch.setattr(library, "_device_type", "cpu")
    return binary


@pytest.fixture
def kernels(installed: ModuleType, poisoned: None) -> str:
    """The name of the backend, with uninitialised memory poisoned."""
    return "cuda"


@pytest.fixture
def exact_kernels(kernels: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the backend in force, with float32 that is multiplied as float32 and not as TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    with use_backend(kernels):
        yield


@pytest.fixture(params=[1, 2, 1000], ids="stretch of {}".format)
def stretch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """The frames of a block's stretch of time."""
    frames: int = request.param
    monkeypatch.setattr(arme, "stretch_of", lambda *_: frames)
    return frames


@pytest.fixture
def no_tables() -> Iterator[None]:
    """No tables are cached, neither before the test nor after it."""
    tables.clear()
    yield
    tables.clear()
    tables._captured.clear()
