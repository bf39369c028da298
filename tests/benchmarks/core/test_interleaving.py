"""Rounds are interleaved, and times summed up."""

import functools

from benchmarks.core import interleaving


def test_rounds_are_interleaved() -> None:
    order: list[str] = []
    found = interleaving.interleaved({name: functools.partial(order.append, name) for name in "ABC"}, rounds=3)
    assert "".join(order) == "ABCABCABC"
    assert {name: len(values) for name, values in found.items()} == {"A": 3, "B": 3, "C": 3}


def test_a_series_is_its_median_and_quartiles() -> None:
    assert interleaving.summarise([5.0, 1.0, 2.0, 4.0, 3.0]) == (3.0, 2.0, 4.0, 1.0, 5)
    assert interleaving.summarise([7.0]) == (7.0, 7.0, 7.0, 7.0, 1)


def test_rounds_fill_the_time_within_their_limits() -> None:
    assert interleaving.rounds_within(10, 0.5, fewest=5, most=50) == 20
    assert interleaving.rounds_within(10, 60, fewest=5, most=50) == 5
    assert interleaving.rounds_within(10, 0, fewest=5, most=50) == 50
