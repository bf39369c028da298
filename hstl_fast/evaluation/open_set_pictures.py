"""ROC and DET pictures of open-set evaluations, with their intervals. Needs the extra `[plot]`."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hstl_fast.evaluation.error_rates import ErrorRates
from hstl_fast.evaluation.open_set import OpenSet
from hstl_fast.evaluation.pictures import Panel, draw_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The names of the pictures, without suffix.
NAMES = ("roc-identification", "det-identification", "roc-verification", "det-verification")
# The labels of the axes by kind: false accepts, true accepts, false rejects.
_LABELS = {
    "identification": (
        "false-positive identification rate (%)",
        "true-positive identification rate (%)",
        "false-negative identification rate (%)",
    ),
    "verification": ("false match rate (%)", "true match rate (%)", "false non-match rate (%)"),
}
# Rates that are marked on axes of normal deviates.
_TICKS = (0.0001, 0.001, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 0.99, 0.999)


def draw_pictures(results: Mapping[str, OpenSet], suffix: str = ".png") -> dict[str, bytes]:
    """Draw the curves of one or several networks, each picture as a file.

    Args:
        results: The evaluations by the names of what was evaluated.
        suffix: The kind of file, one of `SUFFIXES` of `evaluation.pictures`.

    Returns:
        The contents of the files by `NAMES`.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return {name: draw_panels([panel], suffix) for name, panel in _panels(results).items()}


def draw_sheet(results: Mapping[str, OpenSet], suffix: str = ".png") -> bytes:
    """Draw all pictures in one file.

    Args:
        results: The evaluations by the names of what was evaluated.
        suffix: The kind of file, one of `SUFFIXES` of `evaluation.pictures`.

    Returns:
        The content of the file.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return draw_panels(list(_panels(results).values()), suffix)


def _panels(results: Mapping[str, OpenSet]) -> dict[str, Panel]:
    panels: dict[str, Panel] = {}
    for kind in _LABELS:
        rates: dict[str, ErrorRates] = {name: getattr(result, kind) for name, result in results.items()}
        panels[f"roc-{kind}"] = lambda axes, kind=kind, rates=rates: _roc(axes, kind, rates)  # type: ignore[misc]
        panels[f"det-{kind}"] = lambda axes, kind=kind, rates=rates: _det(axes, kind, rates)  # type: ignore[misc]
    return panels


def _roc(axes: Axes, kind: str, results: Mapping[str, ErrorRates]) -> None:
    for name, rates in results.items():
        curve = rates.curve
        (line,) = axes.plot(100 * curve.false_accept, 100 * curve.true_accept, label=_described(name, rates))
        axes.fill_between(
            100 * curve.false_accept, 100 * curve.low, 100 * curve.high, color=line.get_color(), alpha=0.2, lw=0
        )
    axes.set_xscale("log")
    axes.set_xlim(100 / max(rates.impostors for rates in results.values()), 100)
    axes.set_ylim(0, 101)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel(_LABELS[kind][0])
    axes.set_ylabel(_LABELS[kind][1])
    axes.set_title(f"{kind}: ROC with intervals of 95 %", parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")


def _det(axes: Axes, kind: str, results: Mapping[str, ErrorRates]) -> None:
    least = 0.5
    for name, rates in results.items():
        curve, lowest = rates.curve, 0.5 / rates.genuine
        x = deviates(curve.false_accept, 0.5 / rates.impostors)
        (line,) = axes.plot(x, deviates(1 - curve.true_accept, lowest), label=_described(name, rates))
        low, high = (deviates(1 - ends, lowest) for ends in (curve.high, curve.low))
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.2, lw=0)
        least = min(least, float(curve.false_accept.min()), max(lowest, float((1 - curve.true_accept).min())))
    normal = NormalDist()
    ends = normal.inv_cdf(least), normal.inv_cdf(0.999)
    axes.plot(ends, ends, color="grey", lw=0.8, ls=":")  # equal error rates
    ticks = [rate for rate in _TICKS if rate >= least]
    places, texts = [normal.inv_cdf(rate) for rate in ticks], [f"{100 * rate:g}" for rate in ticks]
    axes.set_xticks(places, texts)
    axes.set_yticks(places, texts)
    axes.set_xlim(*ends)
    axes.set_ylim(*ends)
    axes.set_aspect("equal")
    axes.set_xlabel(_LABELS[kind][0])
    axes.set_ylabel(_LABELS[kind][2])
    axes.set_title(f"{kind}: DET with intervals of 95 %", parse_math=False)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right")


def deviates(rates: NDArray[np.float64], lowest: float) -> NDArray[np.float64]:
    """Compute normal deviates of rates: on such axes the errors of two normal distributions lie on a line.

    Args:
        rates: Rates from 0 to 1, or NaN.
        lowest: Rates nearer to 0 or 1 than that are drawn there, since 0 and 1 are infinitely far away.

    Returns:
        Deviates of the same shape.
    """
    inverse = NormalDist().inv_cdf
    clipped = np.clip(rates, lowest, 1 - lowest)
    return np.array([np.nan if np.isnan(rate) else inverse(float(rate)) for rate in clipped])


def _described(name: str, rates: ErrorRates) -> str:
    return f"{name}, EER {100 * rates.equal_error_rate:.1f} %"
