"""Results that the authors of HSTL published, to be shown beside computed ones and never as such."""

from __future__ import annotations

from typing import Any

SOURCE = "Wang et al., Hierarchical Spatio-Temporal Representation Learning for Gait Recognition, ICCV 2023"

# Percentages under the names of `evaluate`'s results. The mean of OUMVLP counts probes without a partner as wrong.
PUBLISHED: dict[str, dict[str, Any]] = {
    "casia-b": {"NM": {"rank1": 98.1}, "BG": {"rank1": 95.9}, "CL": {"rank1": 88.9}, "mean": {"rank1": 94.3}},
    "oumvlp": {"all_probes": {"rank1": 92.4}},
    "gait3d": {"rank1": 61.3, "rank5": 76.3, "mAP": 55.48, "mINP": 34.77},
    "grew": {"rank1": 62.7},
}
# How many people the published test sets have.
TEST_PEOPLE = {"casia-b": 50, "oumvlp": 5154, "gait3d": 1000, "grew": 6000}


def flat(results: dict[str, Any]) -> dict[tuple[str, str], float | None]:
    """List results by group and measure.

    Args:
        results: The `results` of an evaluation.

    Returns:
        Percentages by pairs such as `("NM", "rank1")`; the group is empty where the protocol has none.
    """
    pairs: dict[tuple[str, str], float | None] = {}
    for name, value in results.items():
        if isinstance(value, dict):
            pairs |= {(name, measure): each for measure, each in value.items()}
        else:
            pairs["", name] = value
    return pairs


def published_results(protocol: str) -> dict[tuple[str, str], float]:
    """Return the published results of HSTL for the usual form of a protocol.

    Args:
        protocol: A protocol that `evaluate` knows.

    Returns:
        Percentages by group and measure as `flat` gives them; empty where none are published.
    """
    known = flat(PUBLISHED.get(protocol, {}))
    return {pair: value for pair, value in known.items() if value is not None}
