"""YAML files of a training: what they say, which of them wins, and what is said of a mistake."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hstl_fast import PRESETS
from hstl_fast.data import Augmentation
from hstl_fast.training import (
    BatchConfig,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    MachineConfig,
    NetworkConfig,
    OptimizerConfig,
    SavingConfig,
    ScheduleConfig,
    TrainingConfig,
    config_dict,
    config_from_dict,
    load_config,
    to_yaml,
)
from hstl_fast.training.checks import ACCELERATORS, LAYOUT_NAMES, OPTIMIZERS, PRECISIONS, TRAINING_PROTOCOLS
from hstl_fast.training.plain import all_fields

PROBABILITIES = st.floats(0, 1)
COUNTS = st.integers(1, 10**12)
WEIGHTS = st.floats(0, 1e300)
# Paths may hold bytes that are no UTF-8, which Python shows as lone surrogates.
TEXTS = st.text(st.characters(exclude_categories=()), min_size=1) | st.sampled_from(["null", "~", "no", "1e-4", "a: b"])


@st.composite
def configs(draw: Callable) -> TrainingConfig:
    frames, stretch = sorted(draw(st.tuples(COUNTS, COUNTS)))
    return TrainingConfig(
        draw(TEXTS),
        draw(st.integers(0, 2**63 - 1)),
        DataConfig(
            draw(TEXTS),
            draw(st.sampled_from(LAYOUT_NAMES)),
            draw(st.none() | TEXTS),
            draw(st.integers(0, 99)),
            Augmentation(*(draw(PROBABILITIES) for _ in range(4))),
        ),
        NetworkConfig(draw(st.sampled_from(list(PRESETS))), *(draw(st.none() | TEXTS) for _ in range(3))),
        BatchConfig(1 + draw(COUNTS), draw(COUNTS), frames, stretch),
        LossConfig(1.0, draw(WEIGHTS), draw(WEIGHTS), draw(st.floats(1e-300, 1e300)), draw(st.floats(0, 0.999))),
        OptimizerConfig(draw(st.sampled_from(OPTIMIZERS)), draw(st.floats(1e-300, 1)), draw(WEIGHTS), 0.5),
        ScheduleConfig(draw(COUNTS), sorted(draw(st.sets(COUNTS)))),
        MachineConfig(
            draw(st.sampled_from(ACCELERATORS)),
            draw(st.sampled_from(["auto", "1", "0,2", "3,"])),
            draw(COUNTS),
            draw(st.sampled_from(PRECISIONS)),
            "reference",
            draw(st.booleans()),
            draw(st.booleans()),
        ),
        SavingConfig(draw(COUNTS), draw(COUNTS), draw(COUNTS), draw(st.booleans())),
        EvaluationConfig(
            draw(COUNTS), draw(st.none() | st.sampled_from(TRAINING_PROTOCOLS)), "cosine", draw(st.none() | COUNTS)
        ),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yaml")


@settings(max_examples=30, deadline=None)
@given(config=configs())
def test_what_is_written_reads_back_equal(folder: Path, config: TrainingConfig) -> None:
    path = folder / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8", newline="")
    assert load_config(path) == config
    assert config_from_dict(config_dict(config)) == config


def test_other_readers_of_yaml_read_the_same_values() -> None:
    config = replace(TrainingConfig(), output="no", optimizer=OptimizerConfig(lr=1e-5))
    assert yaml.safe_load(to_yaml(config)) == config_dict(config)


def test_every_field_is_described() -> None:
    lines = to_yaml(TrainingConfig()).splitlines()
    for name in {field.path.rpartition(".")[2] for field in all_fields()}:
        places = [i for i, line in enumerate(lines) if line.strip().startswith(f"{name}:")]
        assert places, name
        assert all(lines[i - 1].strip().startswith("#") for i in places), name
    assert not any("None" in line for line in lines)


def test_a_preset_then_files_then_overrides(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("network: {preset: gait3d}\nbatch: {people: 4, sequences: 2}\nschedule.steps: 7\n")
    second.write_text("batch:\n  people: 6\nloss:\n")
    config = load_config([first, second], ["batch.sequences=3", "optimizer.lr = 1e-3"])
    assert config.batch == BatchConfig(6, 3, 30, 34)
    assert (config.loss, config.schedule.steps) == (TrainingConfig.from_preset("gait3d").loss, 7)
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 1e-3)
    assert load_config(first, ["network.preset=oumvlp"]).loss == TrainingConfig.from_preset("oumvlp").loss
    assert load_config() == TrainingConfig()


def test_values_have_the_types_of_their_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "output: 2024\n"
        "seed: 1_000\n"
        "data: {path: no, partition: 'null', workers: 0}\n"
        "optimizer: {lr: 1e-4, weight_decay: 5E-4}\n"
        "schedule: {milestones: [10, 20]}\n"
        "machine: {devices: 2, compile: yes}\n"
        "evaluation: {protocol: ~, max_frames: }\n"
    )
    config = load_config(path)
    assert (config.output, config.seed) == ("2024", 1000)
    assert (config.data.path, config.data.partition) == ("no", "null")
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (1e-4, 5e-4)
    assert (config.machine.devices, config.machine.compile) == ("2", True)
    assert (config.evaluation.protocol, config.evaluation.max_frames) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"), [("1,2", (1, 2)), ("[1, 2]", (1, 2)), ("[]", ()), ("70", (70,)), ("[70]", (70,))]
)
def test_lists_on_the_command_line(text: str, expected: tuple[int, ...]) -> None:
    assert load_config(overrides=[f"schedule.milestones={text}"]).schedule.milestones == expected


def test_text_on_the_command_line_is_taken_as_it_is() -> None:
    config = load_config(overrides=["output=a: b # c = d", "data.partition=null", "data.path=[1]"])
    assert (config.output, config.data.partition, config.data.path) == ("a: b # c = d", None, "[1]")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.step=5", "command line: schedule.step: expected a field of the configuration, got none of that "
         "name; did you mean 'schedule.steps'?"),
        ("batch=5", "command line: batch: expected a field of the configuration, such as batch.people, got a section"),
        ("steps", "command line: expected FIELD=VALUE, such as schedule.steps=500, got 'steps'"),
        ("schedule.milestones=70k", "command line: schedule.milestones: expected a list of whole numbers, got '70k'"),
        ("schedule.milestones=70k,80k", "expected a list of whole numbers, got ['70k', '80k']"),
        ("schedule.milestones=", "schedule.milestones: expected a list of whole numbers, got nothing"),
        ("batch.people=8.0", "batch.people: expected a whole number, got 8.0"),
        ("batch.people=010", "batch.people: expected a whole number, got 010"),
        ("batch.people=" + "9" * 5000, "batch.people: expected a whole number, got "),
        ("loss.margin=.nan", "loss.margin: expected a finite number, got '.nan'"),
        ("loss.margin=1e999", "loss.margin: expected a finite number, got 1e999"),
        ("machine.compile=maybe", "machine.compile: expected true or false, got 'maybe'"),
        ("machine.precision=bf16", "got 'bf16'; did you mean 'bfloat16'?"),
        ("output=null", "output: expected text, got null"),
        ("evaluation.max_frames=-1", "evaluation.max_frames: expected a whole number of at least 1; got -1"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        load_config(overrides=[override])
    assert message in str(error.value)
    assert str(error.value).startswith("command line: ")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schedule:\n  milestnes: [1]\n", ", line 2: schedule.milestnes: expected a field of the configuration, got "
         "none of that name; did you mean 'schedule.milestones'?"),
        ("schedule:\n  milestones: 70k\n", ", line 2: schedule.milestones: expected a list of "
         "whole numbers, got '70k'"),
        ("schedule:\n\n  milestones: [1, [2]]\n", ", line 3: schedule.milestones: expected a list of whole numbers"),
        ("batch:\n  people: '8'\n", ", line 2: batch.people: expected a whole number, got '8'"),
        ("batch: 8\n", ", line 1: batch: expected fields by name, got 8"),
        ("batch: {people: {a: 1}}\n", ", line 1: batch.people: expected a whole number, got fields by name (a)"),
        ("batch:\n  people: 8\n  people: 9\n", ", line 3: expected every key once, got 'people' more than once"),
        ("batch.people: 8\nbatch:\n  people: 9\n", ", line 3: batch.people: expected one value, got two"),
        ("data:\n  path: !env HOME\n", ", line 2: expected plain values, got the tag !env"),
        ("a: !!python/object:os.system x\n", ", line 1: expected plain values, got the tag !!python/object:os.system"),
        ("seed: 1\ntrainer_cfg: {}\n", ", line 2: expected fields of the configuration, got trainer_cfg of OpenGait; "),
        ("- a\n", ": expected fields by name, got a sequence"),
        ("text", ": expected fields by name, got a scalar"),
        ("a: [1,\nb: 2", ", line 2: expected YAML, got what is none ("),
        ("seed: 1\n---\nseed: 2\n", ", line 2: expected YAML, got what is none ("),
        ("a: \x07\n", ": expected YAML, got what is none ("),
        ("? [a, b]\n: 1\n", ", line 1: expected a name as key, got a sequence"),
        ("batch: &a [*a]\n", ": expected a configuration, got YAML that is nested too deeply"),
        ("a: " + "[" * 600 + "]" * 600, ": expected a configuration, got YAML that is nested too deeply"),
        ("seed: &a [1, 1]\nb: &b [*a, *a]\n" + "".join(
            f"{chr(97 + i)}: &{chr(97 + i)} [{', '.join([f'*{chr(96 + i)}'] * 9)}]\n" for i in range(2, 12)
        ), ": expected a configuration, got more than 10000 values"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:
        load_config(path)
    assert str(error.value).startswith(f"{path}{message}")
    assert "\n" not in str(error.value)


def test_files_of_other_encodings_and_sizes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("seed: 5\n".encode("utf-8-sig"))
    assert load_config(path).seed == 5
    path.write_bytes(b"")
    assert load_config(path) == TrainingConfig()
    path.write_bytes("output: é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine.yaml: expected YAML in UTF-8"):
        load_config(path)
    path.write_bytes(b"# " + b"a" * 2**20)
    with pytest.raises(ValueError, match=r"mine.yaml: expected a configuration of at most 1048576 bytes"):
        load_config(path)
    with pytest.raises(FileNotFoundError, match=re.escape("none.yaml")):
        load_config(tmp_path / "none.yaml")


def test_merged_and_repeated_nodes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("batch: &few {people: 2, frames: 5}\n")
    assert load_config(path).batch.people == 2
    path.write_text("data: {augmentation: &half {flip: 0.5, affine: 0.5}}\n")
    assert load_config(path).data.augmentation == Augmentation(flip=0.5, affine=0.5)
    path.write_text("batch:\n  <<: {people: 2, frames: 5}\n  people: 3\n")
    assert load_config(path).batch == BatchConfig(people=3, frames=5)


def test_without_pyyaml_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("seed: 1\n")
    with pytest.raises(ImportError, match=r"pip install 'hstl_fast\[train\]'"):
        load_config(tmp_path / "a.yaml")
