"""Every kind of layer computes what its own forward does."""

import copy
from collections import OrderedDict
from statistics import median

import pytest
import torch
from torch import nn

from hstl_fast import accelerate
from tests.helpers.drop_in import (
    each_layer,
    each_style,
    layer,
    layer_results,
    network,
    randomised,
    results,
    silhouettes,
    stage,
    worst,
)
from tests.helpers.opengait import BareConv3d, RegionPool

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


@each_layer
def test_one_layer_errs_at_most_twice_as_much_as_before(name: str, backend: str) -> None:
    errors = []
    for seed in range(5):
        module, (x, *others) = layer(name, seed)
        reference = layer_results(copy.deepcopy(module).double(), x.double(), *others)
        before = layer_results(module, x, *others)
        assert len(accelerate(module).replaced) == 1
        after = layer_results(module, x, *others)
        errors.append([float((y - t).norm() / t.norm()) for run in (before, after) for y, t in zip(run, reference)])
    medians = [median(values) for values in zip(*errors)]
    for own, ours in zip(medians[:3], medians[3:], strict=True):
        assert ours <= 2 * max(own, torch.finfo(torch.float32).eps / 2), errors


@each_layer
def test_one_layer_returns_the_type_of_before(name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        module, (x, *others) = layer(name)
        module, x = module.to(dtype), x.to(dtype)
        expected = module(x, *others)
        assert len(accelerate(module).replaced) == 1
        got = module(x, *others)
        assert got.dtype == expected.dtype == dtype
        tolerance = 1e-12 if dtype == torch.float64 else 0.02
        assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
def test_a_plain_stage_keeps_its_slope(slope: float) -> None:
    module, x = stage(1, 4, slope).double(), torch.randn(2, 1, 4, 6, 5).double()
    expected = module(x)
    assert len(accelerate(module).replaced) == 1
    torch.testing.assert_close(module(x), expected)


def test_plain_stages_of_other_make() -> None:
    shared = nn.LeakyReLU(0.1)
    named = nn.Sequential(
        OrderedDict(first=BareConv3d(1, 3), activation=shared, second=BareConv3d(3, 2), again=shared)
    ).double()
    x = torch.randn(2, 1, 4, 6, 5).double()
    expected = named(x)
    assert len(accelerate(named).replaced) == 1
    torch.testing.assert_close(named(x), expected)


class TestPackedSequences:
    @pytest.mark.parametrize("lengths", [[4, 3, 5], [12], [1, 11]])
    @pytest.mark.parametrize("form", ["list", "tensor"])
    @each_style
    def test_astp_stops_at_their_ends(self, lengths: list[int], form: str, older: bool, backend: str) -> None:
        module = randomised(RegionPool(6, 5, [4, 3], older=older)).double()
        x = torch.randn(1, 6, 12, 7, 5).double()
        seqL = torch.tensor([lengths]) if form == "tensor" else [torch.tensor(lengths, dtype=torch.int32)]
        expected = layer_results(module, x, seqL)
        accelerate(module)
        assert expected[0].shape[0] == len(lengths)
        assert worst(layer_results(module, x, seqL), expected) < 1e-9
        torch.testing.assert_close(module(seqL=seqL, x=x), expected[0])

    def test_a_whole_packed_network(self, backend: str) -> None:
        model, packed = network().double(), torch.cat(list(silhouettes(6).double()), 1)[None]
        forward = lambda sils: model(sils, seqL=torch.tensor([[5, 7]]))  # noqa: E731
        expected = results(model, packed, forward)
        assert len(accelerate(model).replaced) == 14
        got = results(model, packed, forward)
        assert got[0].shape[0] == 2
        assert worst(got, expected) < 1e-9

    @pytest.mark.parametrize(
        ("n", "lengths"), [(1, [4, 3]), (2, [4, 4]), (2, [3])], ids=["too few", "a batch", "a batch, too few"]
    )
    def test_lengths_that_ours_does_not_define_stay_the_models_own(self, n: int, lengths: list[int]) -> None:
        module, x = randomised(RegionPool(6, 5, [4, 3])), torch.randn(n, 6, 8, 7, 5)
        expected = module(x, [torch.tensor(lengths)])
        accelerate(module)
        assert torch.equal(module(x, [torch.tensor(lengths)]), expected)

    def test_too_many_frames_fail_as_before(self) -> None:
        module, x = RegionPool(6, 5, [4, 3]), torch.randn(1, 6, 8, 7, 5)
        with pytest.raises(RuntimeError) as own:
            module(x, [torch.tensor([4, 9])])
        accelerate(module)
        with pytest.raises(RuntimeError) as ours:
            module(x, [torch.tensor([4, 9])])
        assert str(ours.value) == str(own.value)
