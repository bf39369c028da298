"""Numbers and reasons in words, for pictures and tables alike."""

from collections.abc import Iterable

from benchmarks.report.results import Outcome, Workload


def number(value: float) -> str:
    """At least three digits."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def error_text(outcome: Outcome, between: str = " | ") -> str:
    """`2e-7`, or for losses and gradients `1e-5 | 4e-4`."""
    return between.join(error_number(error) for error in outcome.errors)


def error_number(error: float) -> str:
    return f"{error:.0e}".replace("e-0", "e-")


def ranks_text(outcome: Outcome) -> str:
    """ "4 of 24" rank-1 answers that are not those of float64; empty where they were not counted."""
    return f"{outcome.ranks.changed} of {outcome.ranks.probes}" if outcome.ranks else ""


def searches(workloads: Iterable[Workload]) -> list[str]:
    """A line for each workload with a search: the answers that change, by implementation."""
    lines = []
    for workload in workloads:
        counted = [outcome for outcome in workload.outcomes if outcome.ranks]
        if counted:
            changes = ", ".join(f"{outcome.name} {ranks_text(outcome)}" for outcome in counted)
            lines.append(f"Rank-1 answers of a search of rendered walkers that differ from float64's: {changes}.")
    return lines


def reasons(workloads: Iterable[Workload]) -> list[str]:
    """A line for each reason why there is no time, naming the implementation and the workloads."""
    found: dict[tuple[str, str], list[str]] = {}
    for workload in workloads:
        for outcome in workload.outcomes:
            if outcome.fault:
                found.setdefault((f"{outcome.name} was wrong or failed", outcome.fault), []).append(workload.name)
            elif outcome.unavailable:
                found.setdefault((f"{outcome.name} could not run", outcome.unavailable), []).append(workload.name)
    return [f"{who} on {_some(where)}: {_one_line(why)}." for (who, why), where in found.items()]


def _one_line(text: str) -> str:
    """The text without control characters, which XML must not hold and compilers use for colours."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _some(names: list[str]) -> str:
    unique = list(dict.fromkeys(names))
    return "; ".join(unique) if len(unique) <= 3 else f"{unique[0]} and {len(unique) - 1} more"
