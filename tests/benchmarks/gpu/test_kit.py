"""The GPU kit on the CPU, in tiny sizes: its stages, runs that are continued, and whatever may go wrong in one."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from benchmarks.core.correctness import Bounds, Errors
from benchmarks.gpu import __main__ as kit
from benchmarks.gpu import (
    baselines,
    check,
    check_endurance,
    check_networks,
    check_operators,
    compare,
    environment,
    numerics,
    profiling,
    stages,
    suite,
    supervise,
    table,
    timing,
    workloads,
)
from benchmarks.gpu.baselines import Contestant
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.stages import Setup
from benchmarks.gpu.store import Store, Unusable
from benchmarks.gpu.supervise import CannotStart, Job, Row, Say
from hstl_fast import functional
from hstl_fast.ops import _dispatch
from tests.benchmarks.gpu import jobs

REPOSITORY = Path(__file__).parents[3]
CPU = torch.device("cpu")
IDENTITY = {"kit": "k", "torch": "2", "device": "d", "tiny": True}
FLOAT32 = Numerics(torch.float32)


@pytest.fixture(autouse=True)
def quiet(one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


class Heard(Say):
    """Keeps what a job says."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}

    def doing(self, key: str) -> None:
        pass

    def row(self, key: str, row: Row) -> None:
        self.rows[key] = row


class Spoilt(Contestant):
    """Ours, its layer's output passed through a function."""

    def prepare(self, network: nn.Module, training: bool) -> nn.Module:
        layer = super().prepare(network, training)
        layer.register_forward_hook(lambda module, inputs, y: SPOIL[self.name](y))
        return layer


def _broken(y: Tensor) -> Tensor:
    raise RuntimeError("a kernel that does not start\nand says so at length")


SPOIL: dict[str, Callable[[Tensor], Tensor]] = {
    "wrong": lambda y: y * 1.5,
    "not a number": lambda y: y / 0,
    "broken": _broken,
}


def run(out: Path, *arguments: str) -> int:
    return kit.main(["--out", str(out), "--device", "cpu", "--tiny", *arguments])


def rows_in(out: Path) -> dict[str, dict[str, Row]]:
    rows: dict[str, dict[str, Row]] = json.loads((out / "results.json").read_text())["rows"]
    return rows


def supervised(
    execute: supervise.Execute, jobs: list[tuple[str, ...]], folder: Path, limit: float = 30, budget: float = 60
) -> dict[str, Row]:
    rows: dict[str, Row] = {}
    listed = [Job("bench", f"job {i}", keys, limit) for i, keys in enumerate(jobs)]
    supervise.supervise(listed, execute, rows.__setitem__, time.monotonic() + budget, folder / "log.txt")
    return rows


def statuses(rows: dict[str, Row]) -> dict[str, str]:
    return {key: row["status"] for key, row in rows.items()}


def test_what_ends_its_process_costs_one_row(tmp_path: Path) -> None:
    rows = supervised(jobs.obey, [("a", "die-1", "b"), ("raise-1", "c"), ("break-1", "d")], tmp_path)
    assert statuses(rows) == {
        "a": "ok",
        "die-1": "died",
        "b": "ok",
        "raise-1": "failed",
        "c": "failed",
        "break-1": "ok",
        "d": "ok",
    }
    assert rows["die-1"]["reason"] == "its process was ended by SIGSEGV"
    assert rows["c"]["reason"] == "ValueError: no such thing in file.py"
    assert len({rows[key]["process"] for key in ("a", "b", "d")}) == 3
    assert rows["b"]["process"] == rows["break-1"]["process"]


def test_rows_made_together_are_tried_alone_after_a_death(tmp_path: Path) -> None:
    rows = supervised(jobs.die_together, [("a", "die-1", "b")], tmp_path)
    assert statuses(rows) == {"a": "ok", "die-1": "died", "b": "ok"}
    assert rows["die-1"]["reason"] == "its process ended with exit code 7"


