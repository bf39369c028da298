"""Batches: people and sequences of a training step, and sequences of different lengths that are embedded together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler


class Pick(NamedTuple):
    """One use of a sequence in a training.

    Attributes:
        sequence: Number of the sequence.
        key: Seed, step and place in the step's batch; all random numbers of this use follow from it.
    """

    sequence: int
    key: tuple[int, int, int]

    def generator(self) -> np.random.Generator:
        """Make the source of random numbers of this use.

        Returns:
            A generator; equal picks get equal numbers, in whichever process.
        """
        seed, step, place = self.key
        # A generator of its own place in one stream takes half the time of one that is seeded.
        return np.random.Generator(np.random.Philox(key=seed, counter=[0, place, step, 0]))


class IdentityBalancedSampler(Sampler[list[Pick]]):
    """Batches of P people with K sequences each.

    The batch of a step, over all processes together, follows from the seed and the number of the step alone. Process r
    of n takes the r-th n-th of it, in order, so that a person stands in one process where n divides P.

    A person with fewer than K sequences gives some of them more than once, each as often as the others, give or take
    one. The people of a step are different ones; each is as likely as any other.

    Args:
        labels: The person of each sequence.
        people: People in a batch (P), 2 or more.
        sequences: Sequences of each of them (K), 1 or more.
        seed: Seed of all random numbers, 0 to 2**64 - 1.
        steps: Number of the last step, exclusive.
        first_step: Number of the first step; a training that goes on begins where it stopped.
        rank: Number of this process.
        processes: Number of processes.

    Raises:
        ValueError: There are fewer people in the data than in a batch, the batch cannot be divided among the processes,
            or a number is out of range.
    """

    def __init__(
        self,
        labels: Sequence[str],
        people: int,
        sequences: int,
        *,
        seed: int,
        steps: int,
        first_step: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        names, owners = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
        _check_batch(len(names), people, sequences)
        _check_range(seed, steps, first_step)
        _check_processes(people * sequences, rank, processes)
        order = np.argsort(owners, kind="stable")
        self._of_person = np.split(order, np.cumsum(np.bincount(owners, minlength=len(names)))[:-1])
        self.people, self.sequences = people, sequences
        self.seed, self.steps, self.first_step = seed, steps, first_step
        self.rank, self.processes = rank, processes

    def batch(self, step: int) -> list[Pick]:
        """Choose the batch of a step, over all processes together.

        Args:
            step: Number of the step, 0 or more.

        Returns:
            P times K picks; those of a person stand beside one another.
        """
        generator = np.random.default_rng((self.seed, step))
        chosen = generator.permutation(len(self._of_person))[: self.people]
        sequences = [sequence for person in chosen for sequence in self._sequences_of(person, generator)]
        return [Pick(sequence, (self.seed, step, place)) for place, sequence in enumerate(sequences)]

    def __iter__(self) -> Iterator[list[Pick]]:
        share = self.people * self.sequences // self.processes
        for step in range(self.first_step, self.steps):
            yield self.batch(step)[self.rank * share : (self.rank + 1) * share]

    def __len__(self) -> int:
        return max(0, self.steps - self.first_step)

    def _sequences_of(self, person: int, generator: np.random.Generator) -> list[int]:
        owned = self._of_person[person]
        rounds = -(-self.sequences // len(owned))
        chosen = np.concatenate([generator.permutation(owned) for _ in range(rounds)])[: self.sequences]
        return [int(sequence) for sequence in chosen]


def ragged_batches(lengths: Sequence[int], max_frames: int, max_sequences: int | None = None) -> list[list[int]]:
    """Divide sequences of different lengths into batches of similar lengths, for evaluation.

    Args:
        lengths: Frames of each sequence.
        max_frames: Most frames of a batch; a longer sequence is a batch of its own.
        max_sequences: Most sequences of a batch; None for any number.

    Returns:
        Numbers of the sequences of each batch, the longest sequences first, equal lengths in their order; every
        sequence is in one batch.

    Raises:
        ValueError: A limit is below 1.
    """
    if max_frames < 1 or (max_sequences is not None and max_sequences < 1):
        raise ValueError(f"max_frames and max_sequences must be at least 1; got {max_frames} and {max_sequences}")
    batches: list[list[int]] = []
    frames = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        is_full = bool(batches) and (frames + lengths[index] > max_frames or len(batches[-1]) == max_sequences)
        if not batches or is_full:
            batches.append([])
            frames = 0
        batches[-1].append(index)
        frames += lengths[index]
    return batches


def _check_batch(available: int, people: int, sequences: int) -> None:
    if people < 2 or sequences < 1:
        raise ValueError(f"people must be at least 2 and sequences at least 1; got {people} and {sequences}")
    if available < people:
        raise ValueError(f"people must be at most the number of people in the data, {available}; got {people}")


def _check_range(seed: int, steps: int, first_step: int) -> None:
    if not 0 <= seed < 2**64 or not 0 <= first_step <= steps:
        raise ValueError(
            "seed must be in 0..2**64 - 1 and first_step in 0..steps; "
            f"got seed {seed}, first_step {first_step}, steps {steps}"
        )


def _check_processes(batch: int, rank: int, processes: int) -> None:
    if not 0 <= rank < processes:
        raise ValueError(f"rank must be in 0..processes - 1; got rank {rank} of {processes} processes")
    if batch % processes:
        raise ValueError(f"people times sequences must be a multiple of processes; got {batch} and {processes}")
