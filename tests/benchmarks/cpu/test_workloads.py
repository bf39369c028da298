"""Workloads cover every operator, use real silhouettes and know their float64 reference."""

import pytest
import torch

from benchmarks.core.correctness import Bounds, errors
from benchmarks.core.names import IN_CLIPS, OURS, PEOPLE, WALKERS
from benchmarks.cpu import workloads
from benchmarks.cpu.compare import float64_reference
from benchmarks.cpu.implementations import (
    NETWORKS,
)
from hstl_fast import use_backend
from tests.benchmarks.cpu.helpers import EAGER, OURSELVES
from tests.golden import recipe
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers


def test_every_operator_and_width_is_measured() -> None:
    measured = {(layer.kind, layer.c_in, layer.c_out) for _, layer in workloads.operator_widths()}
    widths = {(c_in, c_out) for kind, c_in, c_out in measured if kind == "arme"}
    assert widths == {(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)}
    assert {kind for kind, _, _ in measured} == {"arme", "astp", "strip_pool", "fta"}
    assert len(workloads.operator_layers()) == len({layer[1:] for _, layer in workloads.operator_layers()})


@pytest.mark.parametrize(
    "preset", [pytest.param(name, marks=[pytest.mark.slow] * (name != "casia-b")) for name in recipe.PRESETS]
)
def test_the_float64_reference_is_the_golden_data(preset: str) -> None:
    golden = recipe.load(preset)
    model = recipe.model(preset).eval()
    lengths = (3, 5)
    clips = [torch.tensor(golden["silhouettes"][0, :t]) for t in lengths]
    embeddings = float64_reference(workloads.embedding(preset)._replace(network=model, inputs=clips)).outputs[0]
    for row, t in zip(embeddings, lengths, strict=True):
        embedding = torch.tensor(golden[f"eval_embeddings_T{t}"]).view(row.shape).double()
        assert (row - embedding).abs().max() <= 2e-6 * embedding.abs().max()


def test_a_training_step_of_ours_gives_the_float64_reference() -> None:
    workload = workloads.training_step("casia-b")._replace(
        network=narrow_model("casia-b", dtype=torch.float64, divisor=8)
    )
    workload = workload._replace(inputs=[workload.inputs[0][:, :6], workload.inputs[1]])
    with use_backend("cpu"):
        answer = workload.step(OURSELVES.prepare(workload.network, True), workload.inputs)
    assert len(answer.gradients) == len(list(workload.network.parameters()))
    assert errors(answer, float64_reference(workload)).fault(Bounds(1e-8, 1e-6)) is None


@pytest.mark.parametrize("source", workloads.SOURCES)
def test_silhouettes_are_real_or_rendered_people(source: str) -> None:
    clips = workloads.embedding("casia-b", workloads.RAGGED, source).inputs
    assert [tuple(clip.shape) for clip in clips] == [(t, 64, 44) for t in workloads.RAGGED]
    for clip in clips:
        assert clip.dtype == torch.uint8
        assert 0.15 < (clip > 0).float().mean() < 0.6
        assert (clip[1:] != clip[:-1]).any((1, 2)).all()
        assert not torch.equal(clip[:12], clips[0]) or clip is clips[0]


def test_silhouettes_of_an_unknown_source_are_refused() -> None:
    with pytest.raises(ValueError, match="silhouettes must be one of people, walkers, got 'wlakers'"):
        workloads.embedding("casia-b", source="wlakers")


def test_a_gallery_has_as_many_frames_in_clips_of_30(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (len(workloads.MANY), min(workloads.MANY), max(workloads.MANY)) == (64, 15, 120)
    assert sum(workloads.MANY) % workloads.FRAMES == 0
    monkeypatch.setattr(workloads, "MANY", (3, 6, 6, 4, 3, 3, 5, 6, 4, 20))
    workload = workloads.gallery("casia-b", PEOPLE)
    ours, in_clips = workload.implementations
    assert (ours.name, ours.inputs, in_clips.name) == (OURS, None, IN_CLIPS)
    assert in_clips.inputs is not None
    assert [len(clip) for clip in in_clips.inputs] == [30, 30]
    assert [len(clip) for clip in workload.inputs] == list(workloads.MANY)
    assert (workload.clips, workload.frames) == (10, 60)
    assert workload.name == "casia-b, 10 of 3 to 20 frames, people"


def test_of_a_gallery_some_sequences_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [walkers(t) for t in (3, 4, 5)]
    monkeypatch.setattr(workloads, "MANY", (30,))
    workload = workloads.gallery("casia-b", PEOPLE)._replace(network=narrow_model("casia-b"), inputs=clips * 9)
    answer = workload.step(OURSELVES.prepare(workload.network, False), workload.inputs)
    assert answer.outputs[0].shape[0] == 2
    assert errors(answer, float64_reference(workload)).fault(Bounds(5e-5)) is None
    spoilt_inputs = [*clips * 8, clips[1], *clips[1:]]  # the 25th, which is compared, is another
    wrong = workload.step(OURSELVES.prepare(workload.network, False), spoilt_inputs)
    assert errors(wrong, float64_reference(workload)).fault(Bounds(5e-5)) is not None


def test_clips_of_one_length_go_together_and_come_back_in_order() -> None:
    workload = workloads.embedding("casia-b", (5, 4, 5))._replace(network=narrow_model("casia-b"))
    network, sizes = EAGER.prepare(workload.network, False), []
    network.register_forward_pre_hook(lambda module, inputs: sizes.append(inputs[0].shape[:2]))
    embeddings = workload.step(network, workload.inputs).outputs[0]
    assert sizes == [(2, 5), (1, 4)]
    for clip, embedding in zip(workload.inputs, embeddings, strict=True):
        assert distance(network(clip[None])[0][0], embedding) <= rounding(torch.float32, NETWORK)


def test_goals_ask_for_the_memory_of_training_alone() -> None:
    step = workloads.training_step("casia-b")._replace(memory=("training_step", "casia-b", PEOPLE))
    kept = workloads.for_goals(step)
    assert kept.memory == step.memory
    assert [(each.name, each.dtype) for each in kept.implementations] == [
        (name, "float32") for name in ("eager", "torch.compile", OURS)
    ]
    embedding = workloads.embedding("casia-b")._replace(memory=("embedding", "casia-b", PEOPLE, "30"), divided=True)
    assert workloads.for_goals(embedding) == embedding._replace(memory=None, divided=False)


def test_a_workload_of_a_network_names_its_work() -> None:
    workload = workloads.embedding("casia-b", (12, 30, 57))
    assert (workload.name, workload.group) == ("casia-b, 12 + 30 + 57 frames, people", "throughput")
    assert (workload.clips, workload.frames, workload.silhouettes) == (3, 99, PEOPLE)
    assert workloads.embedding("casia-b", (30,) * 8, WALKERS).name == "casia-b, 8 x 30 frames, walkers"
    step = workloads.training_step("casia-b", WALKERS)
    assert (step.clips, step.frames, step.implementations, step.silhouettes) == (4, 120, NETWORKS, WALKERS)
    assert step.products.inside is not None
    assert 0.5 < step.products.inside / step.products.dense < 0.8