def test_limits_of_a_row_and_of_the_stage(tmp_path: Path) -> None:
    rows = supervised(jobs.obey, [("hang-1", "a"), ("hang-2", "b")], tmp_path, limit=1, budget=60)
    assert rows["hang-1"] == {"status": "stopped", "reason": "stopped after 1 seconds, its limit"}
    assert statuses(rows) == {"hang-1": "stopped", "a": "ok", "hang-2": "stopped", "b": "ok"}
    rows = supervised(jobs.obey, [("hang-1", "a"), ("b",)], tmp_path, budget=3)
    assert statuses(rows) == {"hang-1": "not reached", "a": "not reached", "b": "not reached"}


def test_a_job_without_all_its_rows(tmp_path: Path) -> None:
    rows = supervised(jobs.skip_a_row, [("a", "b")], tmp_path)
    assert statuses(rows) == {"a": "ok", "b": "failed"}
    rows = supervised(jobs.leave_at_once, [("a",)], tmp_path)
    assert rows["a"] == {"status": "died", "reason": "its device no longer answered"}


def test_a_process_that_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"ended at once \(ended with exit code 1\)"):
        supervised(jobs.Unimportable(), [("a",)], tmp_path)


def test_the_store_is_whole_and_continues(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    first = Store(out, IDENTITY, {}, fresh=False)
    first.put("bench", "w | a", {"status": "wrong", "error": float("nan")})
    first.put("bench", "w | b", {"status": "not reached"})
    first.put("bench", "w | c", {"status": "wrong", "sources": "old"})
    first.put("bench", "w | e", {"status": "stopped"})
    first.put("bench", "w | f", {"status": "failed"})
    assert rows_in(out)["bench"]["w | a"] == {"status": "wrong", "error": "nan"}
    keys = [f"w | {name}" for name in "abcdef"]
    again = Store(out, IDENTITY, {}, fresh=False)
    assert again.open("bench", keys, "new") == ["w | b", "w | c", "w | d", "w | e"]
    assert again.open("bench", keys, "old") == ["w | b", "w | d", "w | e"]


@pytest.mark.parametrize("name", IDENTITY)
def test_other_results_are_left_alone(tmp_path: Path, name: str) -> None:
    Store(tmp_path, IDENTITY, {}, fresh=False).put("bench", "w | a", {"status": "failed"})
    before = held(tmp_path)
    with pytest.raises(Unusable, match=rf"--out holds other results \({name} .*, now other\).*--fresh"):
        Store(tmp_path, {**IDENTITY, name: "other"}, {}, fresh=False)
    assert held(tmp_path) == before


def held(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_fresh_throws_away_what_the_kit_wrote(tmp_path: Path) -> None:
    old = Store(tmp_path, {**IDENTITY, "kit": "old"}, {}, fresh=False)
    old.put("bench", "w | a", {"no": "status"})
    old.write_table("old")
    (tmp_path / "log.txt").write_text("old")
    (tmp_path / "mine.txt").write_text("precious")
    assert Store(tmp_path, IDENTITY, {}, fresh=True).open("bench", ["w | a"], "old") == ["w | a"]
    assert sorted(held(tmp_path)) == ["mine.txt", "results.json"]
    assert rows_in(tmp_path) == {}


OF_OTHERS = [
    {"results.json": "{"},
    {"results.json": "[]"},
    {"results.json": '{"format": 1, "rows": {}}'},
    {"results.json": '{"format": 1, "rows": {}, "identity": "of a kit"}'},
    {"results.json": '{"machine_info": {}, "benchmarks": [], "version": "5"}', "log.txt": "precious"},
    {"log.txt": "precious"},
    {"table.md": "precious"},
]


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("files", OF_OTHERS)
def test_files_of_others_are_left_alone(tmp_path: Path, files: dict[str, str], fresh: bool) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Unusable, match=r"this kit.*; name another folder$"):
        Store(tmp_path, IDENTITY, {}, fresh)
    assert held(tmp_path) == files


def test_any_other_file_may_lie_in_the_folder(tmp_path: Path) -> None:
    names = ["probe", "results", "results.json.tmp", ".results.json"]
    for name in names:
        (tmp_path / name).write_text("precious")
    Store(tmp_path, IDENTITY, {}, fresh=False).write_table("new")
    after = held(tmp_path)
    assert sorted(after) == sorted([*names, "results.json", "table.md"])
    assert {after[name] for name in names} == {"precious"}


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        (None, "expected rows by stage and name"),
        ({"bench": "w"}, "expected rows by stage and name"),
        ({"bench": {"w | a": "ok"}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"reason": "lost"}}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"status": ["ok"]}}}, r"row 'w \| a' of bench has no status"),
        ({"bench": {"w | a": {"status": "ok"}}}, r"row 'w \| a' of bench lacks what its table shows"),
        ({"check": {"a": {"status": "pass"}}}, "row 'a' of check lacks what its table shows"),
    ],
)
def test_a_damaged_file_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: object, fault: str
) -> None:
    identity = environment.identity(CPU, tiny=True)
    (tmp_path / "results.json").write_text(json.dumps({"format": 1, "identity": identity, "rows": rows}))
    before = held(tmp_path)
    assert run(tmp_path, "--stage", "check", *CHOSEN) == 2
    printed = capsys.readouterr().err
    assert re.fullmatch(rf"benchmarks\.gpu: .*results\.json is damaged: {fault}; name .* --fresh .*\n", printed)
    assert held(tmp_path) == before


