"""Triton's kernels where there is no GPU: in the interpreter, and compiled for GPUs that need not be here.

Both in processes of their own, since the first import of Triton decides whether it interprets.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast.backends.triton import available

pytestmark = pytest.mark.skipif(available.why_no_triton() is not None, reason=str(available.why_no_triton()))
# Bytes of shared memory that one block may have.
MOST_SHARED = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10, "gfx90a": 64 << 10}
# The widest instruction that multiplies matrices on a target.
PRODUCTS = {
    "sm_80": "mma.sync",
    "sm_90": "wgmma.mma_async",
    "sm_100": "tcgen05.mma",
    "gfx942": "v_mfma",
    "gfx90a": "v_mfma",
}
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="tests/backends/triton runs on the GPU")
@pytest.mark.parametrize("kernels", ["arme", pytest.param("not arme", marks=pytest.mark.slow)])
def test_the_kernels_in_the_interpreter(kernels: str, environment: dict[str, str], pytestconfig: pytest.Config) -> None:
    """In two parts, which may run beside one another; by default one test of one operator."""
    all_of_them = pytestconfig.getoption("slow")
    chosen = kernels if all_of_them else f"{kernels} and test_packed_sequences_do_not_meet"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-k",
        chosen,
        "-p",
        "no:cacheprovider",
        *(["--slow"] if all_of_them else []),
        "tests/backends/triton",
    ]
    environment["TRITON_INTERPRET"] = "1"
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout


LENGTHS = """
import torch
from tests.backends.triton.ahead import launches_of_networks

expected = set(launches_of_networks(torch.bfloat16, "sm_90"))
assert len(expected) > 50
for frames in (7, 8, 12, 31):
    assert set(launches_of_networks(torch.bfloat16, "sm_90", frames)) == expected, frames
"""


@pytest.mark.slow
def test_other_lengths_compile_nothing_new(environment: dict[str, str]) -> None:
    environment.pop("TRITON_INTERPRET", None)
    subprocess.run([sys.executable, "-c", LENGTHS], env=environment, cwd=REPOSITORY, check=True)


# Every target, and every type for NVIDIA's and for AMD's compiler; both types where networks are trained first of all.
COMPILED = [
    ("sm_80", "float32"),
    ("sm_90", "bfloat16"),
    ("sm_90", "float32"),
    ("sm_100", "bfloat16"),
    ("gfx942", "bfloat16"),
    ("gfx90a", "float32"),
]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("target", "dtype"), COMPILED)
def test_what_the_networks_launch(
    target: str, dtype: str, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _compiled(target, dtype, environment)
    with capsys.disabled():
        for row in rows:
            needs = "{registers:4} registers {shared:7} bytes shared {spilled:4} spilled".format(**row)
            print("{target:7} {0}  {product} {copies}  {kernel}".format(needs, **row))
    _assert_fits(rows, target)
    _assert_feeds_products(rows, target)


def _compiled(target: str, dtypes: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "tests.backends.triton.ahead", target, dtypes]
    done = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _assert_fits(rows: list[dict[str, Any]], target: str) -> None:
    assert len(rows) > 25
    assert not [row for row in rows if row["spilled"] or row["shared"] > MOST_SHARED[target]]


def _assert_feeds_products(rows: list[dict[str, Any]], target: str) -> None:
    """Every product runs on the matrix units, and what a convolution multiplies comes 16 bytes at a time."""
    products = [row for row in rows if row["kernel"].split()[0] in ("conv", "conv_patches", "wgrad")]
    assert len(products) > 10
    assert {row["product"] for row in products} == {PRODUCTS[target]}
    wide = [row for row in products if row["kernel"].startswith("conv") and "C_IN=1 " not in row["kernel"]]
    assert len(wide) > 8
    if target.startswith("sm_"):
        assert {tuple(row["copies"]) for row in wide} == {(16,)}
