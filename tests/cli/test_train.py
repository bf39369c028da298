"""`hstl-fast train`: where its settings come from, what it prints, and how it ends."""

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hstl_fast.cli import train as command
from hstl_fast.cli import training_output
from hstl_fast.cli.training_output import TerminalWatcher, duration, watch
from hstl_fast.training import Status, TrainingConfig, TrainingStopped, config_dict, load_config
from hstl_fast.training.folder import checkpoint_path
from tests.cli.helpers import run
from tests.training.helpers import small_network, write_data

ROOT = Path(__file__).parents[2]
SHORT = ("--steps", 4, "--batch", "3x2", "--workers", 0, "batch.frames=4", "batch.stretch=4", "saving.tensorboard=no")
RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_data(folder)
    (folder / "network.json").write_text(json.dumps(small_network().config.to_dict()))
    return folder


@pytest.fixture
def arguments(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The arguments of a short training into the folder `run` beside its data."""
    for name in RANKS:
        monkeypatch.delenv(name, raising=False)
    given = {"--data": data / "data", "--partition": data / "partition.json", "--network": data / "network.json"}
    return ["train", *(each for pair in given.items() for each in pair), *SHORT, "--accelerator", "cpu"]


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> list[TrainingConfig]:
    """Have nothing trained; the list gets the configurations."""
    configs: list[TrainingConfig] = []

    def fit(config: TrainingConfig, watcher: object) -> Path:
        configs.append(config)
        return checkpoint_path(Path(config.output), config.schedule.steps)

    monkeypatch.setattr(command, "fit", fit)
    return configs


def printed(*arguments: object) -> dict:
    return yaml.safe_load(run("train", "--print-config", *arguments).stdout)


def test_trains_evaluates_and_says_how_to_evaluate(arguments: list[object], tmp_path: Path) -> None:
    output = tmp_path / "a run"
    result = run(*arguments, "-o", output, "--evaluate-every", 2)
    assert "7 people, 4 types, 2 views, 56 sequences" in result.stderr
    assert "Partition: train 3 people, 24 sequences; test 4 people, 32 sequences" in result.stderr
    assert "Note: schedule.milestones: 70000 of [70000] is not reached in schedule.steps=4" in result.stderr
    assert "Step 4 of 4: loss " in result.stderr
    *evaluations, last, advice = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in evaluations] == ["Step 2, casia-b", "Step 4, casia-b"]
    assert last == f"{output}/checkpoints/step-00000004.pt: 4 steps"
    words = shlex.split(advice.removeprefix("Evaluate it: "))
    assert words[0] == "hstl-fast"
    run(*words[1:], "--json", tmp_path / "out.json")
    lines = [json.loads(line) for line in (output / "evaluation.jsonl").read_text().splitlines()]
    assert lines[-1]["results"] == json.loads((tmp_path / "out.json").read_text())["results"]
    stored = load_config(output / "config.yaml")
    assert config_dict(stored) == printed(*arguments[1:], "-o", output, "--evaluate-every", 2)

    again = run("train", "--config", output / "config.yaml", "schedule.steps=6")
    assert f"{output}: going on from step-00000004.pt" in again.stderr
    assert "schedule.steps: 4 before, 6 now" in again.stderr
    assert again.stdout.splitlines()[-2] == f"{output}/checkpoints/step-00000006.pt: 6 steps"


def test_a_preset_then_files_then_options_then_fields(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("optimizer: {lr: 1e-3}\nseed: 1\nbatch: {people: 4}\nnetwork: {preset: oumvlp}\n")
    (tmp_path / "b.yaml").write_text("seed: 2\nbatch: {sequences: 3}\n")
    files = ["--config", tmp_path / "a.yaml", "--config", tmp_path / "b.yaml"]
    found = printed(*files, "--preset", "gait3d", "--batch", "5x6", "batch.people=7", "data.augmentation.flip=0.5")
    assert found["network"]["preset"] == "gait3d"
    assert found["batch"] == {"people": 7, "sequences": 6, "frames": 30, "stretch": 34}
    assert (found["seed"], found["optimizer"]["lr"], found["loss"]["scale"]) == (2, 1e-3, 16.0)
    assert found["data"]["augmentation"]["flip"] == 0.5
    assert printed() == config_dict(TrainingConfig())


def test_every_option_is_a_field(no_training: list[TrainingConfig], data: Path, tmp_path: Path) -> None:
    run(*("train", "--data", data / "data", "--layout", "folders", "--partition", data / "partition.json"),
        *("-o", tmp_path, "--network", data / "network.json", "--hierarchy", data / "network.json"),
        *("--start", data / "network.json", "--steps", 5, "--lr", "2e-3", "--precision", "bfloat16"),
        *("--backend", "reference", "--accelerator", "cpu", "--devices", 2, "--nodes", 3, "--workers", 4),
        *("--seed", 6, "--evaluate-every", 2, "--batch", "3 x 9"))  # fmt: skip
    (config,) = no_training
    options = {name: field for name, field in command._FIELDS.items() if name != "preset"}
    content, default = config_dict(config), config_dict(TrainingConfig())
    for name, field in options.items():
        section, _, key = field.rpartition(".")
        got, usual = ((each[section][key] if section else each[key]) for each in (content, default))
        assert got != usual, name
    assert (config.batch.people, config.batch.sequences) == (3, 9)


OPENGAIT = "data_cfg: {dataset_name: GREW}\nloss_cfg: {type: TripletLoss, margin: 0.7}\ntrainer_cfg: {fix_BN: false}\n"


@pytest.mark.parametrize("option", ["--opengait", "--config"])
def test_a_file_of_opengait(tmp_path: Path, option: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OPENGAIT)
    result = run("train", "--print-config", option, path, "--steps", 7)
    found = yaml.safe_load(result.stdout)
    assert (found["network"]["preset"], found["loss"]["margin"], found["schedule"]["steps"]) == ("grew", 0.7, 7)
    assert f"{path}: not taken: trainer_cfg.fix_BN=false: batch norm is always trained\n" in result.stderr


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("schedule.step=3",), 1, "command line: schedule.step: expected a field of the configuration, got none of"),
        (("--steps", "70k"), 1, "--steps: schedule.steps: expected a whole number, got '70k'"),
        (("--evaluate-every", "-1"), 1, "--evaluate-every: evaluation.every: expected a whole number of at least 0"),
        (("--batch", "64"), 2, "expected people x sequences of each, such as 8x8; got '64'"),
        (("--batch", "1x8"), 1, "--batch: batch.people: expected a whole number of at least 2; got 1"),
        (("--precision", "fp16"), 2, "expected one of float32, bfloat16, float16; got 'fp16'"),
        (("output=",), 1, "command line: output: expected text, got nothing"),
        (("--data", "nowhere"), 1, "nowhere: expected a data set, got nothing there"),
        (("--batch", "4x2"), 1, "batch.people: expected at most the 3 people of the training set of "),
        (("--evaluate-every", 1, "evaluation.protocol=oumvlp"), 1, "oumvlp needs a gallery of the types 01"),
    ],
)
def test_what_is_refused(
    arguments: list[object], tmp_path: Path, more: tuple[object, ...], code: int, message: str
) -> None:
    result = run(*arguments, "-o", tmp_path / "run", *more, exit_code=code)
    assert message in " ".join(result.stderr.split())
    assert not list(tmp_path.rglob("*.pt"))


def test_data_and_a_folder_are_needed(arguments: list[object]) -> None:
    assert "expected a folder of the training: --output" in run(*arguments, exit_code=2).stderr
    assert "expected data to learn from: --data" in run("train", "-o", "run", exit_code=2).stderr


def test_what_is_left_out_is_reported(arguments: list[object], tmp_path: Path, data: Path) -> None:
    (tmp_path / "p.json").write_text('{"TRAIN_SET": ["001", "002", "003"], "TEST_SET": ["099"]}')
    given = [*arguments, "--partition", tmp_path / "p.json", "-o", tmp_path / "run"]
    result = run(*given, "--strict", "--report", tmp_path / "r.txt", exit_code=1)
    assert "expected to leave out nothing (--strict), got" in result.stderr
    assert "person of the partition, not in the data: 099" in (tmp_path / "r.txt").read_text()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (None, 1)])
def test_a_training_that_was_stopped(
    arguments: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals | None, code: int
) -> None:
    def fit(*_: object, **__: object) -> None:
        stopped = TrainingStopped("stopped after 3 of 4 steps; the same command goes on from there")
        stopped.signal = number
        raise stopped

    monkeypatch.setattr(command, "fit", fit)
    result = run(*arguments, "-o", tmp_path, exit_code=code)
    assert result.stderr.endswith("The training was stopped after 3 of 4 steps; the same command goes on from there.\n")


@pytest.mark.parametrize("variable", RANKS)
def test_other_processes_print_nothing(
    arguments: list[object],
    no_training: list[TrainingConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, "1")
    assert run(*arguments, "-o", tmp_path).output == ""
    assert len(no_training) == 1
    assert run(*arguments, "-o", tmp_path, "a=b", exit_code=1).output == ""


@pytest.mark.parametrize(("error", "text"), [(ValueError, ""), (RuntimeError, "Error in process 1: out of memory\n")])
def test_another_process_says_what_the_first_cannot_know(
    arguments: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: type[Exception],
    text: str,
) -> None:
    def fit(*_: object, **__: object) -> None:
        raise error("out of\nmemory")

    monkeypatch.setattr(command, "fit", fit)
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    monkeypatch.setenv("RANK", "1")
    assert run(*arguments, "-o", tmp_path, exit_code=1).output == ""
    assert capfd.readouterr().err == text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_checkpoint(arguments: list[object], tmp_path: Path, number: signal.Signals) -> None:
    words = [*arguments, "-o", tmp_path / "run", "--steps", 100_000, "saving.log_every=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, "-m", "hstl_fast", *map(str, words)]
    with subprocess.Popen(program, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not (tmp_path / "run" / "log.jsonl").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"The training was stopped by {number.name} after " in errors
    assert "goes on from there." in errors
    assert len(list((tmp_path / "run" / "checkpoints").glob("step-*.pt"))) == 1


@pytest.mark.slow
def test_two_processes_print_and_evaluate_as_one(arguments: list[object], tmp_path: Path) -> None:
    words = [*arguments, "-o", tmp_path / "run", "--evaluate-every", 4]
    program = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "hstl_fast",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*program, *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    evaluation, last, advice = done.stdout.splitlines()
    assert evaluation.startswith("Step 4, casia-b: ")
    assert last == f"{tmp_path}/run/checkpoints/step-00000004.pt: 4 steps"
    run(*shlex.split(advice.removeprefix("Evaluate it: "))[1:], "--json", tmp_path / "out.json")
    (line,) = (tmp_path / "run" / "evaluation.jsonl").read_text().splitlines()
    assert json.loads(line)["results"] == json.loads((tmp_path / "out.json").read_text())["results"]


@pytest.mark.slow
def test_what_a_reading_process_cannot_read_is_said_in_one_sentence(
    arguments: list[object], data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data / "data", tmp_path / "data")
    damaged = sorted((tmp_path / "data" / "001").rglob("*.np*"))
    for path in damaged:
        path.write_bytes(path.read_bytes()[:200])
    arguments[arguments.index("--data") + 1] = tmp_path / "data"
    result = run(*arguments, "--workers", 1, "-o", tmp_path / "run", exit_code=1)
    error = result.stderr.splitlines()[-1]
    assert error.startswith(f"Error: {tmp_path}/data/001/")
    assert "Traceback" not in error


CONFIG = load_config(overrides=["batch.people=2", "batch.sequences=5", "batch.frames=30"])


def ticking(times: list[float]) -> Callable[[], float]:
    left = iter(times)
    return lambda: next(left)


def test_steps_are_told_in_words() -> None:
    told: list[str] = []
    watcher = TerminalWatcher(CONFIG, lambda status, text: told.append(text), ticking([0.0, 2.0, 3.0]))
    watcher.on_step(Status(1, 3, 2.5, 0.1, 7300))
    watcher.on_log({"step": 1, "triplet": 0.25, "cross_entropy": 2.0, "loss": 2.25})
    watcher.on_step(Status(2, 3, 2.25, 0.01, 59.6))
    watcher.on_step(Status(3, 3, 1.0, 1e-5, 0))
    assert told == [
        "loss 2.5000, lr 0.1, 2 h 1 min left",
        "loss 2.2500 (means to step 1: triplet 0.2500, cross entropy 2.0000), lr 0.01, 150 frames/s, 1 min left",
        "loss 1.0000 (means to step 1: triplet 0.2500, cross entropy 2.0000), lr 1e-05, 200 frames/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"), (90000, "1 d 1 h"), (-3, "0 s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    lines = training_output._Lines(ticking([0, 0, 9, 10, 10, 12, 20.5]))
    for step in range(1, 6):
        lines(Status(step, 5, 1.0, 0.1, 0.0), "text")
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [
        "Step 1 of 5", "Step 3 of 5", "Step 5 of 5",
    ]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_live_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "150")
    config = replace(CONFIG, schedule=replace(CONFIG.schedule, steps=2))
    evaluation = {
        "step": 1,
        "protocol": "gait3d",
        "results": {"rank1": 50.0},
        "counts": {"people": 2, "probes": 4, "gallery": 4},
        "remarks": ["A remark."],
    }
    with watch(config) as watcher:
        watcher.on_step(Status(1, 2, 1.5, 0.1, 3.0))
        watcher.on_evaluation(evaluation)
        watcher.on_evaluation(evaluation)
        watcher.on_notice("mind this")
    shown = terminal.getvalue()
    assert "1/2" in shown
    assert "loss 1.5000, lr 0.1, 3 s left" in shown
    assert shown.count("Note: A remark.") == 1
    assert "Warning: mind this" in shown
    line = "Step 1, gait3d: rank-1 50.00 % (2 people, 4 probes, 4 gallery sequences)\n"
    assert capsys.readouterr().out == 2 * line
