"""The comparisons as text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HEADER = f"{'':24}{'median ms':>11}{'quartiles':>20}{'ours is':>9}{'error':>9}{'gradient':>10}{'GFLOP/s':>9}{'GB/s':>7}"


def lines(comparisons: Sequence[Mapping[str, Any]], peaks: Mapping[str, float]) -> Iterator[str]:
    """One line per rival under each workload's name, grouped as in the files."""
    if peaks:
        yield (
            f"this machine at its best: float32 matrix product {peaks['float32_gflop_per_second']:.0f} GFLOP/s, "
            f"copy {peaks['copy_gbyte_per_second']:.1f} GB/s"
        )
    group = None
    for comparison in comparisons:
        if comparison["group"] != group:
            group = comparison["group"]
            yield ""
            yield f"{group.upper():24}{HEADER[24:]}"
        yield f"{comparison['workload']} ({comparison['preset']})"
        for name, rival in comparison["rivals"].items():
            yield _line(name, rival)


def _line(name: str, rival: Mapping[str, Any]) -> str:
    if rival["unavailable"]:
        return f"  {name:22}unavailable: {rival['unavailable']}"
    if rival["fault"]:
        return f"  {name:22}WRONG, not timed: {rival['fault']}"
    quartiles = f"{rival['low'] * 1e3:.2f} - {rival['high'] * 1e3:.2f}"
    faster = rival["ours_is_times_faster"]
    return (
        f"  {name:22}{rival['median'] * 1e3:11.2f}{quartiles:>20}{_or_dash(faster, 'x{:.2f}'):>9}"
        f"{_or_dash(rival['errors']['output'], '{:.0e}'):>9}{_or_dash(rival['errors']['gradient'], '{:.0e}'):>10}"
        f"{_or_dash(rival['dense_gflop_per_second'], '{:.1f}'):>9}"
        f"{_or_dash(rival['least_gbyte_per_second'], '{:.1f}'):>7}"
    )


def _or_dash(value: float | None, form: str) -> str:
    return form.format(value) if value else "-"
