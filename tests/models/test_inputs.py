"""What a network is given, where it is unusual."""

import pytest
import torch
from torch import nn

from hstl_fast import HSTL, functional
from hstl_fast.backends.cpu.algorithm import TRAINING_TILES
from tests.helpers.networks import narrow_model, walkers


def test_sparse_silhouettes_are_refused_by_name() -> None:
    model = narrow_model("casia-b", divisor=16).eval()
    with pytest.raises(TypeError, match=r"silhouettes must be a dense tensor, got torch.sparse_coo"):
        model(walkers(4)[None].to_sparse())
    with pytest.raises(TypeError, match=r"clips\[1\] must be a dense tensor"):
        model.embed([walkers(4), walkers(4).to_sparse()])


@pytest.mark.parametrize("grad", [False, True])
def test_a_negated_view_is_read_negated(grad: bool) -> None:
    """The imaginary part of a conjugate is a view whose memory has the other sign."""
    model = narrow_model("casia-b", divisor=16).eval()
    clip = walkers(4)[None] / 255
    view = torch.complex(torch.zeros_like(clip), -clip).conj().imag
    assert view.is_neg()
    with torch.set_grad_enabled(grad):
        assert torch.equal(model(view).embeddings, model(clip).embeddings)
    assert torch.equal(model.embed([view[0]]), model.embed([clip[0]]))


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.channels_last_3d, torch.contiguous_format])
def test_a_memory_format_changes_nothing(memory_format: torch.memory_format) -> None:
    model = narrow_model("casia-b", divisor=16).eval()
    before = model.embed([walkers(4)])
    assert model.to(memory_format=memory_format) is model
    assert torch.equal(model.embed([walkers(4)]), before)
    assert nn.Sequential(model.double())[0].parts.weight.dtype == torch.float64


@pytest.mark.parametrize("wrong", [0.0, float("inf"), float("nan")])
def test_powers_without_a_mean_are_refused(wrong: float) -> None:
    x, p = torch.rand(1, 3, 4, 6, 5), torch.tensor([6.5, wrong])
    with pytest.raises(ValueError, match=rf"p must hold exponents that are finite and not 0, got {wrong}"):
        functional.astp(x, None, p, [4, 2])
    with pytest.raises(ValueError, match="p must hold exponents"):
        functional.strip_pool(x, p[1:], 3)
    model = narrow_model("casia-b", divisor=16).eval()
    with torch.no_grad():
        model.strips.p.fill_(wrong)
    with pytest.raises(ValueError, match="p must hold exponents"):
        model.embed([walkers(4)])


def frames_of_tiles(monkeypatch: pytest.MonkeyPatch, model: HSTL) -> list[tuple[int, ...]]:
    """The Winograd tiles that the layers of one forward pass choose from."""
    from hstl_fast.backends.cpu import arme

    seen: list[tuple[int, ...]] = []
    resolve = arme.resolve

    def noting(*arguments: object) -> int:
        seen.append(arguments[-1])  # type: ignore[arg-type]
        return resolve(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(arme, "resolve", noting)
        model(walkers(6)[None])
    return seen


def test_tiles_follow_from_whether_a_gradient_flows(native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frozen convolutions behind a trained one round as in training: their maxima decide where its gradient goes."""
    model = narrow_model("casia-b", divisor=4)
    convolutions = [*model.stem, *(layer for stage in model.stages for layer in stage)]
    for layer in convolutions[1:]:
        layer.requires_grad_(False)
    assert set(frames_of_tiles(monkeypatch, model)) == {TRAINING_TILES}
    for layer in convolutions[:3]:
        layer.requires_grad_(False)
    convolutions[3].requires_grad_(True)
    tiles = frames_of_tiles(monkeypatch, model)
    assert [choices == TRAINING_TILES for choices in tiles] == [False, False, False, True, True]
