"""`pytest benchmarks --benchmark-only [--quick] [--benchmark-json=FILE]`: the fixture, the report, the machine."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from benchmarks import machine, table
from benchmarks.compare import FULL, QUICK, compare, describe, take_turns
from benchmarks.interleave import Call, turn, without_garbage_collection
from benchmarks.rivals import OURS, RIVALS
from benchmarks.workloads import Workload

COMPARISONS = pytest.StashKey[list[dict[str, Any]]]()
PEAKS = pytest.StashKey[dict[str, float]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="benchmarks: a few workloads, a few rounds, under a minute")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "quick: what --quick keeps of the benchmarks")
    config.option.benchmark_quiet = True  # its own table would show our times only
    config.stash[COMPARISONS] = []
    config.stash[PEAKS] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("quick"):
        left_out = [item for item in items if item.get_closest_marker("quick") is None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def peaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """The machine's best, before the first and after the last workload."""
    before = machine.peaks()
    yield
    after = machine.peaks()
    request.config.stash[PEAKS].update({name: max(rate, after[name]) for name, rate in before.items()})


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Workload], None]:
    """Compare all rivals on a workload. pytest-benchmark's own figures are ours; `extra_info` holds everybody's."""

    def timer(calls: Mapping[str, Call], rounds: int) -> dict[str, list[float]]:
        if OURS not in calls:
            return take_turns(calls, rounds)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        others = {name: call for name, call in calls.items() if name != OURS}
        with without_garbage_collection():
            benchmark.pedantic(
                turn, args=({OURS: calls[OURS]}, seconds), setup=lambda: turn(others, seconds), rounds=rounds
            )
        return seconds

    def measured(workload: Workload) -> None:
        config = request.config
        rows = compare(workload, RIVALS, QUICK if config.getoption("quick") else FULL, timer)
        described = describe(workload, rows, OURS)
        benchmark.group = workload.group
        benchmark.extra_info.update(described)
        config.stash[COMPARISONS].append(described)
        wrong = [f"{row.rival}: {row.fault}" for row in rows if row.fault]
        assert not wrong, "; ".join(wrong)

    return measured


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["hstl_fast"] = machine.description()


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    output_json["peaks"] = config.stash[PEAKS]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    comparisons, peaks = config.stash[COMPARISONS], config.stash[PEAKS]
    if comparisons:
        terminalreporter.section("comparison")
        for line in table.lines(comparisons, peaks):
            terminalreporter.write_line(line)