def test_results_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format": 0, "identity": IDENTITY, "rows": []}))
    with pytest.raises(Unusable, match=r"is of another version \(format 0, now 1\).*--fresh"):
        Store(tmp_path, IDENTITY, {}, fresh=False)
    Store(tmp_path, IDENTITY, {}, fresh=True)


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "file" / "out") == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "cannot be written: Not a directory" in printed


def test_a_table_that_cannot_be_replaced(tmp_path: Path) -> None:
    store = Store(tmp_path, IDENTITY, {}, fresh=False)
    (tmp_path / "table.md").mkdir()
    with pytest.raises(Unusable, match=r"table\.md cannot be written: (Is a directory|.* got a folder)"):
        store.write_table("new")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kit.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "--device cuda needs a GPU that torch can use" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_budget_must_be_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "--budget", "0") == 2
    assert "--budget must be positive seconds, got 0" in capsys.readouterr().err


CHOSEN = ("--only", "arme 6-10 [5, 1, 3] 14x9x7 | float32")


def test_a_run_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environment, "sources", lambda: "first")
    monkeypatch.setattr(environment, "kit", lambda: "kit")
    assert run(tmp_path, "--stage", "check", "--budget", "0.01", *CHOSEN) == 3
    rows = rows_in(tmp_path)["check"]
    assert set(statuses(rows).values()) == {"not reached"}
    assert capsys.readouterr().err.endswith(
        f": {len(rows)} rows were NOT REACHED; run the same command again to go on\n"
    )
    assert run(tmp_path, "--stage", "check", *CHOSEN) == 0
    rows = rows_in(tmp_path)["check"]
    assert set(statuses(rows).values()) == {"pass"}
    assert {key.rsplit(" | ", 1)[1] for key in rows} == set(check_operators.backends(_case("arme"), CPU, torch.float32))
    capsys.readouterr()
    monkeypatch.setattr(supervise, "_serve", None)
    assert run(tmp_path, "--stage", "check", *CHOSEN) == 0, "nothing is left to do, so no process is needed"
    printed = capsys.readouterr().out
    assert "check: " not in printed.replace("## check: ", "")
    assert printed == (tmp_path / "table.md").read_text()
    monkeypatch.setattr(environment, "sources", lambda: "second")
    assert run(tmp_path, "--stage", "check", "--budget", "0.01", *CHOSEN) == 3
    assert set(statuses(rows_in(tmp_path)["check"]).values()) == {"not reached"}


