"""Identity-balanced and ragged batches."""

from collections import Counter

import pytest

from hstl_fast.data import IdentityBalancedSampler, ragged_batches

# Ten people with 1 to 10 sequences.
LABELS = [f"{person:03d}" for person in range(10) for _ in range(person + 1)]


def sampler(**changes: int) -> IdentityBalancedSampler:
    options = {"people": 4, "sequences": 3, "seed": 7, "steps": 50, **changes}
    return IdentityBalancedSampler(LABELS, options.pop("people"), options.pop("sequences"), **options)


def test_batches_have_p_people_with_k_sequences() -> None:
    for batch in sampler():
        people = [LABELS[pick.sequence] for pick in batch]
        assert len(batch) == 12
        assert set(Counter(people).values()) == {3}
        assert people == sorted(people, key=people.index)  # a person's sequences stand beside one another


def test_sequences_are_repeated_only_where_a_person_has_too_few() -> None:
    for batch in sampler():
        for sequence, times in Counter(pick.sequence for pick in batch).items():
            owned = LABELS.count(LABELS[sequence])
            assert times <= -(-3 // owned)


def test_every_person_is_as_likely() -> None:
    seen = Counter(LABELS[pick.sequence] for batch in sampler(steps=2000) for pick in batch[::3])
    # 2000 draws of 4 of 10 people: 800 times each, standard deviation 22
    assert all(abs(seen[label] - 800) < 5 * 22 for label in set(LABELS))


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 12])
def test_global_batches_do_not_depend_on_the_number_of_processes(processes: int) -> None:
    alone = list(sampler(steps=5))
    shares = zip(*(sampler(steps=5, rank=rank, processes=processes) for rank in range(processes)))
    assert [[pick for share in step for pick in share] for step in shares] == alone


def test_a_training_goes_on_where_it_stopped() -> None:
    assert list(sampler(first_step=20)) == list(sampler())[20:]
    assert len(sampler(first_step=20)) == 30


def test_seeds_and_steps_differ() -> None:
    assert list(sampler()) == list(sampler())
    assert list(sampler()) != list(sampler(seed=8))
    first, second, *_ = sampler()
    assert first != second


def test_random_numbers_of_a_pick_follow_from_its_key() -> None:
    first, second = sampler().batch(3)[:2]
    assert first.generator().integers(2**60) == first.generator().integers(2**60) != second.generator().integers(2**60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"people": 11}, "at most the number of people in the data, 10; got 11"),
        ({"people": 1}, "people must be at least 2"),
        ({"sequences": 0}, "sequences at least 1"),
        ({"seed": -1}, r"seed must be in 0\.\.2\*\*64 - 1"),
        ({"seed": 2**64}, r"got seed 18446744073709551616"),
        ({"first_step": 51}, "first_step in 0..steps"),
        ({"processes": 5}, "multiple of processes; got 12 and 5"),
        ({"rank": 2, "processes": 2}, "got rank 2 of 2 processes"),
    ],
)
def test_samplers_that_cannot_be(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(**changes)


def test_ragged_batches_hold_similar_lengths_within_the_limits() -> None:
    lengths = [5, 90, 30, 31, 200, 1, 30, 64]
    batches = ragged_batches(lengths, max_frames=100, max_sequences=3)
    assert sorted(index for batch in batches for index in batch) == list(range(8))
    assert [[lengths[i] for i in batch] for batch in batches] == [[200], [90], [64, 31], [30, 30, 5], [1]]
    assert batches[3][:2] == [2, 6]
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= 100 for batch in batches)


def test_ragged_batches_of_nothing_and_without_limits() -> None:
    assert ragged_batches([], max_frames=10) == []
    with pytest.raises(ValueError, match="at least 1; got 0 and None"):
        ragged_batches([3], max_frames=0)
