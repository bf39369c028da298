"""Models and layers in the style of OpenGait for the tests of `accelerate`, and what they compute."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import accelerate
from tests.golden import recipe
from tests.helpers.gaitgl import ActivatedSum, GlobalLocal
from tests.helpers.networks import narrow_model, walkers
from tests.helpers.opengait import BareConv3d, FrameAggregation, OpenGaitHSTL, PowerPool, RegionConv, RegionPool

# The published networks have this many times the channels of the tests' networks.
WIDTH = 16

each_preset = pytest.mark.parametrize("preset", recipe.PRESETS)
each_network = pytest.mark.parametrize(
    ("preset", "older"), [("casia-b", False), ("oumvlp", True), ("gait3d", False)], ids=recipe.PRESETS
)
each_style = pytest.mark.parametrize("older", [False, True], ids=["newer", "older"])


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The module with every parameter drawn anew, powers around 6.5."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
            parameter.copy_(6.5 + 0.3 * noise if name.split(".")[-1] == "p" else noise * (2 / fan) ** 0.5)
    return model


def network(preset: str = "gait3d", seed: int = 0, older: bool = False, width: int = WIDTH) -> OpenGaitHSTL:
    """A narrow network in the style of OpenGait, with the weights of ours."""
    model = OpenGaitHSTL(preset, width, older=older)
    model.load_state_dict(narrow_model(preset, seed, divisor=width).official_state_dict())
    return model


def silhouettes(frames: int = 4, seed: int = 0) -> Tensor:
    """Two clips [2, 1, frames, 64, 44] in 0..1."""
    return torch.stack([walkers(frames, 2 * seed), walkers(frames, 2 * seed + 1)])[:, None] / 255


def results(model: nn.Module, sils: Tensor, forward: Callable[..., Any] | None = None) -> list[Tensor]:
    """Embeddings, logits, and the gradients of a fixed direction of both."""
    model.zero_grad()
    outputs = (model if forward is None else forward)(sils)
    generator = torch.Generator().manual_seed(5)
    loss = sum((torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) * y).sum() for y in outputs)
    assert isinstance(loss, Tensor)
    loss.backward()
    return [y.detach() for y in outputs] + [p.grad.clone() for p in model.parameters() if p.grad is not None]


def worst(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest distance of a tensor from its counterpart, relative to its norm."""
    pairs = zip(got, expected, strict=True)
    return max(float((a.double() - b.double()).detach().norm() / b.detach().double().norm()) for a, b in pairs)


def of_outputs(run: list[Tensor], reference: list[Tensor]) -> float:
    """The largest error of the outputs of `results`."""
    return worst(run[:2], reference[:2])


def of_gradients(run: list[Tensor], reference: list[Tensor]) -> float:
    """The largest error of the gradients of `results`."""
    return worst(run[2:], reference[2:])


def stage(c_in: int, c_out: int, slope: float = 0.01, **options: Any) -> nn.Sequential:
    """A plain stage of one convolution."""
    return nn.Sequential(BareConv3d(c_in, c_out, **options), nn.LeakyReLU(slope, inplace=True))


# Each layer has a function that builds it and the shape of its input.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "plain stage": (lambda: stage(3, 5), (2, 3, 5, 7, 6)),
    "ARME": (lambda: RegionConv(6, 5, [4, 1, 2]), (2, 6, 5, 7, 6)),
    "ASTP": (lambda: RegionPool(6, 9, [4, 1, 2]), (2, 6, 5, 7, 6)),
    "ASTP without projection": (lambda: RegionPool(6, 6, [4, 1, 2], flag=False), (2, 6, 5, 7, 6)),
    "FTA": (lambda: FrameAggregation(6, [4, 1, 2]), (2, 6, 8, 7, 6)),
    "strip pool": (lambda: PowerPool([7]), (2, 6, 14, 6)),
    "global-local": (lambda: GlobalLocal(6, 5, 1), (2, 6, 3, 4, 3)),
    "global-local, one below the other": (lambda: GlobalLocal(6, 5, 2, fm_sign=True), (2, 6, 3, 4, 3)),
    "global-local, an activated sum": (lambda: ActivatedSum(6, 5, 0), (2, 6, 3, 4, 3)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def layer(name: str, seed: int = 0) -> tuple[nn.Module, list[Any]]:
    """A layer of this name with random parameters, and an input without ties."""
    build, shape = LAYERS[name]
    size = torch.Size(shape).numel()
    x = torch.randperm(size, generator=torch.Generator().manual_seed(seed)).view(shape) / size * 2 - 0.8
    return randomised(build(), seed), [x, None] if name.startswith("ASTP") else [x]


def layer_results(module: nn.Module, x: Tensor, *others: Any) -> list[Tensor]:
    """The layer's output, and the gradients of its input and of all of its parameters."""
    x = x.clone().requires_grad_()
    y = module(x, *others)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(y)
    gx, *gradients = torch.autograd.grad(y, [x, *module.parameters()], direction)
    return [y.detach(), gx, torch.cat([g.flatten() for g in gradients])]


def edited(name: str, change: Callable[[Any], Any]) -> nn.Module:
    """A layer of this name, changed in place; or the module that the change returns."""
    module, _ = layer(name)
    changed = change(module)
    return changed if isinstance(changed, nn.Module) else module


def set_to(path: str, value: Any) -> Callable[[Any], None]:
    """A change that sets the attribute, or the entry of a list, at a dotted path."""
    *owners, name = path.split(".")

    def change(module: Any) -> None:
        for owner in owners:
            module = module[int(owner)] if owner.isdigit() else getattr(module, owner)
        if name.isdigit():
            module[int(name)] = value
        else:
            setattr(module, name, value)

    return change


def remade(kind: type[RegionConv]) -> Callable[[Any], nn.Module]:
    """A change that puts an ARME layer of another class in place of a layer."""
    return lambda module: randomised(kind(6, 5, [4, 1, 2]))


def assert_left_alone(name: str, change: Callable[[Any], Any], reason: str) -> None:
    """Assert that a changed layer is left alone for this reason, and a good one beside it is replaced."""
    module = edited(name, change)
    before = [vars(m).copy() for m in module.modules()]
    parts = nn.ModuleDict({"odd": module, "good": stage(1, 2)})
    report = accelerate(parts)
    assert [layer.name for layer in report.replaced if not layer.name.startswith("odd.")] == ["good"]
    odd = report.left_alone[0]
    assert (odd.name, odd.kind) == ("odd", name)
    assert reason in odd.reason
    assert re.search(rf"^odd +{name} +left alone  .*{re.escape(reason)}", str(report), re.MULTILINE)
    kept = [module] if name == "ASTP" else list(module.modules())
    assert [vars(m) for m in kept] == before[: len(kept)]
    report.undo()
    assert not any("forward" in vars(m) for m in parts["good"].modules())
