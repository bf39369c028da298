"""Evaluation during a training: the numbers of `hstl-fast evaluate`, and what is refused before the training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hstl_fast.checkpoints import save_checkpoint
from hstl_fast.training import (
    DataConfig,
    EvaluationConfig,
    NetworkConfig,
    TrainingConfig,
    check_evaluation,
    describe_evaluation,
    evaluate_model,
)
from tests.cli.helpers import run
from tests.training.helpers import TEST, small_network, write_data


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    data, partition = write_data(tmp_path_factory.mktemp("data"))
    return TrainingConfig(data=DataConfig(data, partition=partition), evaluation=EvaluationConfig(every=1))


def with_evaluation(config: TrainingConfig, **changes: object) -> TrainingConfig:
    return TrainingConfig(data=config.data, evaluation=EvaluationConfig(every=1, **changes))


@pytest.mark.parametrize(("metric", "max_frames"), [("euclidean", None), ("cosine", 3)])
def test_gives_the_numbers_of_the_command(
    config: TrainingConfig, tmp_path: Path, metric: str, max_frames: int | None
) -> None:
    model = small_network()
    found = evaluate_model(model, with_evaluation(config, metric=metric, max_frames=max_frames), 7)
    save_checkpoint(tmp_path / "model.pt", model)
    options = ["--partition", config.data.partition, "--metric", metric, "--json", tmp_path / "out.json"]
    options += [] if max_frames is None else ["--max-frames", max_frames]
    run("evaluate", "--protocol", "casia-b", config.data.path, "--checkpoint", tmp_path / "model.pt", *options)
    expected = json.loads((tmp_path / "out.json").read_text())
    assert {name: found[name] for name in ("protocol", "metric", "results", "counts")} == {
        name: expected[name] for name in ("protocol", "metric", "results", "counts")
    }
    assert found["score"] == expected["results"]["mean"]["rank1"]
    assert found["step"] == 7
    assert found["counts"]["people"] == len(TEST)
    assert json.loads(json.dumps(found)) == found


def test_leaves_the_training_as_it_is(config: TrainingConfig) -> None:
    model = small_network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - a caller's own generator
    with torch.autocast("cpu", torch.bfloat16):
        found = evaluate_model(model, config, 0)
    drawn = torch.rand(1), np.random.rand()  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    assert drawn == (torch.rand(1), np.random.rand())  # noqa: NPY002
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = evaluate_model(model.eval(), config, 0)
    assert {**found, "seconds": 0} == {**again, "seconds": 0}


def test_says_it_in_one_line(config: TrainingConfig) -> None:
    found = evaluate_model(small_network(), config, 40)
    found["results"]["CL"]["rank1"] = None
    line = describe_evaluation(found)
    assert line.startswith(f"Step 40, casia-b: NM rank-1 {found['results']['NM']['rank1']:.2f} %, BG rank-1 ")
    assert "CL rank-1 none, mean rank-1 " in line
    assert line.endswith("(4 people, 24 probes, 8 gallery sequences)")


def test_a_broken_sequence_is_a_remark(config: TrainingConfig, tmp_path: Path) -> None:
    data = shutil.copytree(config.data.path, tmp_path / "data")
    (data / "075" / "nm-05" / "090" / "090.npy").write_bytes(b"nonsense")
    broken = TrainingConfig(data=DataConfig(data, partition=config.data.partition), evaluation=config.evaluation)
    assert check_evaluation(broken) == check_evaluation(config)
    found = evaluate_model(small_network(), broken, 1)
    assert found["counts"]["probes"] == 23
    assert "1 test sequences cannot be embedded: " in found["remarks"][-1]
    assert "090.npy" in found["remarks"][-1]


def test_a_network_of_nan_is_no_evaluation(config: TrainingConfig) -> None:
    model = small_network()
    model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"none of the 32 test sequences can be embedded: .* NaN or infinity.*29 more"):
        evaluate_model(model, config, 1)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("oumvlp", "oumvlp needs a gallery of the types 01; the data have the types bg-01, cl-01, nm-01, nm-05"),
        ("grew", "grew-validation needs a gallery of the types 01"),
        ("gait3d", "gait3d needs the list of its probes: expected a partition with PROBE_SET, got none"),
    ],
)
def test_the_preset_chooses_the_protocol(config: TrainingConfig, preset: str, message: str) -> None:
    other = TrainingConfig(data=config.data, network=NetworkConfig(preset), evaluation=EvaluationConfig(every=1))
    with pytest.raises(ValueError) as error:
        check_evaluation(other)
    assert message in str(error.value)
    of_preset = TrainingConfig(
        data=config.data, network=NetworkConfig(preset), evaluation=EvaluationConfig(1, "casia-b")
    )
    check_evaluation(of_preset)


def test_what_is_refused_before_the_training(config: TrainingConfig, tmp_path: Path) -> None:
    without = TrainingConfig(data=DataConfig(config.data.path), evaluation=config.evaluation)
    with pytest.raises(ValueError, match=r"expected a partition \(data.partition\) with TEST_SET"):
        check_evaluation(without)
    (tmp_path / "p.json").write_text('{"TRAIN_SET": ["001"], "TEST_SET": ["200"]}', encoding="utf-8")
    nobody = TrainingConfig(
        data=DataConfig(config.data.path, partition=tmp_path / "p.json"), evaluation=without.evaluation
    )
    with pytest.raises(ValueError, match=r"none of the 1 people of the partition's TEST_SET is in the data"):
        check_evaluation(nobody)
    (tmp_path / "p.json").write_text('{"TRAIN_SET": ["001"], "TEST_SET": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"expected people in the partition's TEST_SET to evaluate, got none"):
        check_evaluation(nobody)
    assert check_evaluation(TrainingConfig()) == ()
