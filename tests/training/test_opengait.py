"""OpenGait's YAML files, written here in their form: what is taken from them, and what is named as not taken."""

from pathlib import Path

import pytest

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
)
from hstl_fast.training.opengait import is_opengait, opengait_values
from hstl_fast.training.yaml_files import read_yaml, resolve

GAIT3D = """
# Comments, paths that begin with a point, and numbers that YAML 1.1 takes for text.
data_cfg:
  dataset_name: Gait3D
  dataset_root: ./Gait3D-pkl
  dataset_partition: './partitions/Gait3D.json'
  num_workers: 4
  remove_no_gallery: false # of probes
  test_dataset_name: Gait3D
evaluator_cfg:
  enable_float16: true
  restore_ckpt_strict: true
  restore_hint: 210000
  save_name: mine
  eval_func: evaluation_of_mine
  sampler:
    batch_size: 4
    sample_type: all_ordered
    type: InferenceSampler
    frames_all_limit: 720
  metric: cos # euc
  transform:
    - type: BaseSilCuttingTransform
loss_cfg:
  - loss_term_weight: 1.5
    margin: 0.3
    type: TripletLoss
    log_prefix: triplet
  - loss_term_weight: 0.5
    scale: 8
    label_smooth: true
    type: CrossEntropyLoss
    log_prefix: softmax
    log_accuracy: true
model_cfg:
  model: HSTL
  class_num: 3000
optimizer_cfg:
  lr: 5e-2
  momentum: 0.8
  solver: SGD
  weight_decay: 5e-4
scheduler_cfg:
  gamma: 0.2
  milestones:
    - 800 # the first
    - 1500
  scheduler: MultiStepLR
trainer_cfg:
  enable_float16: true
  fix_BN: false
  log_iter: 50
  restore_ckpt_strict: true
  restore_hint: 0
  save_iter: 500
  save_name: mine
  sync_BN: true
  total_iter: 2100
  with_test: true
  sampler:
    batch_shuffle: true
    batch_size: [32, 4]
    frames_num_fixed: 24
    frames_skip_num: 4
    sample_type: fixed_ordered
    type: TripletSampler
  transform:
    - type: Compose
      trf_cfg:
        - type: BaseSilCuttingTransform
        - type: RandomHorizontalFlip
          prob: 0.2
        - type: RandomRotate
          prob: 0.2
"""


def imported(tmp_path: Path, text: str) -> tuple[TrainingConfig, tuple[str, ...]]:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    document = read_yaml(path)
    assert is_opengait(document)
    found = opengait_values(document)
    return resolve([found.values]), found.not_taken


def test_takes_what_means_the_same(tmp_path: Path) -> None:
    config, _ = imported(tmp_path, GAIT3D)
    data = DataConfig("./Gait3D-pkl", partition="./partitions/Gait3D.json", workers=4)
    flip = type(data.augmentation)(flip=0.2)
    assert config == TrainingConfig(
        data=DataConfig(data.path, "auto", data.partition, 4, flip),
        network=NetworkConfig("gait3d"),
        batch=BatchConfig(32, 4, 24, 28),
        loss=LossConfig(1.5, 0.3, 0.5, 8, 0.1),
        optimizer=OptimizerConfig("sgd", 0.05, 5e-4, 0.8),
        schedule=ScheduleConfig(2100, (800, 1500), 0.2),
        machine=MachineConfig(precision="float16", sync_batch_norm=True),
        saving=SavingConfig(every=500, log_every=50),
        evaluation=EvaluationConfig(every=500, metric="cosine", max_frames=720),
    )


RELEASED = """
data_cfg: {dataset_name: CASIA-B}
loss_cfg:
  - {type: TripletLoss, margin: 0.2}
  - {type: CrossEntropyLoss, scale: 1, label_smooth: false}
optimizer_cfg: {solver: Adam, lr: 1e-4, weight_decay: 5e-4}
scheduler_cfg: {scheduler: MultiStepLR, gamma: 0.1, milestones: [70000]}
trainer_cfg:
  enable_float16: true
  sync_BN: true
  total_iter: 90000
  sampler: {batch_size: [8, 8], frames_num_fixed: 30, frames_skip_num: 0, sample_type: fixed_ordered}
"""


