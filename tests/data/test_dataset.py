"""Data sets and loaders."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast.data import (
    Augmentation,
    EvaluationData,
    IdentityBalancedSampler,
    Item,
    Pick,
    Sequences,
    TrainingData,
    Window,
    Workers,
    choose_frames,
    evaluation_loader,
    training_loader,
)
from hstl_fast.silhouettes import SilhouetteError
from hstl_fast.silhouettes.io import Reading

LENGTHS = (40, 12, 33, 30, 50, 3, 31, 45)


class Numbered(Sequences):
    """Sequences whose pixels tell sequence, frame, row and column."""

    def __init__(self) -> None:
        super().__init__([Item(f"p{i // 2}", str(i), "", f"p{i // 2}/{i}") for i in range(len(LENGTHS))], "", "folders")

    def reading(self, index: int) -> Reading:
        t, h, w = np.ogrid[: LENGTHS[index], :64, :64]
        return Reading(((index * 31 + t * 7 + h * 3 + w * 5) % 256).astype(np.uint8))


class Broken(Numbered):
    def reading(self, index: int) -> Reading:
        raise SilhouetteError(f"{self.names[index]}: expected a sequence, got a damaged file")


def loaded(workers: Workers, rank: int = 0, processes: int = 1) -> list[tuple[torch.Tensor, ...]]:
    data = TrainingData(Numbered(), Window(30, 34), Augmentation(flip=0.5))
    batches = IdentityBalancedSampler(data.sequences.labels, 2, 2, seed=3, steps=4, rank=rank, processes=processes)
    return [tuple(tensor.clone() for tensor in batch) for batch in training_loader(data, batches, workers)]


def test_windows_are_the_frames_that_the_pick_chooses() -> None:
    data = TrainingData(Numbered(), Window(30, 34))
    picks = [Pick(4, (1, 2, 3)), Pick(5, (1, 2, 4))]
    batch = data.__getitems__(picks)
    assert batch.silhouettes.shape == (2, 30, 64, 44)
    assert batch.silhouettes.dtype == torch.uint8
    for row, pick in zip(batch.silhouettes, picks):
        frames = choose_frames(LENGTHS[pick.sequence], Window(30, 34), pick.generator())
        assert np.array_equal(row, data.sequences.read(pick.sequence)[frames][:, :, 10:54])


def test_people_are_numbered_in_the_order_of_their_names() -> None:
    data = TrainingData(Numbered(), Window())
    assert data.classes == ("p0", "p1", "p2", "p3")
    batch = data.__getitems__([Pick(i, (0, 0, i)) for i in (7, 0, 3)])
    assert batch.targets.tolist() == [3, 0, 1]
    assert batch.indices.tolist() == [7, 0, 3]


@pytest.mark.parametrize(
    "start", ["fork", pytest.param("spawn", marks=pytest.mark.slow), pytest.param("forkserver", marks=pytest.mark.slow)]
)
def test_batches_do_not_depend_on_the_workers(start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.getenv("PYTHONPATH", "")]))
    for alone, by_workers in zip(loaded(Workers(0)), loaded(Workers(2, start)), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(alone, by_workers, strict=True))


def test_batches_do_not_depend_on_the_number_of_processes() -> None:
    shares = zip(*(loaded(Workers(0), rank, 2) for rank in range(2)))
    for alone, share in zip(loaded(Workers(0)), shares, strict=True):
        assert torch.equal(alone[0], torch.cat([part[0] for part in share]))


@pytest.mark.parametrize("count", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_unreadable_sequence_is_named(count: int) -> None:
    data = TrainingData(Broken(), Window())
    batches = IdentityBalancedSampler(data.sequences.labels, 2, 1, seed=0, steps=1)
    with pytest.raises(SilhouetteError, match="expected a sequence, got a damaged file"):
        next(iter(training_loader(data, batches, Workers(count, "fork" if count else None))))


def test_evaluation_batches_hold_whole_sequences() -> None:
    sequences = Numbered()
    seen: dict[int, np.ndarray] = {}
    for batch in evaluation_loader(EvaluationData(sequences), [[4, 0], [5], [1, 2, 3, 6, 7]], Workers(0)):
        assert batch.silhouettes.shape == (1, sum(batch.seq_lens), 64, 44)
        seen |= zip(batch.indices, batch.silhouettes[0].split(batch.seq_lens))
    assert sorted(seen) == list(range(8))
    for index, clip in seen.items():
        assert np.array_equal(clip, sequences.read(index)[:, :, 10:54])


def test_evaluation_takes_the_first_frames_of_long_sequences() -> None:
    (batch,) = evaluation_loader(EvaluationData(Numbered(), max_frames=10), workers=Workers(0))
    assert sorted(batch.seq_lens) == [3, *[10] * 7]
    first = batch.silhouettes[0].split(batch.seq_lens)[batch.indices.index(2)]
    assert np.array_equal(first, Numbered().read(2)[:10, :, 10:54])


def test_no_frames_to_evaluate() -> None:
    with pytest.raises(ValueError, match="max_frames must be at least 1, or None for all; got 0"):
        EvaluationData(Numbered(), max_frames=0)


def test_a_window_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="got 31 frames in a stretch of 30"):
        TrainingData(Numbered(), Window(31, 30))
