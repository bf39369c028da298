"""The figures of the demo are those of the embeddings."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import hstl_fast
import hstl_fast.info
from hstl_fast import HSTL
from hstl_fast.demo import runs, scene
from hstl_fast.evaluation import part_distances
from hstl_fast.network import Network
from hstl_fast.silhouettes import walkers
from tests.demo.helpers import FRAMES, Page, Run
from tests.helpers.networks import narrow_model

PROBES = {"another take": ("nm", 2, 90), "another view": ("nm", 2, 54), "with a bag": ("bg", 1, 90)}


PROBES |= {"in a coat": ("cl", 1, 90)}


def test_footage_and_a_path_that_leaves_nothing_out_are_not_called_thin(demo_run: Run) -> None:
    findings = demo_run.findings
    assert findings.left_out.endswith("can be left out.")
    assert replace(findings, scene=replace(findings.scene, likeness="")).left_out.endswith("pixels are body.")
    assert replace(findings, backend="reference").left_out == ""


def embedded(network: Network, person: int, condition: str, take: int, view: int) -> torch.Tensor:
    clip = walkers.render(person, view=float(view), condition=condition, take=take, frames=FRAMES)
    return network.model.embed([clip])


def test_printed_and_reported_distances_are_those_of_the_embeddings(demo_run: Run, network: Network) -> None:
    gallery = torch.cat([embedded(network, person, "nm", 1, 90) for person in (1, 2, 3)])
    titles = [attributes.get("title") for _, attributes in Page(demo_run.html).tags]
    answers: dict[str, list[bool]] = {kind: [] for kind in PROBES}
    for person in (1, 2, 3):
        for kind, walk in PROBES.items():
            (distances,) = part_distances(embedded(network, person, *walk), gallery).tolist()
            nearest = 1 + int(np.argmin(distances))
            name = f"walker{person}/{walk[0]}-{walk[1]:02d}/{walk[2]:03d}"
            right = "right" if nearest == person else "wrong"
            answers[kind].append(nearest == person)
            row = [*kind.split(), name, f"walker{nearest}/nm-01/090", f"{min(distances):.6f}", right]
            assert row in [line.split() for line in demo_run.result.stdout.splitlines()]
            for other, distance in enumerate(distances, 1):
                assert f"{name} to walker{other}/nm-01/090: {distance:.6f}" in titles
    rights = sum(sum(found) for found in answers.values())
    by_kind = [f"{kind} {sum(answers[kind])} of 3" for kind in PROBES]
    assert f"rank-1: {rights} of 12 ({'; '.join(by_kind)})" in demo_run.result.stdout
    assert f"<b>{rights} of 12</b>" in demo_run.html


def test_agreement_is_the_largest_difference(demo_run: Run, network: Network) -> None:
    clips = [walk.clip for walk in demo_run.findings.scene.walks]
    fast = torch.cat([network.model.embed([clip]) for clip in clips])
    with hstl_fast.use_backend("reference"):
        plain = torch.cat([network.model.embed([clip]) for clip in clips])
        expected = narrow_copy(network).embed([clips[0]])[0]
    assert demo_run.findings.agreement == float((fast - plain).double().abs().max() / plain.double().abs().max())
    assert demo_run.findings.errors.fast == float((fast[0] - expected).abs().max() / expected.abs().max())
    assert demo_run.findings.errors.reference == float((plain[0] - expected).abs().max() / expected.abs().max())
    off = runs.errors(network.model, demo_run.findings.scene.gallery[0], runs.Paths(0.5 * expected, 2 * expected))
    assert off == pytest.approx((0.5, 1.0))
    assert f"all sequences  {demo_run.findings.agreement:.1e}" in demo_run.result.stdout


def narrow_copy(network: Network) -> HSTL:
    model = narrow_model("casia-b", divisor=32).double()
    model.load_state_dict(network.model.state_dict())
    return model


def test_times_are_interleaved(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(runs, "_embed", lambda model, clip, backend: order.append(backend))
    times = runs.interleaved_times(network.model, scene.rendered(2, 3).gallery[0], "cpu")
    assert order == ["reference", "cpu"] * runs.ROUNDS
    assert len(times.reference) == len(times.fast) == runs.ROUNDS


def test_parts_alone() -> None:
    torch.manual_seed(0)
    gallery = torch.randn(4, 3, 5)
    probes = gallery.clone()
    probes[2:, 1] = gallery[[0, 1], 1]  # in part 1, two of four look like another person
    same = torch.eye(4, dtype=torch.bool)
    assert runs.rank_one_by_part(probes, gallery, same) == [1.0, 0.5, 1.0]
