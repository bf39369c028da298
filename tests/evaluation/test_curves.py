"""Measures of rankings, by hand."""

import numpy as np
import pytest

from hstl_fast.evaluation import average_precision, cumulative_matches, inverse_negative_penalty
from hstl_fast.evaluation.curves import first_positions


def positions(*places: int) -> np.ndarray:
    return np.array(places, np.intp)


def test_cumulative_matches() -> None:
    first = first_positions([positions(0, 3), positions(2), positions(), positions(1, 2)])
    assert first.tolist() == [0, 2, -1, 1]
    assert cumulative_matches(first, 5).tolist() == [25, 50, 75, 75, 75]
    assert np.isnan(cumulative_matches(first[:0], 2)).all()
    with pytest.raises(ValueError, match="ranks must be at least 1; got 0"):
        cumulative_matches(first, 0)


def test_average_precision() -> None:
    assert average_precision(positions(0, 1, 2)) == 1
    assert average_precision(positions(1, 3)) == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert average_precision(positions()) == 0


def test_inverse_negative_penalty_counts_each_match_once() -> None:
    assert inverse_negative_penalty(positions(0, 1)) == 1
    assert inverse_negative_penalty(positions(0, 9)) == pytest.approx(2 / 10)
    assert inverse_negative_penalty(positions()) == 0
