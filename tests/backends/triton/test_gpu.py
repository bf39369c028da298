"""Triton's kernels on a GPU: nothing waits for it, and repeated runs agree bit for bit."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hstl_fast import HSTL, losses, use_backend
from hstl_fast.ops import _dispatch
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers

REASON = _dispatch.why_not("arme", "triton", "cuda", torch.float32)
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.fixture(autouse=True)
def triton() -> Iterator[None]:
    with use_backend("triton"):
        yield


def _step(model: HSTL, silhouettes: Tensor, lens: list[int] | None, labels: Tensor) -> list[Tensor]:
    """Gradients after a step of training under float16 autocast, scaled."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cuda", torch.float16):
        embeddings, logits = model(silhouettes, lens)
        loss = losses.triplet_loss(embeddings, labels) + losses.cross_entropy(logits, labels)
    (loss * 256).backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


def _batch(lens: list[int]) -> tuple[Tensor, Tensor]:
    clips = [walkers(t, seed) for seed, t in enumerate(lens)]
    return torch.cat(clips)[None].cuda(), torch.arange(len(lens)).cuda() // 2


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_a_training_step_does_not_wait_for_the_device(preset: str) -> None:
    model, lens = narrow_model(preset).cuda().train(), [5, 7, 4, 6]
    batch = _batch(lens)
    _step(model, batch[0], lens, batch[1])
    torch.cuda.set_sync_debug_mode("error")
    try:
        _step(model, batch[0], lens, batch[1])
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_embedding_again_does_not_wait_for_the_device() -> None:
    model, clips = narrow_model("casia-b").cuda().eval(), [walkers(t, t) for t in (5, 7, 1, 30)]
    expected = model.embed(clips)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = model.embed(clips)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found, expected)


def test_graphs_embed_with_the_weights_of_the_day() -> None:
    model, clips = narrow_model("casia-b").cuda().eval(), [walkers(9), walkers(12, 1)]
    before = model.embed(clips)
    with torch.no_grad():
        model.parts.weight.mul_(2)
    changed = model.embed(clips)
    assert not torch.equal(before, changed)
    assert torch.equal(changed, copy.deepcopy(model).embed(clips))
    assert distance(changed[:1], model.embed(clips[:1])) <= rounding(torch.float32, NETWORK)


def test_streams_take_turns_with_a_graph() -> None:
    model, clips = narrow_model("casia-b").cuda().eval(), [[walkers(9 + i, i)] for i in range(6)]
    expected = [model.embed(clip) for clip in clips]
    streams = [torch.cuda.Stream() for _ in range(3)]
    found = []
    for i, clip in enumerate(clips):
        with torch.cuda.stream(streams[i % 3]):
            found.append(model.embed(clip))
    torch.cuda.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_steps_repeat_bit_for_bit() -> None:
    model, lens = narrow_model("casia-b").cuda().train(), [5, 7, 4, 6]
    batch = _batch(lens)
    first = [g.clone() for g in _step(model, batch[0], lens, batch[1])]
    for _ in range(3):
        again = _step(model, batch[0], lens, batch[1])
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_float16_stays_finite_on_background() -> None:
    model, lens = narrow_model("casia-b").cuda().train(), [5, 7, 4, 6]
    silhouettes, labels = _batch(lens)
    assert all(g.isfinite().all() for g in _step(model, torch.zeros_like(silhouettes), lens, labels))