def test_text_in_no_name_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "out", "--stage", "check", "--only", "zzzz") == 2
    printed = capsys.readouterr().err
    assert printed.startswith("benchmarks.gpu: --only 'zzzz' is in no row's name of check; one is 'arme 6-10")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stage", "status", "code"),
    [
        ("check", {"c | float32 | cpu": "pass"}, 3),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "not reached"}, 3),
        ("check", {"c | float32 | cpu": "fail"}, 1),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "unheard of"}, 1),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "pass"}, 0),
        ("check", {"c | float32 | cpu": "pass", "c | float32 | reference": "stopped"}, 1),
        ("bench", {"w | hstl_fast auto, float32": "ok", "w | eager float32": "not reached"}, 3),
        ("bench", {"w | hstl_fast auto, float32": "ok", "w | eager float32": "wrong"}, 0),
        ("bench", {"w | hstl_fast auto, float32": "wrong", "w | eager float32": "ok"}, 1),
    ],
)
def test_only_what_ran_and_passed_is_0(tmp_path: Path, stage: str, status: dict[str, str], code: int) -> None:
    keys = {"check": ("c | float32 | cpu", "c | float32 | reference")}
    keys["bench"] = ("w | hstl_fast auto, float32", "w | eager float32")
    store = Store(tmp_path, IDENTITY, {}, fresh=False)
    store.put(stage, "not asked for | hstl_fast auto, float32", {"status": "fail"})
    for key, value in status.items():
        store.put(stage, key, {"status": value})
    assert kit._verdict({stage: [Job(stage, "j", keys[stage], 1)]}, store) == code


def test_a_killed_run_keeps_what_it_had(tmp_path: Path, environment: dict[str, str]) -> None:
    arguments = ["--out", str(tmp_path), "--device", "cpu", "--tiny", "--stage", "check", "--only", "arme 6-10"]
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    with subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("check: arme 6-10")
        process.kill()
    rows = rows_in(tmp_path)["check"]
    assert rows
    assert set(statuses(rows).values()) == {"pass"}


def test_figures_and_ceilings_reach_the_table(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "bench", "--only", "ceilings") == 0
    layer = next(w.name for w in suite.workloads(tiny=True) if w.group == "arme forward and backward")
    assert run(tmp_path, "--stage", "bench", "--only", layer) == 0
    rows = rows_in(tmp_path)["bench"]
    assert rows["ceilings | float32 product"]["flop_per_second"] > 0
    assert rows["ceilings | device copy"]["byte_per_second"] > 0
    measured = {key: row for key, row in rows.items() if key.startswith(layer)}
    assert set(statuses(measured).values()) == {"ok"}
    released = measured[f"{layer} | eager float16 autocast, released setting"]
    assert (released["cudnn_deterministic"], released["cudnn_benchmark"]) == (True, False)
    ours = measured[f"{layer} | hstl_fast auto, float32"]
    assert ours["backends"] == dict.fromkeys(_dispatch.OPERATORS, "cpu") or "cpu" not in baselines.backends(
        CPU, torch.float32
    )
    assert ours["device"]["rounds"] == compare.TINY_ROUNDS
    text = (tmp_path / "table.md").read_text()
    assert f"| hstl_fast auto, float32 | {ours['device']['median'] * 1e3:.3f} |" in text
    assert "- float32 product: " in text


def test_the_table_gives_the_share_of_the_ceiling() -> None:
    times = {"device": {"median": 0.5, "low": 0.4, "high": 0.6}, "wall": {"median": 0.5}}
    figures = {"sequences_per_second": 2.0, "peak_bytes": None, "errors": {"output": 1e-7, "gradient": None}}
    flags = {"cudnn_benchmark": False, "cudnn_deterministic": False, "seconds_to_first_answer": 12.34}
    row = {"status": "ok", "precision": "bfloat16", **times, **figures, **flags}
    rows = {
        "ceilings | bfloat16 product": {"status": "ok", "flop_per_second": 8e12},
        "ceilings | device copy": {"status": "ok", "byte_per_second": 4e9},
        "arme | a": {**row, "dense_flop_per_second": 6e12, "byte_per_second": None},
        "fta | b": {**row, "dense_flop_per_second": 6e12, "byte_per_second": 1e9},
        "fta | c": {**row, "precision": "tf32", "dense_flop_per_second": 6e12, "byte_per_second": None},
    }
    lines = table.render_rows({"bench": rows}).splitlines()
    shares = {line[2]: line.split(" | ")[6] for line in lines if line[:4] in ("| a ", "| b ", "| c ")}
    assert shares == {"a": "75%", "b": "25%", "c": "-"}
    assert next(line for line in lines if line.startswith("| a ")).endswith("| 12.3 |")


