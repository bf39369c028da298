"""The norm of a network: the same module decides in training and in evaluation, whatever it is."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL
from tests.helpers.networks import narrow_model, walkers

CLIPS = [walkers(6), walkers(4, 1)]


def by_module(model: HSTL) -> Tensor:
    """Embeddings in evaluation mode, set on the model itself and computed layer by layer."""
    before = model.training
    model.eval()
    try:
        with torch.enable_grad():
            return torch.cat([model(clip[None]).embeddings.detach() for clip in CLIPS])
    finally:
        model.train(before)


class Scaled(nn.BatchNorm1d):
    """A norm with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)


class Transposed(nn.Module):
    """Layer norm over the channels of `[n, c, p]`."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.transpose(1, 2)).transpose(1, 2)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "without affine": lambda c: nn.BatchNorm1d(c, affine=False),
    "without statistics": lambda c: nn.BatchNorm1d(c, track_running_stats=False),
    "of another class": Scaled,
    "identity": lambda c: nn.Identity(),
    "layer norm": Transposed,
    "with dropout": lambda c: nn.Sequential(nn.BatchNorm1d(c), nn.Dropout(0.5)),
    "synchronised": nn.SyncBatchNorm,
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("norm", NORMS)
def test_any_norm_is_the_one_that_embeds(norm: str, training: bool) -> None:
    model = narrow_model("casia-b", divisor=16).train(training)
    model.norm = NORMS[norm](model.config.channels).train(training)
    found = model.embed(CLIPS) if norm != "without statistics" else torch.cat([model.embed([clip]) for clip in CLIPS])
    expected = by_module(model)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert model.training is training
    assert all(module.training is training for module in model.norm.modules())


@pytest.mark.parametrize("training", [False, True])
def test_hooks_on_the_norm_are_called_when_embedding(training: bool) -> None:
    model = narrow_model("casia-b", divisor=16).train(training)
    before = model.embed(CLIPS)
    handle = model.norm.register_forward_hook(lambda module, inputs, y: 2 * y)
    assert (model.embed(CLIPS) - 2 * before).abs().max() <= 1e-5 * before.abs().max()
    handle.remove()
    assert torch.equal(model.embed(CLIPS), before)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 2


@pytest.mark.parametrize("inside", [False, True])
def test_a_parametrized_norm_embeds(inside: bool) -> None:
    model = narrow_model("casia-b", divisor=16)
    nn.utils.parametrize.register_parametrization(model.norm, "weight", Half())
    if inside:
        model.norm = nn.Sequential(model.norm)
    found = model.train().embed(CLIPS)
    assert model.norm.training
    assert torch.equal(found, model.eval().embed(CLIPS))


@pytest.mark.parametrize("inside", [False, True])
def test_a_forward_on_the_instance_is_not_called_in_training_mode(inside: bool) -> None:
    """A copy in evaluation mode would call the original, which is in training mode."""
    model = narrow_model("casia-b", divisor=16)
    forward, statistics = model.norm.forward, model.norm.running_mean.clone()
    model.norm.forward = lambda x: 2 * forward(x)  # type: ignore[method-assign]
    norm = model.norm
    if inside:
        model.norm = nn.Sequential(norm)
    with pytest.raises(RuntimeError, match="norm must have no forward or bound method on the instance"):
        model.train().embed(CLIPS)
    assert torch.equal(norm.running_mean, statistics)
    doubled = model.eval().embed(CLIPS)
    del norm.forward
    assert (doubled - 2 * model.embed(CLIPS)).abs().max() <= 1e-5 * doubled.abs().max()


def test_a_norm_that_changes_the_shape_is_refused() -> None:
    model = narrow_model("casia-b", divisor=16).eval()
    model.norm = nn.Flatten()
    with pytest.raises(TypeError, match=r"norm must map \[N, C, P\] to the same shape, .* of Flatten"):
        model.embed(CLIPS)


def test_a_model_with_another_norm_has_no_released_form() -> None:
    model = narrow_model("casia-b", divisor=16)
    released = model.official_state_dict()
    model.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"lacks norm\.weight"):
        model.official_state_dict()
    with pytest.raises(ValueError, match=r"lacks norm\.weight"):
        model.load_official_state_dict(released)