def test_the_settings_of_the_paper_are_those_of_the_preset(tmp_path: Path) -> None:
    config, not_taken = imported(tmp_path, RELEASED)
    preset = TrainingConfig.from_preset("casia-b")
    for section in ("network", "batch", "loss", "optimizer", "schedule", "evaluation"):
        assert getattr(config, section) == getattr(preset, section), section
    assert config.machine == MachineConfig(precision="float16")
    assert not_taken == ()


def test_names_everything_else(tmp_path: Path) -> None:
    _, not_taken = imported(tmp_path, GAIT3D)
    keys = [sentence.partition("=")[0] for sentence in not_taken]
    assert keys == [
        "data_cfg.remove_no_gallery",
        "data_cfg.test_dataset_name",
        "evaluator_cfg.enable_float16",
        "evaluator_cfg.restore_ckpt_strict",
        "evaluator_cfg.restore_hint",
        "evaluator_cfg.save_name",
        "evaluator_cfg.eval_func",
        "evaluator_cfg.sampler.batch_size",
        "evaluator_cfg.sampler.type",
        "loss_cfg[0].log_prefix",
        "loss_cfg[1].log_prefix",
        "loss_cfg[1].log_accuracy",
        "model_cfg.class_num",
        "trainer_cfg.fix_BN",
        "trainer_cfg.restore_ckpt_strict",
        "trainer_cfg.save_name",
        "trainer_cfg.sampler.batch_shuffle",
        "trainer_cfg.transform[0].trf_cfg[2].type",
        "trainer_cfg.transform[0].trf_cfg[2].prob",
    ]
    assert "trainer_cfg.fix_BN=false: batch norm is always trained" in not_taken
    assert "model_cfg.class_num=3000: the number of classes is that of the training people" in not_taken
    assert all(len(sentence.partition(": ")[2]) > 10 for sentence in not_taken)