def test_bytes_are_those_of_the_passes() -> None:
    found = {}
    for workload in suite.workloads(tiny=True):
        if workload.group.split()[0] in ("arme", "astp", "strip_pool", "fta"):
            problem = workload.build(CPU)
            assert isinstance(problem, workloads.Operator)
            x = problem.x.numel()
            moved = problem.moved(2)
            found[workload.group] = moved if moved is None else moved / x
    assert found == {
        "arme forward": None,
        "arme forward and backward": None,
        "astp forward": 2,
        "astp forward and backward": 4,
        "strip_pool forward": 2,
        "strip_pool forward and backward": 4,
        "fta forward": pytest.approx(2 * (2 + 1 / 3)),
        "fta forward and backward": pytest.approx(2 * (5 + 1)),
    }


def test_many_steps_in_float16_are_a_row(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "check", "--only", "steps on") == 0
    rows = rows_in(tmp_path)["check"]
    assert len(rows) == 2 * len(
        [name for name in ("auto", *baselines.backends(CPU, torch.float16)) if name != "reference"]
    )
    for row in rows.values():
        assert row["status"] == "pass"
        assert row["steps"] == check_endurance.TINY_STEPS
    assert all(row["last_loss"] < row["first_loss"] for key, row in rows.items() if "people" in key)


def test_losses_that_are_not_finite_fail() -> None:
    assert check_endurance.verdict([1.0, 0.5], 20, 2)["status"] == "pass"
    for losses in ([1.0, float("nan")], [1.0, float("inf")]):
        assert check_endurance.verdict(losses, 0, 2)["reason"] == f"the loss of step 1 of 2 is {losses[1]}"
    assert check_endurance.verdict([1.0, 1.0], 21, 2)["reason"] == "21 of 2 steps were skipped, 20 may be"


def test_embedding_from_the_host_is_the_same() -> None:
    workload = next(w for w in suite.workloads(tiny=True) if w.name.startswith("embedding from the host"))
    say = Heard()
    wanted = [Contestant("plain", FLOAT32), Contestant("ours", FLOAT32, torch.channels_last_3d, "auto")]
    compare.compare(workload, wanted, CPU, say, rounds=2)
    assert set(statuses(say.rows).values()) == {"ok"}


def test_a_profile_names_its_kernels(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "profile", "--only", "clips x 3 frames | eager float32") == 0
    (row,) = rows_in(tmp_path)["profile"].values()
    assert row["status"] == "ok"
    assert any("conv" in kernel["name"] for kernel in row["kernels"][:10])
    assert sum(kernel["share"] for kernel in row["kernels"]) <= 1 + 1e-6
    assert "## profile" in (tmp_path / "table.md").read_text()
    assert not (tmp_path / "traces").exists()


def test_nothing_in_the_results_names_the_host(tmp_path: Path) -> None:
    described = json.dumps(environment.describe(CPU))
    for secret in (os.uname().nodename, str(REPOSITORY), str(Path.home()), sys.prefix):
        assert secret not in described
    error = OSError(f"[Errno 2] No such file: '{REPOSITORY}/benchmarks/gpu/a.py', see https://example.org/a/b")
    assert supervise.plain_words(error) == "OSError: [Errno 2] No such file: a.py', see https://example.org/a/b"


def test_wrong_and_broken_contestants_do_not_stop_the_others() -> None:
    workload = next(w for w in suite.workloads(tiny=True) if w.group == "fta forward and backward")
    right = Contestant("right", FLOAT32, torch.channels_last_3d, "reference")
    spoilt = [Spoilt(name, FLOAT32, torch.channels_last_3d, "reference") for name in SPOIL]
    say = Heard()
    compare.compare(workload, [*spoilt, right], CPU, say, rounds=2)
    found = {key.rsplit(" | ")[1]: row for key, row in say.rows.items()}
    assert {name: row["status"] for name, row in found.items()} == {
        "wrong": "wrong",
        "not a number": "wrong",
        "broken": "failed",
        "right": "ok",
    }
    assert found["broken"]["reason"] == "RuntimeError: a kernel that does not start and says so at length"
    assert found["wrong"]["errors"]["output"] == pytest.approx(0.5, rel=1e-3)
    assert "device" not in found["wrong"]
    assert found["right"]["wall"]["rounds"] == 2


