"""How much of a GEMM one program of Triton computes: by rule, as measured, and what is wrong with a file of tiles."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.core import flops
from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import tune
from hstl_fast import PRESETS, environment
from hstl_fast.backends.triton import tiles
from hstl_fast.backends.triton.tiles import Tile

X = torch.zeros(1, dtype=torch.bfloat16)
CHANNELS = [(1, 32), (32, 32), (32, 64), (64, 128), (128, 128), (256, 256), (7, 5)]


@pytest.fixture(autouse=True)
def forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who has measured nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(environment.TILES.name, raising=False)
    tiles._measured.cache_clear()
    yield
    tiles._measured.cache_clear()


@pytest.mark.parametrize("product", tiles.GEMMS)
@pytest.mark.parametrize(("c_in", "c_out"), CHANNELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("gpu", [(0, 0), (8, 0), (9, 0), (10, 0)])
def test_rules_give_tiles_that_matrix_units_take(
    product: str, c_in: int, c_out: int, dtype: torch.dtype, gpu: tuple[int, int]
) -> None:
    tile = tiles.by_rule(product, c_in, c_out, dtype, gpu)
    for size in (tile.block_m, tile.block_n, tile.block_k):
        assert size >= 16
        assert size & (size - 1) == 0
    assert tile.block_n >= min(c_out, 128)
    assert tile.num_stages * (tile.block_m + tile.block_n) * tile.block_k * dtype.itemsize <= 200 << 10


def test_candidates_hold_the_rules_of_hopper() -> None:
    for c_in, c_out in CHANNELS[1:-1]:
        assert tiles.by_rule("conv", c_in, c_out, torch.bfloat16, (9, 0)) in tiles.candidates(c_out, torch.bfloat16)


def test_measured_tiles_win_over_the_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = Tile(64, 32, 32, 2, 2)
    tiles.write(tmp_path / "tiles.json", {tiles.key("conv", 32, 64, X): mine})
    monkeypatch.setenv(environment.TILES.name, str(tmp_path / "tiles.json"))
    assert tiles.tile_for("conv", 32, 64, X) == mine
    assert tiles.tile_for("conv", 32, 32, X) == tiles.by_rule("conv", 32, 32, torch.bfloat16, (0, 0))
    with tiles.forced(Tile(16, 16, 16, 1, 1)):
        assert tiles.tile_for("conv", 32, 64, X) == Tile(16, 16, 16, 1, 1)


@pytest.mark.parametrize("text", [None, "no JSON", "[]", '{"a": 3}', '{"a": {"rows": 3}}'])
def test_files_that_hold_no_tiles(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiles.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    monkeypatch.setenv(environment.TILES.name, str(path))
    with pytest.raises(ValueError, match="HSTL_FAST_TILES must name a file of measured tiles, got"):
        tiles.tile_for("conv", 32, 64, X)


def test_what_the_user_measured_is_read() -> None:
    mine, other = Tile(64, 32, 32, 2, 2), Tile(32, 32, 32, 2, 2)
    assert tiles.tile_for("conv", 32, 64, X) == tiles.by_rule("conv", 32, 64, torch.bfloat16, (0, 0))
    tiles.write(tiles.own_file(), {tiles.key("conv", 32, 64, X): mine})
    tiles.write(tiles.own_file(), {tiles.key("wgrad", 32, 64, X): other})
    assert tiles.tile_for("conv", 32, 64, X) == mine
    assert tiles.tile_for("wgrad", 32, 64, X) == tiles.tile_for("wgrad", 32, 64, X.half()) == other


def test_a_damaged_file_of_the_users_own_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    path = tiles.own_file()
    path.parent.mkdir(parents=True)
    path.write_text("no JSON", encoding="utf-8")
    assert tiles.tile_for("conv", 32, 64, X) == tiles.by_rule("conv", 32, 64, torch.bfloat16, (0, 0))
    assert f"{path} holds no measured tiles and is not used" in caplog.text
    mine = Tile(64, 32, 32, 2, 2)
    tiles.write(path, {tiles.key("conv", 32, 64, X): mine})
    assert tiles.tile_for("conv", 32, 64, X) == mine


def test_a_file_of_an_older_version_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    path = tiles.own_file()
    path.parent.mkdir(parents=True)
    older = {"rows": 64, "cols": 32, "depth": 32, "warps": 2, "stages": 2}
    path.write_text(json.dumps({tiles.key("conv", 32, 64, X): older}), encoding="utf-8")
    assert tiles.tile_for("conv", 32, 64, X) == tiles.by_rule("conv", 32, 64, torch.bfloat16, (0, 0))
    assert f"{path} holds no measured tiles and is not used" in caplog.text


def test_tuning_writes_what_was_fastest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(seconds: float, tile: Tile) -> dict[str, object]:
        key = tiles.key("conv", 32, 64, X)
        return {"status": "ok", "key": key, "tile": tile._asdict(), "seconds": seconds}

    assert tune.write(tmp_path, {"a": {"status": "failed", "reason": "r"}}) is None
    path = tune.write(tmp_path, {"a": row(1.0, Tile(64, 32, 32, 2, 2)), "b": {"status": "failed", "reason": "r"}})
    monkeypatch.setenv(environment.TILES.name, str(path))
    assert tiles.tile_for("conv", 32, 64, X) == Tile(64, 32, 32, 2, 2)


def test_there_is_nothing_to_tune_without_kernels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "out"), "--stage", "tune", "--device", "cpu", "--tiny"]
    assert kit.main(arguments) == kit.NOTHING_RUN
    assert "there is nothing to tune on this device" in capsys.readouterr().err


def test_every_product_of_the_networks_is_tuned_once() -> None:
    names = [product.name for product in tune.products(tiny=False)]
    assert len(names) == len(set(names))
    assert {"conv 1-32", "wgrad 1-32", "conv 64-128", "conv 128-64", "wgrad 256-256"} <= set(names)
    assert "conv 32-1" not in names


@pytest.mark.parametrize("preset", ["casia-b", "gait3d", "oumvlp"])
def test_convolutions_are_the_networks_own(preset: str) -> None:
    expected = [
        (layer.c_in, layer.c_out, layer.split, layer.frames, layer.columns)
        for layer in flops.layers(PRESETS[preset], 30)
        if layer.kind == "arme"
    ]
    assert PRESETS[preset].convolutions(30) == expected
