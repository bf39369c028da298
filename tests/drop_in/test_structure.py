"""A layer that is made otherwise than its kind is left alone, and the reason names the part."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from tests.helpers.drop_in import assert_left_alone, remade, set_to
from tests.helpers.opengait import BareConv3d, RegionConv

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


class Normed(BareConv3d):
    def __init__(self) -> None:
        super().__init__(3, 5)
        self.norm = nn.BatchNorm3d(5)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv3d(x))


class Standardised(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight / self.weight.std(), None)


class ShiftedStage(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + 1


class TwoArguments(RegionConv):
    def forward(self, x: Tensor, seqL: Any) -> Tensor:
        return super().forward(x)


def _conv(**options: Any) -> Callable[[Any], None]:
    return set_to("conv3d.1.conv3d", BareConv3d(6, 5, **options).conv3d)


def _pool(*sizes: Any, **options: Any) -> nn.MaxPool3d:
    return nn.MaxPool3d(*sizes, **options)


def _meta(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to("meta")


LEFT_ALONE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("plain stage", set_to("0", BareConv3d(3, 5, bias=True)), "0.conv3d has a bias"),
    (
        "plain stage",
        set_to("0", BareConv3d(3, 5, stride=(1, 2, 2))),
        "0.conv3d has stride (1, 2, 2), expected (1, 1, 1)",
    ),
    ("plain stage", set_to("0", Normed()), "0 holds norm beside its conv3d"),
    ("plain stage", set_to("1", nn.ReLU()), "1 is a ReLU, expected nn.LeakyReLU"),
    ("plain stage", set_to("1", nn.BatchNorm3d(5)), "1 is a BatchNorm3d, expected nn.LeakyReLU"),
    ("plain stage", set_to("1", nn.LeakyReLU(-0.1)), "1 has the slope -0.1, expected at least 0"),
    (
        "plain stage",
        lambda m: m.append(nn.MaxPool3d((1, 2, 2))),
        "2 is a MaxPool3d, expected a module that holds one conv3d",
    ),
    ("plain stage", set_to("1.negative_slope", "a"), "looking at it fails ('>=' not supported"),
    ("plain stage", lambda m: m.append(BareConv3d(5, 5)), "no nn.LeakyReLU follows 2"),
    ("plain stage", lambda m: ShiftedStage(*m), "ShiftedStage has a forward of its own"),
    ("plain stage", set_to("0.conv3d", Standardised(3, 5, 3)), "0.conv3d is a Standardised with a forward of its own"),
    ("plain stage", set_to("0.conv3d", nn.Conv2d(3, 5, 3)), "0.conv3d is a Conv2d, expected nn.Conv3d"),
    ("plain stage", set_to("0.scale", nn.Parameter(torch.ones(1))), "0.scale is no part of a layer of this kind"),
    (
        "plain stage",
        lambda m: m[0].register_forward_hook(lambda *_: None),
        "0 has hooks, which would not be called",
    ),
    (
        "plain stage",
        lambda m: m[1].register_full_backward_hook(lambda *_: None),
        "1 has hooks, which would not be called",
    ),
    ("ARME", _conv(bias=True), "conv3d.1.conv3d has a bias"),
    ("ARME", _conv(dilation=2, padding=2), "conv3d.1.conv3d has padding (2, 2, 2), expected (1, 1, 1)"),
    ("ARME", _conv(dilation=2), "conv3d.1.conv3d has dilation (2, 2, 2), expected (1, 1, 1)"),
    ("ARME", _conv(padding_mode="replicate"), "conv3d.1.conv3d has padding_mode replicate, expected zeros"),
    ("ARME", _conv(kernel_size=(1, 3, 3)), "conv3d.1.conv3d has kernel_size (1, 3, 3), expected (3, 3, 3)"),
    ("ARME", set_to("conv3d.1.conv3d", BareConv3d(6, 6, groups=2).conv3d), "conv3d.1.conv3d has groups 2, expected 1"),
    (
        "ARME",
        set_to("conv3d.1.conv3d", BareConv3d(6, 4).conv3d),
        "the regions have different channels: [(6, 4), (6, 5)]",
    ),
    ("ARME", set_to("m", 2), "m must be the number of regions, 3, got 2"),
    ("ARME", set_to("split_param", [4, 3]), "split_param has 2 regions, conv3d holds 3 modules"),
    ("ARME", set_to("split_param", [4, 0, 3]), "split_param must be a list of row counts, got [4, 0, 3]"),
    ("ARME", set_to("split_param", 7), "split_param must be a list of row counts, got 7"),
    ("ARME", set_to("m", torch.ones(2)), "looking at it fails (Boolean value of Tensor"),
    ("strip pool", set_to("eps", torch.ones(2)), "looking at it fails (Boolean value of Tensor"),
    ("ARME", remade(TwoArguments), "its forward takes (x, seqL), expected 1 argument"),
    ("ARME", set_to("forward", abs), "its forward has been replaced on the instance"),
    ("ARME", set_to("conv3d.0.forward", abs), "conv3d.0 has a forward replaced on the instance"),
    ("ARME", lambda m: m.register_buffer("offset", torch.ones(1)), "offset is no part of a layer of this kind"),
    ("ARME", lambda m: [parametrizations.weight_norm(m.conv3d[2].conv3d)], "conv3d.2.conv3d is parametrized"),
    ("ARME", lambda m: [parametrizations.spectral_norm(m.conv3d[2].conv3d)], "conv3d.2.conv3d is parametrized"),
    (
        "ARME",
        lambda m: [nn.utils.spectral_norm(m.conv3d[0].conv3d)],
        "conv3d.0.conv3d has hooks, which would not be called",
    ),
    (
        "ARME",
        lambda m: [prune.l1_unstructured(m.conv3d[0].conv3d, "weight", 0.5)],
        "conv3d.0.conv3d has hooks, which would not be called",
    ),
    (
        "ARME",
        set_to("conv3d.0.conv3d", nn.LazyConv3d(5, 3, padding=1, bias=False)),
        "conv3d.0.conv3d is not initialised yet",
    ),
    ("ARME", _meta, "is on the meta device, where nothing can be compared; accelerate it once it has values"),
    ("ARME", lambda m: [m.conv3d[1].double()], "its parameters differ in device or dtype"),
    ("ASTP", set_to("hpp.1.eps", 1e-5), "hpp.1.eps must be 1e-06, got 1e-05"),
    ("ASTP", set_to("hpp.1.bin_num", [2]), "hpp.1.bin_num must be [1], got [2]"),
    ("ASTP", set_to("hpp.1.p", nn.Parameter(torch.ones(2))), "hpp.1.p must be a Parameter of shape [1], got [2]"),
    ("ASTP", set_to("m", 4), "m must be the number of regions, 3, got 4"),
    ("ASTP", set_to("proj.conv", nn.Conv2d(6, 9, 1)), "proj.conv has a bias"),
    ("ASTP", set_to("proj.conv", nn.Conv2d(6, 9, 3, bias=False)), "proj.conv has kernel_size (3, 3), expected (1, 1)"),
    ("ASTP", lambda m: delattr(m, "proj"), "proj.conv is a NoneType, expected nn.Conv2d"),
    ("ASTP", set_to("flag", 1), "flag must be True or False, got 1"),
    ("ASTP", set_to("flag", False), "proj.conv.weight is no part of a layer of this kind"),
    ("ASTP", lambda m: delattr(m, "SP1"), "has no frame maximum SP1"),
    ("FTA", set_to("mma.0.FP_3", _pool((3, 1, 1), (2, 1, 1))), "mma.0.FP_3 has stride (2, 1, 1), expected (3, 1, 1)"),
    ("FTA", set_to("mma.0.FP_3", _pool(3)), "mma.0.FP_3 has kernel_size 3, expected (3, 1, 1)"),
    (
        "FTA",
        set_to("mma.2.FP_5", _pool((5, 1, 1), (3, 1, 1))),
        "mma.2.FP_5 has padding 0, expected (1, 0, 0)",
    ),
    ("FTA", set_to("mma.2.FP_5", nn.AvgPool3d((5, 1, 1))), "mma.2.FP_5 is a AvgPool3d, expected nn.MaxPool3d"),
    ("FTA", set_to("mma.1.FP_5", _pool((5, 1, 1), (3, 1, 1), (1, 0, 0), ceil_mode=True)), "has ceil_mode True"),
    ("FTA", set_to("mma.1.fcs.0", nn.Conv1d(6, 6, 3, padding=1)), "mma.1.fcs.0 has kernel_size (3,), expected (1,)"),
    ("FTA", set_to("mma.1.fcs.1", nn.Conv1d(6, 6, 1, bias=False)), "mma.1.fcs.1 has no bias"),
    ("FTA", set_to("mma.1.fcs.1", nn.Conv1d(6, 3, 1)), "the gates have different channels: [3, 6]"),
    ("FTA", lambda m: [m.mma[0].fcs.append(nn.Conv1d(6, 6, 1))], "mma.0.fcs must be an nn.ModuleList of two nn.Conv1d"),
    ("global-local", set_to("local_conv3d", BareConv3d(6, 5, bias=True)), "local_conv3d.conv3d has a bias"),
    (
        "global-local",
        set_to("global_conv3d", BareConv3d(6, 5, stride=2)),
        "global_conv3d.conv3d has stride (2, 2, 2), expected (1, 1, 1)",
    ),
    (
        "global-local",
        set_to("local_conv3d", BareConv3d(6, 4)),
        "the convolutions have different channels: [(5, 6), (4, 6)]",
    ),
    ("global-local", set_to("halving", True), "halving must be a number of halvings, at most 7, got True"),
    ("global-local", set_to("halving", -1), "halving must be a number of halvings, at most 7, got -1"),
    ("global-local", set_to("halving", 30), "halving must be a number of halvings, at most 7, got 30"),
    ("global-local", set_to("fm_sign", None), "fm_sign must be True or False, got None"),
    ("global-local", lambda m: m.register_buffer("offset", torch.ones(1)), "offset is no part of a layer of this kind"),
    ("strip pool", set_to("bin_num", [7, 1]), "bin_num must be a list of one number, got [7, 1]"),
    ("strip pool", set_to("bin_num", 7), "bin_num must be a list of one number, got 7"),
    ("strip pool", set_to("eps", 0.0), "eps must be 1e-06, got 0.0"),
    ("strip pool", set_to("p", nn.Parameter(torch.ones(7))), "p must be a Parameter of shape [1], got [7]"),
]


@pytest.mark.parametrize(("name", "change", "reason"), LEFT_ALONE, ids=[f"{n}: {r}" for n, _, r in LEFT_ALONE])
def test_left_alone(name: str, change: Callable[[Any], Any], reason: str) -> None:
    assert_left_alone(name, change, reason)
