"""Numbers and reasons in words, for pictures and tables alike."""

from collections.abc import Iterable

from benchmarks.report.results import Rival, Workload


def number(value: float) -> str:
    """At least three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def error_text(rival: Rival, between: str = " | ") -> str:
    """`2e-7`, or of losses and of gradients `1e-5 | 4e-4`."""
    return between.join(error_number(error) for error in rival.errors)


def error_number(error: float) -> str:
    return f"{error:.0e}".replace("e-0", "e-")


def reasons(workloads: Iterable[Workload]) -> list[str]:
    """A line for each reason why a rival has no time, naming whom and what it concerns."""
    found: dict[tuple[str, str], list[str]] = {}
    for workload in workloads:
        for rival in workload.rivals:
            if rival.fault:
                found.setdefault((f"{rival.name} was wrong or failed", rival.fault), []).append(workload.name)
            elif rival.unavailable:
                found.setdefault((f"{rival.name} could not run", rival.unavailable), []).append(workload.name)
    return [f"{who} on {_some(where)}: {_one_line(why)}." for (who, why), where in found.items()]


def _one_line(text: str) -> str:
    """Without the control characters of compilers that colour what they say, which no XML may hold."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _some(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return "; ".join(unique) if len(unique) <= 3 else f"{unique[0]} and {len(unique) - 1} more"
