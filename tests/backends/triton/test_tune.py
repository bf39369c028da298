"""The GPU kit's measurement of tiles, with Triton's kernels."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import tune
from hstl_fast import environment

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
X = torch.zeros(1, device=DEVICE)


@pytest.mark.parametrize("kind", ["conv", "wgrad"])
def test_a_measurement_names_the_fastest_of_what_it_tried(
    kind: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hstl_fast.backends.triton.tuning import Gemm

    monkeypatch.setattr(tune, "REPEATS", 1)
    monkeypatch.setattr(tune, "DTYPE", torch.float16)  # the interpreter cannot multiply bfloat16
    row = tune.measure(Gemm(kind, 16, 16, (2, 1), 2, 5), DEVICE, tiny=True)
    assert row["status"] == "ok"
    assert row["seconds"] == min(seconds for _, seconds in row["tried"]) <= row["seconds_by_rule"]
    assert list(row["tile"].values()) in [tile for tile, _ in row["tried"]]


def test_what_is_tuned_is_found_again(kernels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends import triton
    from hstl_fast.backends.triton import tiles, tuning

    measure, said = tuning.measure, []

    def quickly(product: tuning.Gemm, device: torch.device, dtype: torch.dtype) -> tuning.Measured:
        return measure(product, DEVICE, dtype, 1, lambda call: 1.0 / tiles.tile_for("conv", 1, 1, X).block_m, 3)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(environment.TILES.name, raising=False)
    monkeypatch.setattr(tuning, "measure", quickly)
    path = triton.tune([(2, 3, (2, 1), 2, 5)], [torch.float32], lambda *found: said.append(found), None)
    assert path == tmp_path / "hstl_fast" / "tiles.json"
    assert [product.name for product, _, _ in said] == ["conv 2-3", "wgrad 2-3", "conv 3-2"]
    x = torch.zeros(1, device=DEVICE)
    for product, _, found in said:
        assert len(found.tried) >= 3
        assert found.best.block_m == max(tile.block_m for tile in found.tried)
        assert tiles.tile_for(product.kind, product.c_in, product.c_out, x) == found.best
    tiles._measured.cache_clear()


def test_tiles_that_answer_otherwise_or_fail_are_left_out(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from hstl_fast.backends.triton import arme, tiles, tuning

    forward, rule = arme.forward, tiles.by_rule("conv", 2, 3, torch.float32, tiles.capability(X))

    def spoilt(*arguments: Any) -> Tensor:
        tile = tiles.tile_for("conv", 2, 3, X)
        if tile.num_stages == 4 and tile != rule:
            raise RuntimeError("out of shared memory")
        return forward(*arguments) * (1.1 if tile.block_m == 256 else 1)

    monkeypatch.setattr(arme, "forward", spoilt)
    product = tuning.Gemm("conv", 2, 3, (2, 1), 2, 5)
    found = tuning.measure(product, DEVICE, torch.float32, 1, lambda call: 1.0)
    assert rule in found.tried
    assert all(tile.block_m == 128 and tile.num_stages == 3 for tile in found.tried)
    assert set(found.left_out.values()) == {"RuntimeError", "differs by 1.0e-01"}
