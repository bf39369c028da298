"""The GPUs that the CUDA binary has code for, and what is said about the others; with stand-ins for all of them."""

import itertools
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hstl_fast import functional, info, use_backend
from hstl_fast.backends import cuda
from hstl_fast.backends.cuda import calls, library
from hstl_fast.ops import _dispatch
from tests.csrc.cuda.build import ROOT

BUILT = ("sm_80", "sm_90a", "compute_80")
NEWEST = 13000
GPU = torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("capability", "code"),
    [
        ((8, 0), "sm_80"),
        ((8, 6), "sm_80"),
        ((8, 9), "sm_80"),
        ((9, 0), "sm_90a"),
        ((10, 0), "compute_80"),
        ((12, 0), "compute_80"),
        ((7, 5), None),
    ],
)
def test_the_newest_code_that_a_gpu_runs(capability: tuple[int, int], code: str | None) -> None:
    for order in itertools.permutations(BUILT):
        assert library.device_code(order, capability) == code


def test_machine_code_of_a_later_minor_version_does_not_run() -> None:
    assert library.device_code(("sm_86", "compute_120"), (8, 0)) is None
    assert library.device_code(("sm_80", "sm_86", "compute_80"), (8, 9)) == "sm_86"
    assert library.device_code(("sm_90a", "compute_90"), (10, 0)) == "compute_90"


def test_an_unknown_architecture_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown architecture 'gfx942'"):
        library.device_code(("gfx942",), (9, 0))


@pytest.mark.parametrize(
    ("built", "capability", "driver", "reason"),
    [
        (BUILT, (9, 0), 13000, None),
        (BUILT, (9, 0), 13020, None),
        (("sm_90a",), (9, 0), 12080, "needs a driver for CUDA 13.0 or newer to run sm_90a, found one for 12.8"),
        (BUILT, (12, 0), 12080, "needs a driver for CUDA 13.0 or newer to run compute_80, found one for 12.8"),
        (
            ("sm_90a", "compute_90"),
            (8, 6),
            13000,
            "was built for sm_90a, compute_90; this GPU is sm_86; install again with HSTL_FAST_CUDA_ARCHS=86",
        ),
    ],
)
def test_gpus_without_code_are_told_why(
    built: tuple[str, ...], capability: tuple[int, int], driver: int, reason: str | None
) -> None:
    found = library.why_no_code(built, capability, driver, NEWEST)
    assert found == (None if reason is None else f"hstl_fast._cuda {reason}")


