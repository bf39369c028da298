"""Dense arithmetic and traffic are counted as torch counts them, and as loops would."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.core import flops
from benchmarks.core.plain import PlainHSTL, feature_maps
from benchmarks.cpu import workloads
from hstl_fast import PRESETS
from tests.helpers.networks import narrow_config, narrow_model, walkers


@pytest.mark.parametrize(("preset", "gmac"), [("casia-b", 25.8), ("oumvlp", 29.4), ("gait3d", 29.4)])
def test_dense_arithmetic_of_thirty_frames(preset: str, gmac: float) -> None:
    config = PRESETS[preset]
    assert round((flops.macs(config, [30]) + flops.classifier_macs(config)) / 1e9, 1) == gmac


@pytest.mark.parametrize("preset", workloads.OPERATOR_PRESETS)
def test_torch_counts_the_same_arithmetic(preset: str) -> None:
    model = narrow_model(preset).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        PlainHSTL(model)(walkers(7)[None])
    assert counter.get_total_flops() == 2 * flops.macs(model.config, [7])


def test_torch_counts_the_same_arithmetic_of_training() -> None:
    model = narrow_model("casia-b").train()
    config = model.config
    with FlopCounterMode(display=False) as counter:
        embeddings, logits = PlainHSTL(model)(torch.stack([walkers(7), walkers(7, seed=1)]))
        (embeddings.sum() + logits.sum()).backward()
    expected = 2 * sum(flops.training_macs(layer) for layer in flops.layers(config, 7))
    assert counter.get_total_flops() == 2 * (expected + 2 * 3 * flops.classifier_macs(config))


def counted(t: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    """Products of one region's convolution of one channel and of both its gradients: with ones everywhere, results
    are counts. The columns beside the map are part of it, as in the native code."""
    x = torch.ones(1, 1, t, h, w + 2, dtype=torch.float64, requires_grad=True)
    weight = torch.ones(1, 1, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    y = F.conv3d(x, weight, padding=(1, 1, 0))
    y.sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    return y.sum(), x.grad.sum(), weight.grad.sum()


@pytest.mark.parametrize("t", [3, 4, 7])
def test_direct_arithmetic_is_that_of_taps_inside_regions_and_sequences(t: int) -> None:
    config = narrow_config("oumvlp", 16)
    for layer in flops.layers(config, t):
        if layer.kind == "arme":
            regions = [counted(layer.frames, rows, layer.columns) for rows in layer.split]
            for pass_ in zip(*regions, strict=True):
                assert layer.direct == layer.c_in * layer.c_out * sum(pass_)
        else:
            assert layer.direct == layer.macs


def test_direct_arithmetic_of_the_published_layers() -> None:
    convolutions = [layer for _, layer in workloads.operator_layers() if layer.kind == "arme"]
    shares = [layer.direct / layer.macs for layer in convolutions]
    assert 0.8 < min(shares) < 0.85
    assert 0.96 < max(shares) < 0.98


@pytest.mark.parametrize("preset", workloads.OPERATOR_PRESETS)
def test_layers_are_those_of_the_network(preset: str) -> None:
    model = narrow_model(preset).eval()
    maps = feature_maps(model, walkers(7))
    layers = {layer.name: layer for layer in flops.layers(narrow_config(preset), 7) if layer.kind != "head"}
    assert maps.keys() == layers.keys()
    for name, layer in layers.items():
        assert maps[name].shape == (1, layer.c_in, layer.frames, layer.rows, layer.columns)
        with torch.no_grad():
            y = model.get_submodule(name)(maps[name])
        parameters = sum(p.numel() for p in model.get_submodule(name).parameters())
        assert y.shape[1] == layer.c_out
        assert layer.bytes == 4 * (maps[name].numel() + y.numel() + parameters)
