"""A whole run fails for our own faults alone and writes everything to one file."""

import getpass
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.core import interleaving
from benchmarks.core.names import OURS
from benchmarks.core.plain import frozen
from benchmarks.cpu import table
from benchmarks.cpu.compare import describe
from benchmarks.cpu.implementations import (
    Implementation,
    Unavailable,
)
from benchmarks.cpu.memory import Peak
from tests.benchmarks.cpu.helpers import EAGER, OURSELVES, REPOSITORY, Broken, compared, small_workload, spoilt


def test_the_table_shows_times_errors_and_faults() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    broken = Implementation("broken", lambda network, training: Broken(frozen(network, training), 0))
    workload = small_workload(EAGER, spoilt(lambda y: 2 * y), broken, Implementation("absent", refuse), OURSELVES)
    seconds = {"eager": (0.002, 0.004, 0.003), OURS: (0.001,) * 3}
    rows = [row._replace(seconds=seconds.get(row.implementation, ())) for row in compared(workload)]
    described = describe(workload, rows, OURS, {"eager": Peak(5 * 2**20)})
    eager, wrong, failed, absent, ours = list(table.lines([described], {}))[-5:]
    assert eager.split()[:6] == ["eager", "3.00", "2.50", "-", "3.50", "x3.00"]
    assert eager.split()[-1] == "5"
    assert "WRONG, not timed: output is off" in wrong
    assert "FAILED, not timed: raised RuntimeError: out of luck" in failed
    assert "unavailable: it is not installed" in absent
    assert "x1.00" in ours
    assert [line.split(": ")[1] for line in table.faults([described])] == ["spoilt", "broken"]
    line = table.progress(described, OURS, 7.0)
    assert "ours 1.0 ms" in line
    assert "best other 3.0 ms (eager)" in line
    assert "FAULT of spoilt FAULT of broken [7 s]" in line


Run = tuple[Path, "subprocess.CompletedProcess[str]"]


# The peaks of the machine are measured on little data.
CONFTEST = """
from benchmarks.cpu import peak

pytest_plugins = ["benchmarks.conftest"]
peak.SIZE, peak.COPIED, peak.LONG_ENOUGH = 64, 1000, 1e-4
"""
BENCHMARK = """
from benchmarks.core.names import OURS
from benchmarks.cpu.implementations import Implementation
from tests.benchmarks.cpu.helpers import EAGER, OURSELVES, Broken, small_workload, spoilt

def test_right(measure):
    measure(small_workload(EAGER, OURSELVES))

def test_wrong_implementations(measure):
    broken = Implementation("broken", lambda network, training: Broken(network, 1))
    measure(small_workload(spoilt(lambda y: y * 1.01), broken, OURSELVES))

def test_ours_is_wrong(measure):
    measure(small_workload(EAGER, spoilt(lambda y: y * 1.01)._replace(name=OURS)))
"""


@pytest.fixture(scope="module")
def benchmarks_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The folder and the run of the tests above."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_small.py").write_text(BENCHMARK)
    command = [sys.executable, "-m", "pytest", str(folder), "--benchmark-only", "--benchmark-json=results.json"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run(
        [*command, f"--rootdir={folder}"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    return folder, run


def test_only_a_fault_of_ours_fails_a_run(benchmarks_run: Run) -> None:
    _, run = benchmarks_run
    assert run.returncode == 1
    assert "1 failed, 2 passed" in run.stdout, run.stdout + run.stderr
    assert f"{OURS}: output is off" in run.stdout
    assert "1/3  arme forward: small: ours" in run.stdout
    assert "WRONG, not timed" in run.stdout
    assert "arme forward, small: spoilt: output is off" in run.stdout


def test_a_run_writes_everything_to_one_file(
    benchmarks_run: Run,
) -> None:
    results = json.loads((benchmarks_run[0] / "results.json").read_text())
    assert results["peaks"].keys() == {
        *("float32_multiply_adds_gflop_per_second", "float32_library_gflop_per_second", "float32_library"),
        *("bfloat16_multiply_adds_gflop_per_second", "bfloat16_library_gflop_per_second", "bfloat16_library"),
        *("multiply_adds_missing", "copy_gbyte_per_second"),
    }
    assert results["machine_info"]["hstl_fast"]["threads"] >= 1
    assert results["timing"]["order"] == f"drawn for every round from the seed {interleaving.SEED}"
    assert results["timing"]["begun"] == "when the other threads of the process are asleep"
    right, wrong = (entry["extra_info"]["implementations"] for entry in results["benchmarks"])
    for implementation in (right["eager"], right[OURS], wrong[OURS]):
        assert len(implementation["seconds"]) == implementation["rounds"] >= 5
        assert implementation["median"] > 0
        assert implementation["median_seconds_awake_after"] >= 0
        assert implementation["errors"]["output"] < 1e-6
        assert implementation["dtype"] == "float32"
    assert right["eager"]["ours_is_times_faster"] > 0
    assert wrong["spoilt"]["fault"].startswith("output is off")
    assert wrong["broken"]["fault"] == "raised RuntimeError: out of luck in place.py"
    assert not {"median", "seconds"} & (wrong["spoilt"].keys() | wrong["broken"].keys())
    small = results["benchmarks"][0]
    assert small["stats"]["rounds"] == right[OURS]["rounds"]
    described = small["extra_info"]
    names = ("dense", "direct", "winograd", "inside", "executed")
    assert [described[f"{name}_flop"] for name in names] == [2000, 1800, 240, None, 220]
    assert (described["clips"], described["threads"], described["scaling"]) == (1, torch.get_num_threads(), None)


def test_a_results_file_names_no_folder_and_no_user(
    benchmarks_run: Run,
) -> None:
    results = json.loads((benchmarks_run[0] / "results.json").read_text())
    assert results["machine_info"].keys() == {"cpu", "hstl_fast"}
    assert "project" not in results["commit_info"]
    text = json.dumps(results)
    for private in (str(benchmarks_run[0]), str(REPOSITORY), str(Path.home()), f"/{getpass.getuser()}/"):
        assert private not in text
    assert not any("data" in entry["stats"] for entry in results["benchmarks"])


def selected(option: str) -> list[str]:
    """The workloads that an option keeps."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", option, "--collect-only", "-q"]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [line.partition("::")[2] for line in run.stdout.splitlines() if "::" in line]


@pytest.mark.slow
def test_goals_keep_what_goals_are_set_for() -> None:
    sources = ("people", "walkers")
    latencies = {f"test_latency[{preset}-{source}]" for preset in ("casia-b", "oumvlp", "gait3d") for source in sources}
    others = {f"test_{name}[{source}]" for name in ("gallery", "training_step") for source in sources}
    chosen = {name for name in selected("--goals") if not name.startswith("test_two_threads")}
    assert chosen == {*latencies, *others, "test_forward[casia-b-strips]"}


@pytest.mark.slow
def test_quick_keeps_each_operator() -> None:
    chosen = selected("--quick")
    assert len(chosen) == 6
    assert any("test_latency[casia-b-people]" in line for line in chosen)
    assert all(
        any(f"casia-b-{name}]" in line for line in chosen) for name in ("stages.0.1", "pools.1", "fta", "strips")
    )