def test_a_driver_of_the_same_major_version_runs_machine_code_but_compiles_no_newer_ptx() -> None:
    assert library.why_no_code(BUILT, (8, 0), 13000, 13020) is None
    assert library.why_no_code(BUILT, (10, 0), 13000, 13020) == (
        "hstl_fast._cuda needs a driver for CUDA 13.2 or newer to run compute_80, found one for 13.0"
    )


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets torch see GPUs of these capabilities, of which the first is the current one, and the binary be loaded."""

    def see(*capabilities: tuple[int, int], built: tuple[str, ...] = BUILT, driver: int = NEWEST) -> None:
        binary = SimpleNamespace(
            architectures=built,
            runtime_version=NEWEST,
            driver_version=lambda: driver,
            build_info=lambda: {"nvcc": "13.0.88"},
        )

        def capability(device: torch.device | None = None) -> tuple[int, int]:
            return capabilities[0 if device is None or device.index is None else device.index]

        library._why_not_this_gpu.cache_clear()
        monkeypatch.setattr(library, "_cuda", Binary(binary))
        monkeypatch.setattr(library, "_cuda_error", "")
        monkeypatch.setattr(torch.version, "hip", None)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", capability)

    return see


class Binary:
    """A stand-in for a module, which can be a key as modules can."""

    def __init__(self, attributes: SimpleNamespace) -> None:
        vars(self).update(vars(attributes))


def why_not(device: str, operator: str = "arme", dtype: torch.dtype = torch.bfloat16) -> str | None:
    return _dispatch.why_not(operator, "cuda", device, dtype)


def test_the_tensors_gpu_is_asked_not_the_current_one(gpus: Any) -> None:
    gpus((7, 5), (9, 0))
    old = "a GPU of compute capability 8.0 or newer is needed, found 7.5"
    assert why_not("cuda") == why_not("cuda:0") == old
    assert why_not("cuda:1") is None
    with pytest.raises(RuntimeError, match=re.escape(f"backend 'cuda' cannot run on cuda:0: {old}")):
        calls.place_of(SimpleNamespace(device=torch.device("cuda", 0)))


def test_kernels_go_to_the_current_stream_of_the_tensors_gpu(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((7, 5), (9, 0))
    monkeypatch.setattr(calls, "raw_stream", {GPU: 77}.__getitem__)
    assert calls.place_of(SimpleNamespace(device=GPU)) == (1, 77)


def test_a_gpu_without_code(gpus: Any) -> None:
    gpus((8, 6), built=("sm_90a", "compute_90"))
    assert "was built for sm_90a, compute_90; this GPU is sm_86" in str(why_not("cuda"))
    with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run arme: hstl_fast\._cuda was built for sm_90a"):
        _dispatch.choose("arme", "cuda", torch.float32, "cuda")


def test_a_driver_that_is_too_old(gpus: Any) -> None:
    gpus((9, 0), driver=12080)
    assert "needs a driver for CUDA 13.0 or newer to run sm_90a, found one for 12.8" in str(why_not("cuda"))


def test_other_tensors_and_operators(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0))
    assert why_not("cuda", "fta") == "the cuda backend does not compute fta"
    assert why_not("cpu") == "the cuda backend computes tensors on a GPU, not on cpu"
    assert "not torch.float64" in str(why_not("cuda", dtype=torch.float64))
    floating = [dtype for dtype in calls.TYPES if dtype.is_floating_point]
    assert not any(why_not("cuda", name, dtype) for name in cuda.OPERATORS for dtype in floating)
    monkeypatch.setattr(torch.version, "hip", "6.3")
    library._why_not_this_gpu.cache_clear()
    assert why_not("cuda") == "the cuda backend computes on NVIDIA's GPUs only"


def test_without_the_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_cuda", None)
    monkeypatch.setattr(library, "_cuda_error", "hstl_fast._cuda was not built; install again")
    assert why_not("cuda") == "hstl_fast._cuda was not built; install again"
    with pytest.raises(RuntimeError, match="was not built"):
        library.require_cuda()
    assert info.collect()["native_cuda"] == {"loaded": False, "reason": "hstl_fast._cuda was not built; install again"}


def test_the_binary_is_described(gpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gpus((9, 0), driver=12080)
    assert info._native_cuda() == {
        "loaded": True,
        "has_run_on_a_gpu": False,
        "architectures": list(BUILT),
        "runtime": "13.0",
        "driver": "12.8",
        "nvcc": "13.0.88",
    }


def test_nothing_unverified_is_chosen_automatically(gpus: Any) -> None:
    gpus((9, 0))
    for operator in _dispatch.OPERATORS:
        assert _dispatch.choose(operator, "cuda", torch.bfloat16, None) == "reference"
    with use_backend("cuda"):
        assert _dispatch.choose("arme", "cuda", torch.bfloat16, None) == "cuda"
        assert _dispatch.choose_for_network("cuda", torch.bfloat16) == "cuda"


def test_tensors_of_two_devices() -> None:
    x, weights = torch.rand(1, 2, 3, 4, 5), torch.rand(1, 2, 2, 3, 3, 3, device="meta")
    with pytest.raises(ValueError, match="weights must be on the device of x, cpu, got meta"):
        functional.arme(x, weights, [4], backend="cuda")


def test_the_interface_is_that_of_the_sources() -> None:
    header = (ROOT / "csrc" / "cuda" / "operators.h").read_text(encoding="utf-8")
    assert int(re.search(r"kInterface = (\d+);", header)[1]) == library.INTERFACE
    types = re.search(r"enum Type \{(.*?)\}", header)[1]
    numbers = {name: int(value) for name, value in re.findall(r"k(\w+) = (\d+)", types)}
    names = {torch.float32: "Float32", torch.float16: "Float16", torch.bfloat16: "Bfloat16", torch.uint8: "Bytes"}
    assert {names[dtype]: number for dtype, number in calls.TYPES.items()} | {"Tf32": calls.TF32} == numbers