def test_keys_that_are_missing_have_the_defaults_of_opengait(tmp_path: Path) -> None:
    config, not_taken = imported(tmp_path, "loss_cfg:\n  - type: CrossEntropyLoss\ntrainer_cfg: {total_iter: 9}\n")
    assert config.loss == LossConfig(0.0, 0.2, 1.0, 16.0, 0.1)
    assert config.optimizer == OptimizerConfig("sgd", 0.1, 5e-4, 0.9)
    assert config.schedule == ScheduleConfig(9, (20_000, 40_000, 60_000))
    assert config.batch == BatchConfig(8, 16, 30, 30)
    assert (config.machine.precision, config.machine.sync_batch_norm) == ("float16", False)
    assert (config.saving.every, config.saving.log_every, config.evaluation.every) == (2000, 100, 0)
    assert not_taken == (
        "trainer_cfg.sampler.sample_type=fixed_unordered: batch.frames frames of a sequence are taken, in order",
    )


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("loss_cfg: {type: TripletLoss, margin: 0.4}", "loss", LossConfig(1.0, 0.4, 0.0)),
        ("loss_cfg: [{type: TripletLoss, loss_term_weights: 2.0}]", "loss", LossConfig(2.0, 0.2, 0.0)),
        ("loss_cfg: [{type: CrossEntropyLoss, label_smooth: false, scale: 1}]", "loss", LossConfig(0, 0.2, 1, 1, 0)),
        ("loss_cfg: [{type: CrossEntropyLoss, eps: 0.3}]", "loss", LossConfig(0, 0.2, 1, 16, 0.3)),
        ("optimizer_cfg: {solver: Adam, lr: 1e-4}", "optimizer", OptimizerConfig("adam", 1e-4, 5e-4)),
        ("data_cfg: {dataset_name: CASIA-B}", "network", NetworkConfig("casia-b")),
        ("data_cfg: {dataset_name: OUMVLP}", "network", NetworkConfig("oumvlp")),
        ("trainer_cfg: {restore_hint: ./a/b.pt}", "network", NetworkConfig(start="./a/b.pt")),
        ("evaluator_cfg: {sampler: {frames_all_limit: -1}}", "evaluation", EvaluationConfig()),
    ],
)
def test_parts_of_a_file(tmp_path: Path, text: str, field: str, value: object) -> None:
    assert getattr(imported(tmp_path, text)[0], field) == value


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data_cfg: {dataset_name: Mine}", "data_cfg.dataset_name=Mine: it is none of the published data sets; "),
        ("data_cfg: {frame_threshold: 5}", "data_cfg.frame_threshold=5: there is no such setting"),
        ("loss_cfg: [{type: FocalLoss, gamma: 2}]", "loss_cfg[0].type=FocalLoss: there are the triplet loss and the "),
        ("loss_cfg: [{type: FocalLoss, gamma: 2}]", "loss_cfg[0].gamma=2: it belongs to no loss that is taken"),
        ("loss_cfg: [{type: TripletLoss}, {type: TripletLoss, margin: 1}]", "loss_cfg[1].margin=1: it belongs to no"),
        ("model_cfg: {model: Baseline, bin_num: [16, 8]}", "model_cfg.model=Baseline: the network is HSTL as network."),
        ("model_cfg: {model: Baseline, bin_num: [16, 8]}", "model_cfg.bin_num=[16, 8]: the network is the one of netw"),
        ("optimizer_cfg: {solver: AdamW}", "optimizer_cfg.solver=AdamW: optimizer.name is adam or sgd"),
        ("scheduler_cfg: {scheduler: CosineAnnealingLR, T_max: 9}", "scheduler_cfg.T_max=9: the learning rate changes"),
        ("trainer_cfg: {restore_hint: 400}", "trainer_cfg.restore_hint=400: a training goes on from the newest"),
        ("trainer_cfg: {sampler: {sample_type: unfixed_ordered}}", "sample_type=unfixed_ordered: batch.frames frames"),
        ("trainer_cfg: {transform: [{type: NoOperation}]}", "trainer_cfg.transform[0].type=NoOperation: data.augment"),
        ("evaluator_cfg: {metric: [a]}", "evaluator_cfg.metric=[a]: an evaluation needs no more than data, protocol"),
        ("evaluator_cfg: 3", "evaluator_cfg=3: an evaluation needs no more than data, protocol and metric"),
        ("trainer_cfg: {}\nextra: 'a b'", "extra='a b': there is no such setting"),
    ],
)
def test_what_is_not_taken_is_named_with_the_reason(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = opengait_values(read_yaml(path)).not_taken
    assert any(sentence in each for each in found), found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainer_cfg:\n  total_iter: 80k\n", ", line 2: schedule.steps: expected a whole number, got '80k'"),
        ("trainer_cfg:\n  sync_BN: maybe\n", ", line 2: machine.sync_batch_norm: expected true or false, got 'maybe'"),
        ("trainer_cfg:\n  enable_float16: 3\n", ", line 2: trainer_cfg.enable_float16: expected true or false, got 3"),
        ("trainer_cfg:\n  sampler:\n    batch_size: 16\n", ", line 3: trainer_cfg.sampler.batch_size: expected people"),
        (
            "trainer_cfg:\n  sampler:\n    batch_size: [1, 16]\n",
            ", line 3: batch.people: expected a whole number of at ",
        ),
        ("optimizer_cfg:\n  lr: -1\n", ", line 2: optimizer.lr: expected a number above 0; got -1"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        imported(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'mine.yaml'}{message}")


def test_another_file_is_none_of_opengait(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("batch: {people: 4}\nseed: 3\n")
    document = read_yaml(path)
    assert not is_opengait(document)
    with pytest.raises(ValueError, match=r"expected sections of OpenGait such as trainer_cfg, got batch, seed"):
        opengait_values(document)
