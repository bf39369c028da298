"""Arithmetic inside the support and by Winograd is counted position by position and tile by tile."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from benchmarks.core import flops
from benchmarks.core.plain import PlainLayer, feature_maps
from benchmarks.cpu import executed, workloads
from benchmarks.cpu.executed import Support
from hstl_fast import PRESETS, use_algorithm
from hstl_fast.backends.cpu import library
from tests.helpers.networks import narrow_model


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("source", workloads.SOURCES)
def test_every_map_is_zero_outside_its_support(preset: str, source: str) -> None:
    model = narrow_model(preset).eval()
    (clip,) = workloads.embedding("casia-b", (7,), source).inputs
    maps = feature_maps(model, clip)
    for name, support in executed.supports(model.config, clip).items():
        with torch.no_grad():
            y = PlainLayer(model.get_submodule(name))(maps[name])
        for x, inside in ((maps[name], support.x), (y, support.y)):
            assert x.shape[2:] == inside.shape[1:]
            assert not x.abs().amax(1)[~inside].any()
            assert x.abs().amax(1)[inside].bool().float().mean() > 0.99


def arme_layer(**sizes: Any) -> flops.Layer:
    """A convolution of 8 channels to 9, of 5 frames of 8 + 4 rows and 6 columns unless said otherwise."""
    layer = flops.Layer("stages.0.0", "arme", 8, 9, (8, 4), 5, 12, 6, 0, 0, 0)._replace(**sizes)
    products = layer.c_in * layer.c_out * layer.frames * layer.rows * layer.columns
    return layer._replace(macs=27 * products, direct=20 * products)


@pytest.fixture
def tiles_of_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every convolution but the first is computed in the largest Winograd tiles: of five frames, in training's forward
    pass of four."""
    monkeypatch.setattr(executed, "tile_frames", lambda layer, tiles: 0 if layer.c_in == 1 else max(tiles))


@pytest.mark.usefixtures("tiles_of_five")
def test_executed_arithmetic_is_that_of_tiles_that_hold_a_position_of_the_support() -> None:
    layer = arme_layer()
    x, y = torch.zeros(2, 1, 5, 12, 6, dtype=torch.bool)
    x[0, 0, 0, 0] = True
    y[0, 0, 0, :2] = y[0, 4, 7, 3] = True  # one tile of 4 x 4
    y[0, 0, 8, 4] = y[0, 0, 9, 3] = True  # one tile of the second region, which begins at column 3
    dense, direct, winograd, inside, executed_ = executed.of_layer(layer, Support(x, y))
    assert (dense, direct) == (layer.macs, layer.direct)
    assert winograd == 72 * 36 * 7 * (2 + 1) * 2
    assert inside == 72 * 27 * 5
    assert executed_ == 72 * 36 * 7 * 3
    training = executed.of_training(layer, Support(x, y))
    assert (training.dense, training.direct, training.winograd) == (3 * dense, 3 * direct, 3 * winograd)
    assert training.inside == 72 * 27 * (5 + 1 + 5)
    assert training.executed == 72 * 36 * (6 * 3 + 7 * 1 + 7 * 3)


@pytest.mark.parametrize(
    ("columns", "tiles"),
    [([], 0), ([0, 3], 1), ([1, 4], 1), ([3, 4, 7], 2), ([0, 5, 9, 10], 3), ([10], 1), (range(11), 3)],
)
def test_tiles_begin_at_the_first_column_of_the_support(columns: Sequence[int], tiles: int) -> None:
    support = torch.zeros(1, 2, 5, 11, dtype=torch.bool)
    for i, column in enumerate(columns):
        support[0, i % 2, i % 4, column] = True
    assert executed.tiles(support, [5], frames=2) == tiles


