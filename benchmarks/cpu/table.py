"""The comparisons as text for a terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.cpu import peak

COLUMNS = "".join(
    f"{title:>{width}}"
    for title, width in {
        "median ms": 11,
        "quartiles": 20,
        "ours is": 9,
        "error": 9,
        "gradient": 10,
        "rank-1": 10,
        "GFLOP/s": 9,
        "GB/s": 7,
        "MiB": 7,
    }.items()
)


def lines(comparisons: Sequence[Mapping[str, Any]], peaks: Mapping[str, Any]) -> Iterator[str]:
    """One line per implementation under each workload's name, grouped as in the files."""
    if peaks:
        yield _machine(peaks)
    group = None
    for comparison in comparisons:
        if comparison["group"] != group:
            group = comparison["group"]
            yield ""
            yield f"{group.upper():26}{COLUMNS}"
        yield f"{comparison['workload']} ({comparison['preset']})"
        for name, row in comparison["implementations"].items():
            yield _line(name, row)


def faults(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The implementations that raised or answered wrongly, once more."""
    for comparison in comparisons:
        for name, row in comparison["implementations"].items():
            if row["fault"]:
                yield f"{comparison['group']}, {comparison['workload']}: {name}: {row['fault']}"


def progress(comparison: Mapping[str, Any], ours: str, seconds: float) -> str:
    """One workload in one line: our time, the best baseline's, faults, and how long the measuring took."""
    rows = comparison["implementations"]
    medians = {name: row["median"] for name, row in rows.items() if "median" in row}
    baselines = {name: median for name, median in medians.items() if name != ours}
    parts = [f"{comparison['group']}: {comparison['workload']}:"]
    if ours in medians:
        parts.append(f"ours {medians[ours] * 1e3:.1f} ms,")
    if baselines:
        best = min(baselines, key=baselines.__getitem__)
        parts.append(f"best other {baselines[best] * 1e3:.1f} ms ({best})")
    parts += [f"FAULT of {name}" for name, row in rows.items() if row["fault"]]
    return f"{' '.join(parts)} [{seconds:.0f} s]"


def _machine(peaks: Mapping[str, Any]) -> str:
    rates = [f"{dtype} {_or_dash(peak.arithmetic(peaks, dtype), '{:.0f}')} GFLOP/s" for dtype in peak.DTYPES]
    missing = peaks.get("multiply_adds_missing")
    how = f"the best product of a library, for {missing}" if missing else "multiply-adds from registers or a library"
    return f"this machine's peak: {', '.join(rates)} ({how}); copy {peaks['copy_gbyte_per_second']:.1f} GB/s"


def _line(name: str, row: Mapping[str, Any]) -> str:
    if row["unavailable"]:
        return f"  {name:24}unavailable: {row['unavailable']}"
    if row["fault"]:
        return f"  {name:24}{'WRONG' if row['errors'] else 'FAILED'}, not timed: {row['fault']}"
    quartiles = f"{row['low'] * 1e3:.2f} - {row['high'] * 1e3:.2f}"
    memory = row["peak_bytes"]
    return (
        f"  {name:24}{row['median'] * 1e3:11.2f}{quartiles:>20}"
        f"{_or_dash(row['ours_is_times_faster'], 'x{:.2f}'):>9}"
        f"{_or_dash(row['errors']['output'], '{:.0e}'):>9}{_or_dash(row['errors']['gradient'], '{:.0e}'):>10}"
        f"{_changes(row['rank_changes']):>10}"
        f"{_or_dash(row['dense_gflop_per_second'], '{:.1f}'):>9}"
        f"{_or_dash(row['least_gbyte_per_second'], '{:.1f}'):>7}"
        f"{_or_dash(memory and memory / 2**20, '{:.0f}'):>7}"
    )


def _changes(changes: Mapping[str, int] | None) -> str:
    return f"{changes['changed']} of {changes['probes']}" if changes else "-"


def _or_dash(value: float | None, form: str) -> str:
    return form.format(value) if value else "-"
