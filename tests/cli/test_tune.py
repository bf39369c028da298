"""`hstl-fast tune`: without a GPU it says why; what it prints and asks for is tried with a fake."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast import PRESETS
from hstl_fast.backends.triton import available
from hstl_fast.ops import _dispatch
from tests.cli.helpers import run


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is something to tune")
def test_without_a_gpu_there_is_nothing_to_tune() -> None:
    assert "there is nothing to tune: " in run("tune", exit_code=1).output


@pytest.mark.skipif(available.why_no_triton() is not None, reason=str(available.why_no_triton()))
def test_what_was_measured_is_printed_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.triton import tiles, tuning

    asked = []

    def measure(product: tuning.Gemm, device: torch.device, dtype: torch.dtype) -> tuning.Measured:
        asked.append((product.name, dtype))
        rule, best = tiles.Tile(128, 64, 32, 4, 3), tiles.Tile(256, 64, 32, 8, 3)
        return tuning.Measured(f"{product.name} {dtype}", rule, {rule: 2e-3, best: 1e-3}, {})

    def why_not(*_: Any) -> None:
        return None

    monkeypatch.setattr(_dispatch, "why_not", why_not)
    monkeypatch.setattr(tuning, "measure", measure)
    output = tmp_path / "mine.json"
    said = run("tune", "--preset", "casia-b", "--output", output).output.splitlines()
    assert (
        "conv 128-128         bfloat16     2.000 ms by rule    1.000 ms  "
        "block_m=256 block_n=64 block_k=32 num_warps=8 num_stages=3" in said
    )
    assert said[-1] == f"written to {output}"
    channels = {(c_in, c_out) for c_in, c_out, *_ in PRESETS["casia-b"].convolutions(30)}
    products = {f"{kind} {a}-{b}" for a, b in channels for kind in ("conv", "wgrad")}
    products |= {f"conv {b}-{a}" for a, b in channels if a > 1}
    assert sorted(asked, key=str) == sorted(
        ((p, d) for p in products for d in (torch.bfloat16, torch.float32)), key=str
    )
    assert len(tiles._read(output)) == 3 * len(products)
