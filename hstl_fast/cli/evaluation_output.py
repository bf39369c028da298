"""The text, CSV and JSON of an evaluation."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence

import click
import numpy as np

from hstl_fast.cli.output import print_table
from hstl_fast.data.found import counted
from hstl_fast.evaluation.protocols import Outcome
from hstl_fast.evaluation.protocols.by_view import mean_over_gallery_views
from hstl_fast.evaluation.published import PUBLISHED, SOURCE, TEST_PEOPLE, flat, published_results

_TITLES = {"rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "rank20": "rank-20"}
_CSV_HEADER = ("result", "probe_view", "gallery_view", "measure", "percent")


def print_outcome(outcome: Outcome, notes: Iterable[str]) -> None:
    """Print an evaluation for a person: counts, percentages beside published ones, and what has to be known of them.

    Args:
        outcome: The evaluation.
        notes: Sentences about the data.
    """
    click.echo(_heading(outcome))
    stated = any(value is not None for value in flat(outcome.results).values())
    published = {} if outcome.form else published_results(outcome.protocol)
    if stated:
        click.echo()
        _print_percentages(outcome, published)
        click.echo()
    if stated and published:
        click.echo(f"published: {SOURCE}.")
        wanted, people = TEST_PEOPLE[outcome.protocol], outcome.counts["people"]
        if people != wanted:
            click.echo(f"The published test set has {wanted} people, these data {people}: do not compare the columns.")
    if outcome.protocol == "grew":
        (rank1,) = PUBLISHED["grew"].values()
        click.echo(f"published: rank-1 {rank1} % by the competition's server. {SOURCE}.")
    for sentence in (*outcome.remarks, *notes):
        click.echo(sentence)


def csv_text(outcome: Outcome) -> str:
    """Return the evaluation as CSV: the competition's rows for `grew`, else one percentage a row.

    Args:
        outcome: The evaluation.

    Returns:
        The text; a percentage that cannot be stated is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if outcome.protocol == "grew":
        writer.writerow(outcome.tables["header"])
        writer.writerows(outcome.tables["rows"])
    else:
        writer.writerow(_CSV_HEADER)
        writer.writerows(_rows(outcome))
    return text.getvalue()


def json_text(outcome: Outcome) -> str:
    """Return the evaluation as JSON, the document that `hstl_fast.evaluation.evaluate` returns.

    Args:
        outcome: The evaluation.

    Returns:
        The text.
    """
    return json.dumps(outcome.document(), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def _heading(outcome: Outcome) -> str:
    counts = outcome.counts
    nouns = {
        "people": ("person", "people"),
        "probes": ("probe", "probes"),
        "gallery": ("gallery sequence", "gallery sequences"),
        "probes_without_partner": ("probe without a partner", "probes without a partner"),
    }
    parts = [counted(number, *nouns[what]) for what, number in counts.items() if number is not None]
    return f"{outcome.title}: {', '.join(parts)}"


def _print_percentages(outcome: Outcome, published: dict[tuple[str, str], float]) -> None:
    rows = []
    for pair, value in flat(outcome.results).items():
        group, measure = pair
        title = " ".join(part for part in (group.replace("_", " "), _TITLES.get(measure, measure)) if part)
        rows.append([title, *_by_view(outcome, group, measure), _percent(value, 2), _percent(published.get(pair), -1)])
    shown = [True] * (len(rows[0]) - 1) + [bool(published)]
    headers = ["%", *outcome.views, "mean" if outcome.views else "", "published"]
    chosen = [[cell for cell, show in zip(row, shown, strict=True) if show] for row in (headers, *rows)]
    print_table(chosen[0], chosen[1:])


def _by_view(outcome: Outcome, group: str, measure: str) -> list[str]:
    """The percentages of one result by probe view; nothing where the protocol has no views."""
    table = outcome.tables.get(group)
    if table is None:
        return [""] * len(outcome.views)
    if isinstance(table, dict):
        return [_percent(value, 1) for value in table[measure]]
    cells = np.array([[np.nan if value is None else value for value in row] for row in table])
    return [_percent(None if np.isnan(value) else float(value), 1) for value in mean_over_gallery_views(cells)]


def _percent(value: float | None, digits: int) -> str:
    """A percentage; with -1 digits as it was published."""
    if value is None:
        return "-" if digits >= 0 else ""
    return f"{value:.{digits}f}" if digits >= 0 else str(value)


def _rows(outcome: Outcome) -> list[Sequence[object]]:
    rows: list[Sequence[object]] = [
        (group, "", "", measure, _cell(value)) for (group, measure), value in flat(outcome.results).items()
    ]
    for name, table in outcome.tables.items():
        if isinstance(table, dict):
            for measure, values in table.items():
                rows += [
                    (name, view, "", measure, _cell(value)) for view, value in zip(outcome.views, values, strict=True)
                ]
            continue
        for view, row in zip(outcome.views, table, strict=True):
            rows += [(name, view, other, "rank1", _cell(v)) for other, v in zip(outcome.views, row, strict=True)]
    return rows


def _cell(value: float | None) -> str:
    return "" if value is None else repr(value)