def test_torch_compile_is_timed_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation itself is left out: this is about who is measured with whom."""
    monkeypatch.setattr(nn.Module, "compile", lambda *arguments, **options: None)
    workload = next(w for w in suite.workloads(tiny=True) if w.group == "strip_pool forward")
    say = Heard()
    compare.compare(workload, [c for c in baselines.COMPILED if c.layout == torch.channels_last_3d], CPU, say, rounds=2)
    (row,) = say.rows.values()
    assert (row["status"], row["torch_compile"]) == ("ok", "max-autotune")
    assert row["beside hstl_fast auto, bfloat16 autocast"]["wall"]["rounds"] == 2


def _case(operator: str, lengths: tuple[int, ...] = (), support: bool = False) -> check_operators.Case:
    return next(
        case
        for case in check_operators.cases(tiny=True)
        if (case.operator, case.lengths, case.support) == (operator, lengths, support)
    )


@pytest.mark.parametrize("operator", check_operators.NAMES)
def test_operators_are_right(operator: str) -> None:
    for case in (c for c in check_operators.cases(tiny=True) if c.operator == operator):
        keys = tuple(key for key, _, _ in check_operators.keys(case, CPU))
        say = Heard()
        check.execute(Job("check", case.name, keys, 60), say, CPU, tiny=True)
        assert tuple(say.rows) == keys
        assert {key: row.get("reason") for key, row in say.rows.items() if row["status"] != "pass"} == {}


@pytest.mark.parametrize("spoilt", ["output", "gradient"])
def test_a_wrong_operator_fails(monkeypatch: pytest.MonkeyPatch, spoilt: str) -> None:
    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, y: Tensor) -> Tensor:
            return y * (1.01 if spoilt == "output" else 1)

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * (1.01 if spoilt == "gradient" else 1)

    right = functional.fta
    monkeypatch.setattr(functional, "fta", lambda *args, **options: Off.apply(right(*args, **options)))
    case = _case("fta", check_operators.ODD_LENGTHS, support=True)
    keys = tuple(key for key, mode, _ in check_operators.keys(case, CPU) if mode == FLOAT32)
    say = Heard()
    check.execute(Job("check", case.name, keys, 60), say, CPU, tiny=True)
    assert set(statuses(say.rows).values()) == {"fail"}
    assert all(row["reason"].startswith(f"{spoilt} is off by 1.0e-02") for row in say.rows.values())


def test_an_operator_that_raises_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def raising(*arguments: object, **options: object) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(functional, "arme", raising)
    case = _case("arme")
    keys = tuple(key for key, _, _ in check_operators.keys(case, CPU))
    say = Heard()
    check.execute(Job("check", case.name, keys, 60), say, CPU, tiny=True)
    assert tuple(say.rows) == keys
    assert all(row == {"status": "failed", "reason": "RuntimeError: no such kernel"} for row in say.rows.values())


def test_the_rule_is_twice_torchs_error() -> None:
    bounds = Bounds(5e-5, 1e-4)

    def status(output: float, gradient: float, torchs: Errors) -> str:
        return str(check.verdict(Errors(output, gradient), torchs, "float32", bounds)["status"])

    assert status(1.9e-6, 1.9e-5, Errors(1e-6, 1e-5)) == "pass"
    assert status(2.1e-6, 1.9e-5, Errors(1e-6, 1e-5)) == "fail"
    assert status(1.9e-6, 2.1e-5, Errors(1e-6, 1e-5)) == "fail"
    assert status(4e-7, 1.9e-6, Errors(0.0, 0.0)) == "pass"
    assert status(float("nan"), 0.0, Errors(1e-6, 1e-5)) == "fail"
    suspect = check.verdict(Errors(4e-5, 0.0), Errors(float("nan"), 0.0), "float32", bounds)
    assert suspect["status"] == "pass"
    assert suspect["torch_is_wrong"] == "output is off by nan, 5e-05 allowed"
    assert status(0.5, 0.0, Errors(0.4, 0.0)) == "fail", "torch's being wrong excuses nobody"


def test_inputs_have_no_ties_and_are_exact_in_every_type() -> None:
    for operator in check_operators.NAMES:
        given = check_operators.operands(_case(operator, check_operators.ODD_LENGTHS), CPU)
        ordered = given.x.sort(2).values
        assert (ordered[:, :, 1:] != ordered[:, :, :-1]).all()
        assert given.x.amax(2).unique().numel() > 5
        for tensor in (given.x, *given.parameters.values()):
            if tensor is not None:
                assert torch.equal(tensor, tensor.bfloat16().double())
                assert torch.equal(tensor, tensor.half().double())


def test_networks_are_right() -> None:
    case = check_networks.Case("casia-b", "training step")
    keys = tuple(key for key, mode, _ in check_networks.keys(case, CPU) if mode == FLOAT32)
    say = Heard()
    check.execute(Job("check", case.name, keys, 60), say, CPU, tiny=True)
    assert tuple(say.rows) == keys
    assert set(statuses(say.rows).values()) == {"pass"}
    assert all(0 < row["errors"]["gradient"] < 1e-3 for row in say.rows.values())


def test_everything_asked_for_is_planned() -> None:
    published = check_operators.cases(tiny=False)
    widths = {(c.size.c_in, c.size.c_out) for c in published if c.operator == "arme" and c.size.rows >= 32}
    assert widths == {(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)}
    assert {case.operator for case in published} == set(check_operators.NAMES)
    tasks = {(case.preset, case.task) for case in check_networks.cases(tiny=False)}
    assert {(preset, task) for preset in ("casia-b", "oumvlp", "gait3d") for task in check_networks.TASKS} < tasks
    jobs = compare.jobs(CPU, tiny=False)
    assert jobs[0].name == compare.CEILINGS
    assert jobs[1].name == "training step: casia-b, 8 x 8 clips x 30 frames"
    compiled = [any("torch.compile" in key for key in job.keys) for job in jobs]
    assert compiled == sorted(compiled), "those that compile come last"
    assert any(compiled)
    for stage in stages.STAGES:
        keys = [key for job in stages.jobs(stage, Setup("cpu", tiny=False)) for key in job.keys]
        assert len(keys) == len(set(keys))


def test_kernels_added_later_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _dispatch.why_not

    def with_triton(operator: str, backend: str, *arguments: object, **options: object) -> str | None:
        return None if backend == "triton" else before(operator, backend, *arguments, **options)

    gpu = torch.device("cuda")
    assert baselines.backends(gpu, torch.bfloat16) == ["reference"]
    monkeypatch.setattr(_dispatch, "why_not", with_triton)
    assert baselines.backends(gpu, torch.bfloat16) == ["reference", "triton"]
    names = [contestant.name for contestant in baselines.contestants(gpu)]
    assert "hstl_fast triton, bfloat16 autocast" in names
    assert "hstl_fast triton, float16 autocast" in names
    assert "hstl_fast reference, bfloat16 autocast" not in names, "it is what auto picks"
    monkeypatch.setattr(_dispatch, "UNVERIFIED", frozenset())
    names = [contestant.name for contestant in baselines.contestants(gpu)]
    assert "hstl_fast reference, bfloat16 autocast" in names
    assert "hstl_fast triton, bfloat16 autocast" not in names, "it is what auto picks"
    keys = [key for key, _, _ in check_operators.keys(_case("astp"), gpu)]
    assert "astp 6-10 [5, 1, 3] 14x9x7 | tf32 | triton" in keys


@pytest.mark.parametrize("mode", numerics.checked(torch.device("cuda")), ids=str)
def test_switches_are_put_back(mode: Numerics) -> None:
    before = numerics._switches()
    with mode._replace(benchmark=True, deterministic=True).on(CPU):
        assert numerics._switches() == (mode.tf32, mode.tf32, True, True)
        assert torch.is_autocast_enabled("cpu") == mode.autocast
    assert numerics._switches() == before


def test_kernels_by_their_share() -> None:
    events = [("conv", 3.0), ("cat", 1.0), ("conv", 4.0), *((f"small {i}", 0.01) for i in range(100))]
    found = profiling.shares(iter(events))
    assert [kernel["name"] for kernel in found["kernels"][:2]] == ["conv", "cat"]
    assert found["kernels"][0] == {"name": "conv", "calls": 2, "seconds": 7.0, "share": pytest.approx(7 / 9)}
    assert len(found["kernels"]) == profiling.KERNELS
    assert found["seconds_of_others"] == pytest.approx(9.0 - sum(k["seconds"] for k in found["kernels"]))


def test_kernels_of_a_gpu_are_told_from_what_calls_them() -> None:
    gpu, cpu = profiling.DeviceType.CUDA, profiling.DeviceType.CPU

    def event(name: str, device: object, microseconds: float, annotation: bool = False) -> SimpleNamespace:
        span = SimpleNamespace(elapsed_us=lambda: microseconds)
        return SimpleNamespace(name=name, device_type=device, time_range=span, is_user_annotation=annotation)

    events = [event("aten::conv3d", cpu, 9), event("wgrad", gpu, 2), event("step", gpu, 5, annotation=True)]
    recorded = SimpleNamespace(events=lambda: events)
    assert profiling._kernels(recorded, torch.device("cuda")) == [("wgrad", 2e-6)]


def test_the_device_is_kept_busy_while_work_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            happened.append("event")

        def elapsed_time(self, later: object) -> float:
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("wait"))
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: happened.append(f"sleep {cycles}"))
    seconds = timing.device_seconds(lambda: happened.append("call"), torch.device("cuda"), queueing=0.01)
    assert seconds == 0.0025
    assert happened == ["wait", "sleep 30000000", "event", "call", "event", "wait"]


def test_memory_is_what_one_call_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = {"memory_allocated": 10, "memory_reserved": 20, "max_memory_allocated": 17, "max_memory_reserved": 29}
    for name, value in figures.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    for name in ("synchronize", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert timing.peak_memory(lambda: None, torch.device("cuda")) == (7, 9)
    assert timing.peak_memory(lambda: None, CPU) is None


def test_nvidia_smi_is_asked_for_this_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1-2"))
    program.write_text('#!/bin/sh\n[ "$1 $2" = "-i GPU-1-2" ] && echo "580.1, 345, 3201, 1980, 3201, 75.5, 700.00"\n')
    program.chmod(0o755)
    found = environment.clocks(torch.device("cuda"))
    assert (found["driver_version"], found["clocks.sm"], found["power.limit"]) == ("580.1", "345", "700.00")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert environment.clocks(torch.device("cuda")) == {"unavailable": "CalledProcessError"}


def test_channels_last_weights_are_the_same_weights() -> None:
    workload = next(w for w in suite.workloads(tiny=True) if w.group == "arme forward")
    problem = workload.build(CPU)
    plain, last = (
        Contestant("a", FLOAT32, layout).prepare(problem.network, False)
        for layout in (torch.contiguous_format, torch.channels_last_3d)
    )
    for a, b in zip(plain.parameters(), last.parameters(), strict=True):
        assert torch.equal(a, b)
        assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in b)


def test_the_kit_is_no_benchmark_of_pytests() -> None:
    names = {path.name for path in (REPOSITORY / "benchmarks" / "gpu").glob("*.py")}
    assert not [name for name in names if name.startswith(("bench_", "test_"))]


@pytest.mark.slow
def test_torch_compile_on_a_cpu(tmp_path: Path) -> None:
    assert run(tmp_path, "--stage", "bench", "--only", "embedding: casia-b, 1 x 3 frames | torch.compile") == 0
    assert set(statuses(rows_in(tmp_path)["bench"]).values()) == {"ok"}


@pytest.mark.slow
def test_every_stage_in_order(tmp_path: Path) -> None:
    assert run(tmp_path, "--only", "casia-b, 2 x 2 clips x 3 frames | hstl_fast auto") == 0
    rows = rows_in(tmp_path)
    assert list(rows) == ["bench", "profile"]
    assert all(set(statuses(stage).values()) == {"ok"} for stage in rows.values())
