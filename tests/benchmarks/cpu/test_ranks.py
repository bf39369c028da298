"""Rank changes are counted against float64, and an answer that finds someone else is wrong."""

import pytest
import torch
from torch import Tensor

from benchmarks.core.names import WALKERS
from benchmarks.cpu import workloads
from benchmarks.cpu.implementations import SEARCHING, Implementation
from benchmarks.cpu.ranks import RankChanges, Search, nearest, rank_changes
from benchmarks.cpu.workloads import Workload
from tests.benchmarks.cpu.helpers import EAGER, OURSELVES, Spoilt, compared, small_workload


def test_the_nearest_is_so_by_the_mean_distance_of_the_parts() -> None:
    gallery = torch.tensor([[[0.0], [0.0]], [[3.0], [3.0]], [[0.0], [9.0]]])
    probes = torch.tensor([[[1.0], [1.0]], [[2.0], [2.5]], [[0.0], [6.0]]])
    assert nearest(gallery, probes).tolist() == [0, 1, 2]


def test_changes_are_those_of_the_answers() -> None:
    """Embeddings are numbers on a line; the wrong ones lie mirrored, so that half of the probes find another."""
    search = Search(
        tuple(torch.tensor([x]) for x in (0.0, 4.0)), tuple(torch.tensor([x]) for x in (0.0, 1.0, 3.0, 4.0))
    )

    def right(clips: object) -> Tensor:
        return torch.stack(list(clips))[:, None]  # type: ignore[call-overload]

    def wrong(clips: object) -> Tensor:
        embeddings = right(clips)
        return 4 - embeddings if float(embeddings) in (1.0, 3.0) else embeddings

    expected = nearest(
        torch.cat([right([clip]) for clip in search.gallery]), torch.cat([right([c]) for c in search.probes])
    )
    assert rank_changes(right, expected, search) == (0, 4)
    assert rank_changes(wrong, expected, search) == (2, 4)


@pytest.mark.parametrize(("changed", "wrong"), [(0, False), (12, False), (13, True)])
def test_more_than_half_of_the_answers_changed_is_wrong(changed: int, wrong: bool) -> None:
    fault = RankChanges(changed, 24).fault
    assert (fault is not None) == wrong
    assert fault is None or fault == "13 of 24 rank-1 answers are not those of float64, half allowed"


def searching(*implementations: Implementation) -> Workload:
    """A workload with a search among three feature maps, whose answers stand for embeddings `[1, parts, c]`."""
    workload = small_workload(*implementations)
    torch.manual_seed(1)
    gallery = torch.randn(3, 1, 4, 5, 8, 6)
    probes = gallery + 0.01 * torch.randn_like(gallery)

    def step(network: torch.nn.Module, inputs: object) -> object:
        answer = workload.step(network, inputs)  # type: ignore[arg-type]
        return answer._replace(outputs=[answer.outputs[0].flatten(2)])

    return workload._replace(step=step, search=Search(tuple(gallery), tuple(probes)))  # type: ignore[arg-type]


def test_a_search_is_made_by_those_that_are_ranked() -> None:
    ranked = OURSELVES._replace(ranked=True)
    eager, ours = compared(searching(EAGER, ranked))
    assert eager.ranks is None
    assert ours.ranks == (0, 3)
    assert ours.fault is None
    assert len(ours.seconds) == 2


def test_an_answer_that_finds_another_is_not_timed() -> None:
    """The first answer is right, and is given to everyone after that."""
    answers: list[Tensor] = []

    def first_again(y: Tensor) -> Tensor:
        answers.append(y)
        return answers[0]

    def prepare(network: torch.nn.Module, training: bool) -> torch.nn.Module:
        return Spoilt(network, first_again).requires_grad_(False)

    (row,) = compared(searching(Implementation("spoilt", prepare, ranked=True)))
    assert row.ranks == (2, 3)
    assert row.fault == "2 of 3 rank-1 answers are not those of float64, half allowed"
    assert row.seconds == ()


def test_a_search_that_raises_does_not_stop_the_others() -> None:
    calls: list[int] = []

    def fail_later(y: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("out of luck")
        return y

    def prepare(network: torch.nn.Module, training: bool) -> torch.nn.Module:
        return Spoilt(network, fail_later).requires_grad_(False)

    failing, ours = compared(searching(Implementation("failing", prepare, ranked=True), OURSELVES))
    assert failing.fault == "raised RuntimeError: out of luck"
    assert len(ours.seconds) == 2


def test_walkers_are_searched_by_another_recording() -> None:
    search = workloads.search()
    assert len(search.gallery) == len(search.probes) == workloads.SEARCHED
    assert all(clip.shape == (workloads.FRAMES, 64, 44) for clips in search for clip in clips)
    assert not any(torch.equal(a, b) for a, b in zip(*search, strict=True))
    ranked = {implementation.name for implementation in SEARCHING if implementation.ranked}
    assert {each.name for each in SEARCHING if each.dtype != "float32"} < ranked
    assert workloads.embedding("casia-b", source=WALKERS).search is None
