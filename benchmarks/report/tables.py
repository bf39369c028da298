"""The results as tables: those of a document, and all of them."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from benchmarks.core import markdown as core
from benchmarks.report.results import FLOAT32, Outcome, Part, Results, Workload, fastest, labels
from benchmarks.report.words import error_number, error_text, number, ranks_text

# Groups of whole networks, and what is done there.
NETWORK_GROUPS = {"embedding": "embed", "throughput": "embed", "training step": "train"}
NONE = "–"
_BEST = "fastest other / ours"
RANKS = (
    "After a semicolon: in a search of rendered walkers, so many probes have another nearest sequence than in float64."
)


class Table(NamedTuple):
    """Cells are plain text, those of the first column left, all others right; `strong` are (row, column)."""

    title: str
    note: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[tuple[int, int]] = frozenset()


def speed(*runs: Results) -> list[Table]:
    """Whole networks: milliseconds and errors of all, float32 first, then the narrower types.

    What several processors measured of one workload stands in rows below each other.
    """
    rows = _rows_of(runs)
    everyone = [name for run in runs for name in run.implementation_names]
    names = dict.fromkeys(name for name in everyone if any(_timed(workload, name) for _, workload in rows))
    ordered = sorted(names, key=lambda name: not name.startswith("hstl_fast"))
    wide = [name for name in ordered if _dtype(runs, name) == FLOAT32]
    narrow = [name for name in ordered if name not in wide]
    tables = []
    if wide:
        note = "Medians in milliseconds, the error against float64 in brackets (in training: losses, gradients)."
        tables.append(_speed("float32", note, rows, wide))
    if narrow:
        note = "Medians in milliseconds. These trade accuracy for time: see the errors."
        tables.append(_speed("Less than float32", note, rows, narrow))
    searches = [workload for _, workload in rows if any(outcome.ranks for outcome in workload.outcomes)]
    if searches:
        tables = [table._replace(note=f"{table.note} {RANKS}") for table in tables]
    return tables


def _rows_of(runs: Sequence[Results]) -> list[tuple[str, Workload]]:
    """Each workload that was timed, under the label of its processor; an empty label where there is one only."""
    found = [
        (label if len(runs) > 1 else "", workload)
        for label, run in zip(labels(runs), runs, strict=True)
        for workload in run.of(*NETWORK_GROUPS)
        if workload.timed
    ]
    places: dict[tuple[str, str], int] = {}
    for _, workload in found:
        places.setdefault((workload.group, workload.name), len(places))
    return sorted(found, key=lambda row: places[row[1].group, row[1].name])


def _dtype(runs: Sequence[Results], name: str) -> str:
    return next(run.dtype(name) for run in runs if name in run.implementation_names)


def everything(results: Results) -> list[Table]:
    """All tables, those of `speed` first; those without rows left out."""
    networks = [_measurements(results, group) for group in (*NETWORK_GROUPS, "scaling", "variations")]
    tables = [*networks, _arithmetic(results), *_divisions(results), _operators(results), *_each_operator(results)]
    return [*speed(results), *(table for table in tables if table.rows)]


def markdown(table: Table) -> str:
    """The table in Markdown, without its title and note."""
    return "\n".join(core.table(table.headers, table.rows, table.strong))


def _speed(title: str, note: str, workloads: Sequence[tuple[str, Workload]], names: Sequence[str]) -> Table:
    several = len({label for label, _ in workloads}) > 1
    headers = ("", *(["cores"] if several else []), *names, _BEST)
    rows: list[tuple[str, ...]] = []
    strong: set[tuple[int, int]] = set()
    for label, workload in workloads:
        timed = {name: outcome for name in names if (outcome := _timed(workload, name))}
        if not timed:
            continue
        best = fastest(timed.values())
        strong |= {(len(rows), headers.index(name)) for name, outcome in timed.items() if outcome is best}
        cells = [_time_and_error(workload.outcome(name)) for name in names]
        first = [_what(workload), *([label] if several else [])]
        rows.append((*first, *cells, _ratio(_best_other(timed.values()), workload.ours)))
    return Table(title, note, headers, tuple(rows), frozenset(strong))


def _best_other(outcomes: Iterable[Outcome]) -> Outcome | None:
    return fastest(outcome for outcome in outcomes if not outcome.ours)


def _timed(workload: Workload, name: str) -> Outcome | None:
    outcome = workload.outcome(name)
    return outcome if outcome and outcome.median else None


def _what(workload: Workload) -> str:
    return f"{NETWORK_GROUPS[workload.group]} {workload.name}"


def _time_and_error(outcome: Outcome | None) -> str:
    if outcome is None or not outcome.answered:
        return NONE
    if not outcome.median:
        return "wrong"
    changes = f"; {ranks_text(outcome)}" if outcome.ranks else ""
    return f"{number(outcome.median * 1e3)} ({error_text(outcome, ', ')}{changes})"


def _ratio(other: Outcome | None, ours: Outcome | None) -> str:
    return f"{other.median / ours.median:.2f}" if other and ours and other.median and ours.median else NONE


def _measurements(results: Results, group: str) -> Table:
    timing = ("ms", "quartiles", "rounds", "its time / ours")
    headers = (
        "",
        "implementation",
        "type",
        *timing,
        "error",
        "gradients' error",
        "rank-1 changes",
        "dense GFLOP/s",
        "frames/s",
        "memory MiB",
    )
    rows = [
        (
            _heading(workload) if i == 0 else "",
            outcome.name,
            outcome.dtype,
            *_figures(workload, outcome),
        )
        for workload in results.of(group)
        for i, outcome in enumerate(workload.outcomes)
    ]
    note = "Medians; half of the times lie between the quartiles. Memory: one step above the prepared network."
    return Table(group.capitalize(), note, headers, tuple(rows))


def _heading(workload: Workload) -> str:
    threads = f", {workload.threads} threads" if workload.scaling and workload.scaling.axis == "threads" else ""
    return workload.name if threads in workload.name else workload.name + threads


def _figures(workload: Workload, outcome: Outcome) -> tuple[str, ...]:
    memory = NONE if outcome.peak_bytes is None else number(outcome.peak_bytes / 2**20)
    errors = [*map(error_number, outcome.errors), NONE, NONE][:2]
    ranks = ranks_text(outcome) or NONE
    if not outcome.median:
        state = "wrong" if outcome.fault else "did not run"
        return (state, NONE, NONE, NONE, *errors, ranks, NONE, NONE, memory)
    assert outcome.low
    assert outcome.high
    return (
        number(outcome.median * 1e3),
        f"{number(outcome.low * 1e3)} to {number(outcome.high * 1e3)}",
        str(outcome.rounds),
        _ratio(outcome, workload.ours),
        *errors,
        ranks,
        number(workload.dense_flop / outcome.median / 1e9),
        number(workload.frames / outcome.median) if workload.frames else NONE,
        memory,
    )


def _arithmetic(results: Results) -> Table:
    headers = ("", "dense GFLOP", "inside the support", "executed by ours", "dense GFLOP/s", "executed GFLOP/s")
    rows = []
    for workload in results.of(*NETWORK_GROUPS):
        ours, executed, inside = workload.ours, workload.executed_flop, workload.inside_flop
        if not ours or not ours.median:
            continue
        rows.append(
            (
                _what(workload),
                number(workload.dense_flop / 1e9),
                _flop_and_share(inside, workload),
                _flop_and_share(executed, workload),
                number(workload.dense_flop / ours.median / 1e9),
                NONE if executed is None else _rate_and_share(executed / ours.median / 1e9, results),
            )
        )
    note = (
        "A product and a sum count two. Dense: every tap of every position, those on padding and background too. "
        "Inside the support: every tap of the positions where a map may be non-zero. Executed by ours: the products of "
        "the Winograd tiles that hold such a position, and what is computed directly; transforms are additions and not "
        "counted. Rates are of our median; in brackets the share of this machine's float32 peak, "
        f"{results.peaks.float32:.0f} GFLOP/s ({results.peaks.source})."
    )
    return Table("Arithmetic", note, headers, tuple(rows))


def _flop_and_share(flop: int | None, workload: Workload) -> str:
    return NONE if flop is None else f"{number(flop / 1e9)} ({flop / workload.dense_flop:.0%})"


def _rate_and_share(rate: float, results: Results) -> str:
    return f"{number(rate)} ({rate / results.peaks.float32:.0%})"


def _divisions(results: Results) -> list[Table]:
    headers = ("", "ms", "share", "executed GFLOP", "executed GFLOP/s")
    tables = []
    for workload in results.of(*NETWORK_GROUPS):
        division = workload.division
        if division is None:
            continue
        rows = [
            (part.name, number(part.seconds * 1e3), f"{part.seconds / division.total:.0%}", *_executed(part, results))
            for part in division.parts
        ]
        note = (
            f"Of {number(division.total * 1e3)} ms in all; medians of {division.rounds} rounds, measured "
            "around the layers in Python. Convolutions by their channels."
        )
        tables.append(Table(f"Where our time goes: {workload.name}", note, headers, tuple(rows)))
    return tables


def _executed(part: Part, results: Results) -> tuple[str, str]:
    if not part.executed_flop:
        return NONE, NONE
    rate = part.executed_flop / part.seconds / 1e9 if part.seconds else None
    return number(part.executed_flop / 1e9), _rate_and_share(rate, results) if rate else NONE


def _operators(results: Results) -> Table:
    others = [name for name in results.implementation_names if not name.startswith("hstl_fast")]
    others = [name for name in others if any(_timed(w, name) for w in results.operators)]
    rows = []
    for group in dict.fromkeys(w.group for w in results.operators):
        workloads = [w for w in results.of(group) if w.ours]
        ratios = [_spread_of_ratios(workloads, name) for name in others]
        worst = max((max(w.ours.errors) for w in workloads if w.ours and w.ours.errors), default=None)
        rows.append((group, str(len(workloads)), *ratios, NONE if worst is None else error_number(worst)))
    note = "Their time over ours: the geometric mean over all sizes (the least to the greatest)."
    return Table("Operators", note, ("", "sizes", *others, "our worst error"), tuple(rows))


def _spread_of_ratios(workloads: Sequence[Workload], name: str) -> str:
    ratios = []
    for workload in workloads:
        ours, other = workload.ours, _timed(workload, name)
        if ours and ours.median and other and other.median:
            ratios.append(other.median / ours.median)
    if not ratios:
        return NONE
    return f"{math.exp(math.fsum(map(math.log, ratios)) / len(ratios)):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _each_operator(results: Results) -> list[Table]:
    forward = [w for w in results.operators if w.timed and not w.training]
    backward = [w for w in results.operators if w.timed and w.training]
    return [
        _one_by_one("Each operator, forward", forward, results.implementation_names),
        _one_by_one("Each operator, forward and backward", backward, results.implementation_names),
    ]


def _one_by_one(title: str, workloads: Sequence[Workload], implementations: Sequence[str]) -> Table:
    names = [name for name in implementations if any(_timed(w, name) for w in workloads)]
    rows = []
    for workload in workloads:
        cells = [_time_and_error(workload.outcome(name)) for name in names]
        ratio = _ratio(workload.fastest_float32_baseline(), workload.ours)
        rows.append((f"{workload.name} ({workload.preset})", *cells, ratio))
    note = "Medians in milliseconds, errors in brackets. Sizes: channels, split, frames x rows x columns."
    return Table(title, note, ("", *names, "fastest other in float32 / ours"), tuple(rows))
