"""A layer that computes something else than its kind does is left alone, and the comparison leaves no trace."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import accelerate
from tests.helpers.drop_in import assert_left_alone, randomised, remade, set_to
from tests.helpers.opengait import BareConv3d, OpenGaitHSTL, RegionConv

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


class Clamped(BareConv3d):
    def forward(self, ipts: Tensor) -> Tensor:
        return super().forward(ipts).clamp(-20, 20)


class Rescaled(BareConv3d):
    def forward(self, ipts: Tensor) -> Tensor:
        return super().forward(ipts / 255 if ipts.max() > 10 else ipts)


class Steeper(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        regions = x.split(self.split_param, dim=3)
        return nn.functional.leaky_relu(torch.cat([c(r) for c, r in zip(self.conv3d, regions)], dim=3), 0.02)


class SeesNeighbours(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        regions = [conv(x).split(self.split_param, dim=3)[r] for r, conv in enumerate(self.conv3d)]
        return nn.functional.leaky_relu(torch.cat(regions, dim=3), 0.01)


class Dropping(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, self.training)


class DropsInEvaluation(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1 if self.training else 2)


class StopsGradient(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.detach())


class StopsEveryGradient(RegionConv):
    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class HalvesGradient(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y / 2 + y.detach() / 2


class Widens(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).double()


class ReturnsPair(RegionConv):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class Halving(RegionConv):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, :, ::2]


class Counting(RegionConv):
    calls = 0
    last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls, self.last = self.calls + 1, x
        return super().forward(x)


class MeanOfFrames(nn.Module):
    def forward(self, x: Tensor, seqL: Any = None, options: Any = None) -> Any:
        return (x.mean(2),)


class OnlyUnpacked(nn.Module):
    def forward(self, x: Tensor, seqL: Any = None, options: Any = None) -> Any:
        assert seqL is None, "no packed sequences here"
        return torch.max(x, 2)


LEFT_ALONE: list[tuple[str, Callable[[Any], Any], str]] = [
    ("plain stage", lambda m: [set_to("0", Clamped(3, 5))(m), randomised(m)], "on large numbers in evaluation mode"),
    ("plain stage", set_to("0", Rescaled(3, 5)), "in evaluation mode"),
    ("ARME", remade(Steeper), "its own forward returns other values (by "),
    ("ARME", remade(SeesNeighbours), "its own forward returns other values (by "),
    ("ARME", remade(Dropping), "in training mode"),
    ("ARME", remade(DropsInEvaluation), "in evaluation mode"),
    ("ARME", remade(StopsGradient), "its own forward stops a gradient"),
    ("ARME", remade(StopsEveryGradient), "its own forward stops a gradient"),
    ("ARME", remade(HalvesGradient), "its own forward has other gradients"),
    ("ARME", remade(Widens), "its own forward returns torch.float64, ours torch.float32, in training mode"),
    ("ARME", remade(ReturnsPair), "its own forward fails on a small input (it returned a tuple)"),
    ("ARME", remade(Halving), "its own forward returns [2, 5, 2, 7, 3], ours [2, 5, 4, 7, 3]"),
    ("ARME", lambda m: [p.data.zero_() for p in m.parameters()], "zeros or infinities only, which shows nothing"),
    ("ASTP", set_to("SP1", MeanOfFrames()), "its own forward returns other values (by "),
    ("ASTP", set_to("SP1", OnlyUnpacked()), "its own forward fails on a small input (no packed sequences here)"),
]


@pytest.mark.parametrize(("name", "change", "reason"), LEFT_ALONE, ids=[f"{n}: {r}" for n, _, r in LEFT_ALONE])
def test_left_alone(name: str, change: Callable[[Any], Any], reason: str) -> None:
    assert_left_alone(name, change, reason)


def test_gradients_are_compared_where_the_caller_wants_none() -> None:
    with torch.no_grad():
        assert accelerate(StopsGradient(6, 5, [4, 1, 2])).left_alone


def test_the_comparison_leaves_no_trace(model: OpenGaitHSTL) -> None:
    called: list[str] = []
    model.fta.register_forward_hook(lambda *_: called.append("forward hook"))
    model.fta.register_full_backward_hook(lambda *_: called.append("backward hook"))
    model.HPP.p.register_hook(lambda g: called.append("parameter's hook"))
    model.arme2.eval()
    modes, random = [m.training for m in model.modules()], torch.get_rng_state()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert not accelerate(model).left_alone
    assert called == []
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in model.parameters())


def test_the_comparison_draws_from_no_generator_of_the_caller() -> None:
    module, random = Dropping(6, 5, [4, 1, 2]), torch.get_rng_state()
    assert accelerate(module).left_alone
    assert torch.equal(torch.get_rng_state(), random)


def test_the_comparison_keeps_off_what_the_layer_notes() -> None:
    module = randomised(Counting(6, 5, [4, 1, 2]))
    assert accelerate(module).replaced
    assert (module.calls, module.last) == (0, None)
