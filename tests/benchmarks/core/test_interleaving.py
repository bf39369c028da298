"""Rounds are interleaved, and times summed up."""

import functools

from benchmarks.core import interleaving


def test_every_round_has_everyone_in_another_order() -> None:
    order: list[str] = []
    found = interleaving.interleaved({name: functools.partial(order.append, name) for name in "ABCD"}, rounds=20)
    rounds = ["".join(order[i : i + 4]) for i in range(0, 80, 4)]
    assert all(sorted(each) == ["A", "B", "C", "D"] for each in rounds)
    assert len(set(rounds)) > 5
    assert {each[0] for each in rounds} == {"A", "B", "C", "D"}
    assert {name: len(values) for name, values in found.items()} == dict.fromkeys("ABCD", 20)


def test_orders_are_the_same_in_every_run() -> None:
    assert list(interleaving.orders("ABCD", 5)) == list(interleaving.orders(iter("ABCD"), 5))


def test_a_series_is_its_median_and_quartiles() -> None:
    assert interleaving.summarise([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0, 1.0, 5)
    assert interleaving.summarise([7.0]) == (7.0, 7.0, 7.0, 7.0, 1)


def test_rounds_fill_the_time_within_their_limits() -> None:
    assert interleaving.rounds_within(10, 0.5, fewest=5, most=50) == 20
    assert interleaving.rounds_within(10, 60, fewest=5, most=50) == 5
    assert interleaving.rounds_within(10, 0, fewest=5, most=50) == 50
