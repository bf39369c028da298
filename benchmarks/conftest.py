"""`pytest benchmarks --benchmark-only [--quick | --goals] [--benchmark-json=FILE]`: fixtures, report, results file."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from benchmarks.core import interleaving, machine, turns
from benchmarks.core.interleaving import Call
from benchmarks.core.names import OURS
from benchmarks.core.turns import Timed
from benchmarks.cpu import division, memory, peak, table
from benchmarks.cpu.compare import FULL, GOALS, LATENCY, QUICK, Effort, Prepared, Row, compare, describe
from benchmarks.cpu.workloads import Workload, for_goals

COMPARISONS = pytest.StashKey[list[dict[str, Any]]]()
PEAKS = pytest.StashKey[peak.Figures]()
PREPARED = pytest.StashKey[Prepared]()
# Options that select workloads, each by the mark of its name.
SELECTIONS = ("quick", "goals")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="benchmarks: a few workloads, a few rounds, a minute or two")
    parser.addoption("--goals", action="store_true", help="benchmarks: what goals are set for, in a dozen minutes")


def pytest_configure(config: pytest.Config) -> None:
    for option in SELECTIONS:
        config.addinivalue_line("markers", f"{option}: what --{option} keeps of the benchmarks")
    config.option.benchmark_quiet = True  # its own table would show our times only
    config.stash[COMPARISONS] = []
    config.stash[PEAKS] = {}
    config.stash[PREPARED] = Prepared()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            if "measure" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(0))  # the limit of a test is too short for a measurement
    for option in filter(config.getoption, SELECTIONS):
        left_out = [item for item in items if item.get_closest_marker(option) is None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session", autouse=True)
def peaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measure the machine's peaks before the first and after the last workload, and keep the higher ones."""
    before = peak.measure()
    yield
    figures = peak.best(before, peak.measure())
    request.config.stash[PEAKS].update(peak.with_libraries(figures, request.config.stash[COMPARISONS]))


@pytest.fixture
def measure(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Workload], None]:
    """Compare a workload's implementations.

    pytest-benchmark's own figures are those of our implementation; `extra_info` holds all. A fault of our own fails the
    test; that of a baseline is in its row.
    """

    def timer(calls: Mapping[str, Call], rounds: int) -> dict[str, list[Timed]]:
        if OURS not in calls:
            return turns.in_turns(calls, rounds)
        orders, last = interleaving.orders(calls, rounds), list[str]()
        with interleaving.without_garbage_collection():
            running = turns.Turns(calls)

            def until_ours() -> None:
                finish()
                order = next(orders)
                place = order.index(OURS)
                running.take(order[:place])
                last[:] = order[place:]

            def finish() -> None:
                if last:
                    running.rest(OURS)
                    running.take(last[1:])

            benchmark.pedantic(running.call, args=(OURS,), setup=until_ours, rounds=rounds)
            finish()
        return running.found

    def measured(workload: Workload) -> None:
        config, start = request.config, time.perf_counter()
        quick = config.getoption("quick")
        if config.getoption("goals"):
            workload = for_goals(workload)
        rows = compare(workload, _effort(config, workload), timer, config.stash[PREPARED])
        described = describe(workload, rows, OURS, {} if quick else _peaks_of_memory(workload, rows))
        if workload.divided and "median" in described["implementations"][OURS]:
            described["division"] = division.divide(workload, config.stash[PREPARED]).described()
        benchmark.group = workload.group
        benchmark.extra_info.update(described)
        config.stash[COMPARISONS].append(described)
        _show(request, table.progress(described, OURS, time.perf_counter() - start))
        fault = described["implementations"].get(OURS, {}).get("fault")
        assert not fault, f"{OURS}: {fault}"

    return measured


def _effort(config: pytest.Config, workload: Workload) -> Effort:
    if config.getoption("quick"):
        return QUICK
    if workload.group != "embedding":
        return FULL
    return GOALS if config.getoption("goals") else LATENCY


def _peaks_of_memory(workload: Workload, rows: Sequence[Row]) -> dict[str, memory.Peak]:
    if workload.memory is None:
        return {}
    return {row.implementation: memory.peak(workload.memory, row.implementation) for row in rows if row.seconds}


def _show(request: pytest.FixtureRequest, line: str) -> None:
    """Print a line about the workload at once, with its number."""
    plugins, items = request.config.pluginmanager, request.session.items
    reporter, capture = plugins.get_plugin("terminalreporter"), plugins.get_plugin("capturemanager")
    if reporter is None or capture is None:
        return
    with capture.global_and_fixture_disabled():
        reporter.ensure_newline()
        reporter.write_line(f"{items.index(request.node) + 1:4}/{len(items)}  {line}")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    cpu = machine_info.pop("cpu", {})
    machine_info.clear()  # what identifies the machine's owner; `hstl-fast info` names what matters
    machine_info["cpu"] = {key: cpu[key] for key in ("brand_raw", "arch", "count") if key in cpu}
    machine_info["hstl_fast"] = machine.description()


def pytest_benchmark_update_commit_info(config: pytest.Config, commit_info: dict[str, Any]) -> None:
    commit_info.pop("project", None)  # the name of a folder


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    output_json["peaks"] = config.stash[PEAKS]
    output_json["timing"] = turns.described()
    for entry in output_json["benchmarks"]:
        del entry["stats"]["data"]  # `seconds` beside it
        entry.pop("params", None)  # `extra_info` says it in words


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    comparisons, peaks = config.stash[COMPARISONS], config.stash[PEAKS]
    if comparisons:
        terminalreporter.section("comparison")
        for line in table.lines(comparisons, peaks):
            terminalreporter.write_line(line)
        for line in table.faults(comparisons):
            terminalreporter.write_line(line, red=True, bold=True)