@pytest.mark.usefixtures("tiles_of_five")
def test_the_first_layer_is_direct_and_needs_no_data_gradient() -> None:
    layer = arme_layer(name="stem.0", c_in=1, c_out=6)
    y = torch.zeros(1, 5, 12, 6, dtype=torch.bool)
    y[0, 0, 0, :2] = True
    assert executed.of_layer(layer, Support(y, y)).executed == 6 * 27 * 2
    assert executed.of_layer(layer, Support(~y[:0], ~y)).executed == layer.direct
    assert executed.of_training(layer, Support(y, y)).executed == 2 * 6 * 27 * 2


@pytest.mark.usefixtures("tiles_of_five")
def test_a_layer_by_itself_executes_whole_maps() -> None:
    products = executed.of_layer(arme_layer())
    assert products.executed == products.winograd
    assert products.inside is None
    pooling = flops.layers(PRESETS["casia-b"], 30)[1]
    assert set(executed.of_layer(pooling)) == {pooling.macs}
    assert set(executed.of_training(pooling)) == {3 * pooling.macs}


def test_the_algorithm_in_force_is_what_is_counted() -> None:
    layer = flops.layers(PRESETS["casia-b"], 30)[2]
    with use_algorithm("direct"):
        assert executed.tile_frames(layer) == executed.DIRECT
        assert executed.of_layer(layer).executed == layer.direct
    if library.cpu() is None:
        pytest.skip(library.cpu_error())
    with use_algorithm("winograd"):
        assert executed.tile_frames(layer) in executed.TILES
        assert executed.of_layer(layer).executed < layer.direct / 2


@pytest.mark.parametrize("algorithm", ["auto", "winograd"])
def test_the_forward_pass_of_training_takes_smaller_tiles(algorithm: str) -> None:
    if library.cpu() is None:
        pytest.skip(library.cpu_error())
    layer = flops.layers(PRESETS["casia-b"], 30)[2]
    passes = 3 if layer.differentiable_input else 2
    whole = 36 * layer.c_in * layer.c_out * executed.tiles(torch.ones(1, 1, layer.rows, layer.columns), layer.split, 1)
    with use_algorithm(algorithm):
        assert executed.of_layer(layer).executed == whole * 7 * 6
        assert executed.of_training(layer).executed == whole * (6 * 8 + (passes - 1) * 7 * 6)


@pytest.mark.parametrize("sizes", [{"c_in": 7}, {"c_out": 7}, {"frames": 1}])
def test_small_layers_are_counted_as_direct(sizes: dict[str, int]) -> None:
    layer = arme_layer(**sizes)
    assert executed.fewest_products(layer) == executed.tile_frames(layer) == executed.DIRECT
    assert set(executed.of_training(layer)[3:]) == {None, 3 * layer.direct}


@pytest.mark.parametrize(("frames", "tile"), [(30, 5), (10, 5), (4, 4), (3, 4), (2, 2), (8, 4)])
def test_tiles_have_as_few_products_as_they_can(frames: int, tile: int) -> None:
    assert executed.fewest_products(arme_layer(frames=frames)) == tile


@pytest.mark.usefixtures("tiles_of_five")
def test_arithmetic_of_a_network_is_that_of_its_layers_and_clips() -> None:
    config = PRESETS["casia-b"]
    clips = [workloads.embedding("casia-b", (t,)).inputs[0] for t in (12, 30)]
    each = [executed.embedding(config, [clip]) for clip in clips]
    both = executed.embedding(config, clips)
    assert tuple(both) == tuple(a + b for a, b in zip(*each, strict=True))
    assert both.dense == flops.macs(config, [12, 30])
    assert both.inside is not None
    assert both.dense > both.direct > both.inside > both.winograd > both.executed
    assert executed.total([both, executed.of_layer(arme_layer())]).inside is None


def test_walkers_have_a_smaller_support_than_people() -> None:
    for preset in ("casia-b", "oumvlp", "gait3d"):
        people, walkers = (workloads.embedding(preset, source=source).products for source in workloads.SOURCES)
        assert people.dense == walkers.dense
        assert people.executed > walkers.executed
