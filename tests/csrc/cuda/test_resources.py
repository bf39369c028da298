"""The CUDA kernels compiled for Hopper by nvcc: nothing spills, nothing is serialised, tensor cores multiply."""

import os
import re
import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
RESOURCES = SimpleNamespace(**runpy.run_path(str(ROOT / "csrc" / "cuda" / "resources.py")))
ARCHITECTURE = "90a"
# Kernels that multiply on tensor cores, by a part of their names; those for plain float32 do not.
PRODUCTS = re.compile(r"^(convolve|accumulate)\w*<(?!Float32\b)")
SAID = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Zfirst' for 'sm_90a'
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized in function '_Zfirst'
ptxas info    : Function properties for _Zfirst
    16 bytes stack frame, 20 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 254 registers, used 1 barriers, 16 bytes stack
ptxas info    : Compiling entry function '_Zsecond' for 'sm_90a'
ptxas info    : Function properties for _Zsecond
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 30 registers, used 0 barriers, 48 bytes smem
"""
SASS = """\
		Function : _Zfirst
        /*0000*/   HGMMA.64x96x16.F32 R24, R4, gdesc[UR4], R24 ;
        /*0010*/   HGMMA.64x96x16.F32 R24, R8, gdesc[UR8], R24 ;
		Function : _Zsecond
        /*0000*/   HMMA.16816.F32 R4, R8, R12, R4 ;
"""


def test_what_ptxas_and_cuobjdump_say_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def output(command: list[str]) -> str:
        if "c++filt" in Path(command[0]).name:
            return "void hstl::(anonymous namespace)::first<hstl::Half, 32>(hstl::P)\nhstl::second(hstl::P)\n"
        return SASS if "-sass" in command else SAID

    module = RESOURCES.of_file.__globals__
    monkeypatch.setitem(module, "output", output)
    first, second = module["of_file"]("file", ARCHITECTURE, ["nvcc"], "cuobjdump")
    assert (first.registers, first.stack, first.spill_stores, first.spill_loads) == (254, 16, 20, 24)
    assert (second.registers, second.shared, second.spill_stores) == (30, 48, 0)
    assert (first.hgmma, first.hmma, second.hgmma, second.hmma) == (2, 0, 0, 1)
    assert first.is_serialized
    assert not second.is_serialized
    if shutil.which("c++filt"):
        assert (first.name, second.name) == ("first<Half, 32>", "second")
    (unknown, _) = module["of_file"]("file", ARCHITECTURE, ["nvcc"], None)
    assert unknown.hgmma is None
    assert "?" in "\n".join(module["table"]([unknown]))


@pytest.fixture(scope="module")
def kernels() -> list[Any]:
    """Every kernel, compiled for one architecture."""
    settings = RESOURCES.build.Settings.from_environment()
    try:
        RESOURCES.build.find_nvcc(settings)
    except RESOURCES.build.CannotBuildError as error:
        pytest.skip(str(error))
    found: list[Any] = RESOURCES.measure([ARCHITECTURE], int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1))
    return found


@pytest.mark.slow
def test_every_kernel_is_compiled(kernels: list[Any]) -> None:
    assert {kernel.file for kernel in kernels} == set(RESOURCES.build.sources())
    assert all(0 < kernel.registers <= 255 for kernel in kernels)


@pytest.mark.slow
def test_no_kernel_spills(kernels: list[Any]) -> None:
    assert not [kernel for kernel in kernels if kernel.spill_stores or kernel.spill_loads]


@pytest.mark.slow
def test_no_product_waits_for_another(kernels: list[Any]) -> None:
    assert not [kernel for kernel in kernels if kernel.is_serialized]


@pytest.mark.slow
def test_tensor_cores_multiply(kernels: list[Any]) -> None:
    if any(kernel.hmma is None for kernel in kernels):
        pytest.skip("needs cuobjdump (the extra cuda-tools)")
    products = [kernel for kernel in kernels if PRODUCTS.match(kernel.name)]
    assert len(products) >= 6
    assert not [kernel for kernel in products if not (kernel.hmma or kernel.hgmma)]
    by_wgmma = [kernel for kernel in products if kernel.file.endswith("_sm90")]
    assert {kernel.file for kernel in by_wgmma} == {"arme_forward_sm90", "arme_wgrad_sm90"}
    assert not [kernel for kernel in by_wgmma if not kernel.hgmma]
