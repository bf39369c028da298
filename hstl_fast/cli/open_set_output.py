"""The text, CSV and JSON of an open-set evaluation."""

from __future__ import annotations

import csv
import io
import json

import click

from hstl_fast.cli.open_set import Compared
from hstl_fast.cli.output import print_table
from hstl_fast.data.found import counted
from hstl_fast.evaluation.error_rates import ErrorRates, Interval
from hstl_fast.evaluation.open_set import OpenSet

_KINDS = ("identification", "verification")
_CSV_HEADER = (
    *("evaluated", "kind", "measure", "asked_percent", "threshold", "false_accept_percent", "false_accept_low"),
    *("false_accept_high", "percent", "low", "high"),
)


def print_compared(compared: Compared) -> None:
    """Print an open-set evaluation for a person.

    Args:
        compared: The evaluations.
    """
    first = next(iter(compared.results.values()))
    counts = first.counts
    click.echo(
        f"open set, {first.metric} distance: {counted(counts['gallery_people'], 'person', 'people')} enrolled with "
        f"{counted(counts['gallery'], 'sequence', 'sequences')}; {counts['known_probes']} probes of "
        f"{counts['known_people']} of them, {counts['unknown_probes']} probes of {counts['unknown_people']} unknown"
    )
    asked = [f"at {100 * point.asked:g} %" for point in first.identification.points]
    rows = []
    for name, found in compared.results.items():
        for kind in _KINDS:
            rows += _rows(name, kind, found)
    click.echo()
    print_table(["true accepts (%) at false accepts of", "rank-1", *asked, "equal error rate (%)"], rows)
    click.echo()
    click.echo("In brackets: intervals of 95 %, which resample people. Identification is 1:N, verification 1:1.")
    said: dict[str, None] = dict.fromkeys(remark for found in compared.results.values() for remark in found.remarks)
    for sentence in (*said, *compared.notes):
        click.echo(sentence)


def compared_json(compared: Compared) -> str:
    """Return an open-set evaluation as JSON.

    Args:
        compared: The evaluations.

    Returns:
        The text: `notes`, and in `evaluated` the document of each network by its name.
    """
    evaluated = {name: found.document() for name, found in compared.results.items()}
    document = {"mode": "open-set", "notes": list(compared.notes), "evaluated": evaluated}
    return json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def compared_csv(compared: Compared) -> str:
    """Return the rates of an open-set evaluation as CSV: one a row, with its interval.

    Args:
        compared: The evaluations.

    Returns:
        The text; what cannot be told is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_HEADER)
    for name, found in compared.results.items():
        writer.writerow([name, "identification", "rank1", *[""] * 5, repr(100 * found.rank1), "", ""])
        for kind in _KINDS:
            rates: ErrorRates = getattr(found, kind)
            for point in rates.points:
                false = [_cell(point.false_accept), *_ends(point.false_accept_interval)]
                true = [_cell(point.true_accept), *_ends(point.true_accept_interval)]
                threshold = "" if point.threshold is None else repr(point.threshold)
                writer.writerow([name, kind, "true_accept", f"{100 * point.asked:g}", threshold, *false, *true])
            equal = [_cell(rates.equal_error_rate), *_ends(rates.equal_error_interval)]
            writer.writerow([name, kind, "equal_error_rate", *[""] * 5, *equal])
    return text.getvalue()


def _rows(name: str, kind: str, found: OpenSet) -> list[list[str]]:
    rates: ErrorRates = getattr(found, kind)
    rank1 = f"{100 * found.rank1:.1f}" if kind == "identification" else ""
    shares = [_percent(point.true_accept, point.true_accept_interval) for point in rates.points]
    thresholds = ["-" if point.threshold is None else f"{point.threshold:.5g}" for point in rates.points]
    equal = _percent(rates.equal_error_rate, rates.equal_error_interval)
    return [[f"{name}, {kind}", rank1, *shares, equal], ["  threshold", "", *thresholds, ""]]


def _percent(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return "-"
    ends = "" if interval is None else f" ({100 * interval.low:.1f} to {100 * interval.high:.1f})"
    return f"{100 * value:.1f}{ends}"


def _cell(value: float | None) -> str:
    return "" if value is None else repr(100 * value)


def _ends(interval: Interval | None) -> list[str]:
    return ["", ""] if interval is None else [repr(100 * interval.low), repr(100 * interval.high)]
