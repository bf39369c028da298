"""The comparisons as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

COLUMNS = (
    f"{'median ms':>11}{'quartiles':>20}{'ours is':>9}{'error':>9}{'gradient':>10}{'GFLOP/s':>9}{'GB/s':>7}{'MiB':>7}"
)


def lines(comparisons: Sequence[Mapping[str, Any]], peaks: Mapping[str, float | None]) -> Iterator[str]:
    """One line per rival under each workload's name, grouped as in the files."""
    if peaks:
        yield (
            f"this machine at its best: matrix product {_or_dash(peaks['float32_gflop_per_second'], '{:.0f}')} GFLOP/s"
            f" in float32, {_or_dash(peaks['bfloat16_gflop_per_second'], '{:.0f}')} in bfloat16;"
            f" copy {_or_dash(peaks['copy_gbyte_per_second'], '{:.1f}')} GB/s"
        )
    group = None
    for comparison in comparisons:
        if comparison["group"] != group:
            group = comparison["group"]
            yield ""
            yield f"{group.upper():26}{COLUMNS}"
        yield f"{comparison['workload']} ({comparison['preset']})"
        for name, rival in comparison["rivals"].items():
            yield _line(name, rival)


def faults(comparisons: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The rivals that raised or answered wrongly, once more."""
    for comparison in comparisons:
        for name, rival in comparison["rivals"].items():
            if rival["fault"]:
                yield f"{comparison['group']}, {comparison['workload']}: {name}: {rival['fault']}"


def progress(comparison: Mapping[str, Any], ours: str, seconds: float) -> str:
    """One workload in one line: our time, the best other's, faults, and how long the measuring took."""
    rivals = comparison["rivals"]
    medians = {name: rival["median"] for name, rival in rivals.items() if "median" in rival}
    others = {name: median for name, median in medians.items() if name != ours}
    parts = [f"{comparison['group']}: {comparison['workload']}:"]
    if ours in medians:
        parts.append(f"ours {medians[ours] * 1e3:.1f} ms,")
    if others:
        best = min(others, key=others.__getitem__)
        parts.append(f"best other {others[best] * 1e3:.1f} ms ({best})")
    parts += [f"FAULT of {name}" for name, rival in rivals.items() if rival["fault"]]
    return f"{' '.join(parts)} [{seconds:.0f} s]"


def _line(name: str, rival: Mapping[str, Any]) -> str:
    if rival["unavailable"]:
        return f"  {name:24}unavailable: {rival['unavailable']}"
    if rival["fault"]:
        return f"  {name:24}{'WRONG' if rival['errors'] else 'FAILED'}, not timed: {rival['fault']}"
    quartiles = f"{rival['low'] * 1e3:.2f} - {rival['high'] * 1e3:.2f}"
    memory = rival["peak_bytes"]
    return (
        f"  {name:24}{rival['median'] * 1e3:11.2f}{quartiles:>20}"
        f"{_or_dash(rival['ours_is_times_faster'], 'x{:.2f}'):>9}"
        f"{_or_dash(rival['errors']['output'], '{:.0e}'):>9}{_or_dash(rival['errors']['gradient'], '{:.0e}'):>10}"
        f"{_or_dash(rival['dense_gflop_per_second'], '{:.1f}'):>9}"
        f"{_or_dash(rival['least_gbyte_per_second'], '{:.1f}'):>7}"
        f"{_or_dash(memory and memory / 2**20, '{:.0f}'):>7}"
    )


def _or_dash(value: float | None, form: str) -> str:
    return form.format(value) if value else "-"
