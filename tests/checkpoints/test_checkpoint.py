"""Released checkpoints: read without running code, refused with a reason, written back the same."""

import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import HSTL, PRESETS, checkpoints
from hstl_fast.checkpoints.optimizer_state import BUFFERS
from hstl_fast.models.released import slots
from tests.golden import recipe
from tests.helpers.bounds import distance, rounding
from tests.helpers.networks import narrow_config

# Of a parameter in four steps of an optimizer, with up to ten operations each.
ROUNDINGS = 40
SMALL = narrow_config("casia-b", divisor=16)
Optimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "adam": lambda p: torch.optim.Adam(p, lr=3e-4, weight_decay=5e-4),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=3e-4, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "adamax": lambda p: torch.optim.Adamax(p, lr=1e-3),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
}
each_optimizer = pytest.mark.parametrize("kind", OPTIMIZERS)


def released_parameters(model: HSTL) -> list[nn.Parameter]:
    """The model's parameters as the released network holds and orders them."""
    official = model.official_state_dict()
    return [nn.Parameter(value) for key, value in official.items() if key not in BUFFERS]


def steps(optimizer: torch.optim.Optimizer, gradients: list[list[Tensor]]) -> None:
    for step in gradients:
        for parameter, gradient in zip(optimizer.param_groups[0]["params"], step):
            parameter.grad = gradient
        optimizer.step()


def gradients_of(model: HSTL, count: int) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    """Random gradients for the released parameters, and the same for ours."""
    official = [slot for slot in slots(model.config) if slot.key not in BUFFERS]
    released, ours = [], []
    for _ in range(count):
        released.append([torch.randn(slot.shape) for slot in official])
        mine = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
        for slot, gradient in zip(official, released[-1]):
            mine[slot.name][slot.index] = gradient.reshape(mine[slot.name][slot.index].shape)
        ours.append(list(mine.values()))
    return released, ours


@pytest.mark.parametrize("preset", ["casia-b", "oumvlp", "gait3d"])
def test_a_released_file_is_recognised(preset: str, tmp_path: Path) -> None:
    weights = recipe.weights(preset, dtype=torch.float32)
    torch.save({"model": weights, "optimizer": None, "scheduler": None, "iteration": 90000}, tmp_path / "a.pt")
    model = HSTL.from_official_checkpoint(tmp_path / "a.pt")
    assert model.config == HSTL.from_preset(preset, recipe.CLASSES).config
    assert all(torch.equal(value, weights[key]) for key, value in model.official_state_dict().items())
    assert checkpoints.load_checkpoint(tmp_path / "a.pt").iteration == 90000


def test_grew_is_oumvlp_with_other_identities(tmp_path: Path) -> None:
    assert replace(PRESETS["grew"], num_classes=PRESETS["oumvlp"].num_classes) == PRESETS["oumvlp"]
    torch.save({"model": HSTL.from_preset("oumvlp", 3).official_state_dict()}, tmp_path / "a.pt")
    assert HSTL.from_official_checkpoint(tmp_path / "a.pt", preset="grew").config.num_classes == 3


@each_optimizer
def test_training_goes_on_from_a_released_file(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HSTL(SMALL)
    released, ours = gradients_of(model, 4)
    theirs = OPTIMIZERS[kind](released_parameters(model))
    steps(theirs, released[:2])
    state, left = checkpoints.load_optimizer_state(theirs.state_dict(), model)
    assert left == []
    keys = [slot.key for slot in slots(SMALL) if slot.key not in BUFFERS]
    midway = dict(zip(keys, (p.detach() for p in theirs.param_groups[0]["params"])))
    buffers = {key: value for key, value in model.official_state_dict().items() if key in BUFFERS}
    model.load_official_state_dict({**midway, **buffers})

    optimizer = OPTIMIZERS[kind](list(model.parameters()))
    optimizer.load_state_dict(state)
    steps(optimizer, ours[2:])
    steps(theirs, released[2:])
    for key, parameter in zip(keys, theirs.param_groups[0]["params"]):
        assert distance(model.official_state_dict()[key], parameter.detach()) <= rounding(torch.float32, ROUNDINGS)

    back = checkpoints.official_optimizer_state(optimizer.state_dict(), model)
    expected = theirs.state_dict()
    assert back["param_groups"] == expected["param_groups"]
    assert back["state"].keys() == expected["state"].keys()
    for number, entry in expected["state"].items():
        for name, value in entry.items():
            assert distance(back["state"][number][name], value) <= rounding(torch.float32, ROUNDINGS)


def test_a_checkpoint_survives_saving(tmp_path: Path) -> None:
    model = HSTL.from_preset("casia-b", 5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7, 9])
    steps(optimizer, gradients_of(model, 1)[1])
    scheduler.step()
    path = tmp_path / "a.pt"
    checkpoints.save_checkpoint(path, model, optimizer.state_dict(), scheduler.state_dict(), 12)

    assert list(torch.load(path, weights_only=True)) == [
        "model",
        "optimizer",
        "scheduler",
        "iteration",
        "network",
        "training",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt"]
    found = checkpoints.load_checkpoint(path)
    assert found.iteration == 12
    assert found.scheduler == scheduler.state_dict()
    assert found.not_carried == []
    assert all(torch.equal(a, b) for a, b in zip(found.model.state_dict().values(), model.state_dict().values()))
    again = torch.optim.Adam(found.model.parameters())
    again.load_state_dict(found.optimizer)
    assert again.param_groups[0]["lr"] == pytest.approx(1e-4)
    for number, entry in optimizer.state_dict()["state"].items():
        assert all(torch.equal(again.state_dict()["state"][number][key], value) for key, value in entry.items())


@each_optimizer
def test_every_optimizer_survives_saving(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = HSTL(SMALL)
    optimizer = OPTIMIZERS[kind](list(model.parameters()))
    steps(optimizer, gradients_of(model, 1)[1])
    checkpoints.save_checkpoint(tmp_path / "a.pt", model, optimizer.state_dict())

    shapes = [slot.shape for slot in slots(model.config) if slot.key not in BUFFERS]
    written = torch.load(tmp_path / "a.pt", weights_only=True)["optimizer"]["state"]
    tensors = [(i, v) for i, entry in written.items() for v in entry.values() if isinstance(v, Tensor) and v.dim()]
    assert all(tuple(value.shape) == shapes[i] for i, value in tensors)
    found = checkpoints.load_checkpoint(tmp_path / "a.pt")
    assert found.not_carried == []
    assert found.optimizer is not None
    torch.testing.assert_close(found.optimizer["state"], dict(optimizer.state_dict()["state"]), rtol=0, atol=0)


def test_a_saved_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        checkpoints.save_checkpoint(tmp_path / "a.pt", HSTL(SMALL))
        (tmp_path / "other").touch()
    finally:
        os.umask(before)
    assert (tmp_path / "a.pt").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_what_cannot_be_carried_is_reported() -> None:
    model = HSTL(SMALL)
    theirs = torch.optim.Adam(released_parameters(model))
    steps(theirs, gradients_of(model, 1)[0])
    state = theirs.state_dict()
    numbers = {slot.key: i for i, slot in enumerate(s for s in slots(SMALL) if s.key not in BUFFERS)}
    del state["state"][numbers["arme2.0.conv3d.1.conv3d.weight"]]
    state["state"][numbers["HPP.p"]]["exp_avg"] = torch.zeros(2)
    state["state"][numbers["astp3.hpp.1.p"]]["step"] = torch.tensor(99.0)
    carried, left = checkpoints.load_optimizer_state(state, model)
    assert left == [
        "optimizer: stages.0.0.weight: arme2.0.conv3d.1.conv3d.weight lacks exp_avg, exp_avg_sq, step",
        "optimizer: pools.3.p: its tensors differ in step; 1.0 is kept",
        "optimizer: HPP.p: exp_avg must have the shape [1], got [2]",
    ]
    assert len(carried["state"]) == len(list(model.parameters())) - 2

    state["param_groups"][0]["params"].pop()
    assert checkpoints.load_optimizer_state(state, model) == (
        None,
        [
            f"optimizer: must hold one group of the model's {len(numbers)} parameters, got groups of "
            f"[{len(numbers) - 1}] without param_names; an optimiser over model.named_parameters() has them"
        ],
    )


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (5, "must be a dict, got int"),
        (torch.zeros(2), "must be a dict, got Tensor"),
        ({}, "has no param_groups"),
        ({"param_groups": []}, "has no param_groups"),
        ({"param_groups": 5}, "param_groups must be a list of dicts"),
        ({"param_groups": torch.zeros(2)}, "param_groups must be a list of dicts"),
        ({"param_groups": [[1]]}, "param_groups must be a list of dicts"),
        ({"param_groups": {"params": [0]}}, "param_groups must be a list of dicts"),
        ({"param_groups": [{"params": 3}]}, "the params of a group must be a list of the parameters' numbers"),
        ({"param_groups": [{"params": [[0]]}]}, "the params of a group must be a list of the parameters' numbers"),
        ({"state": [1]}, "state must be a dict of dicts"),
        ({"state": torch.zeros(2)}, "state must be a dict of dicts"),
        ({"state": {0: [1]}}, "state must be a dict of dicts"),
        ({"state": {0: {1: 2, "step": 3}}}, "the state of a parameter must have strings as keys"),
    ],
)
def test_a_malformed_optimizer_leaves_the_model(fault: Any, sentence: str, tmp_path: Path) -> None:
    model = HSTL(SMALL)
    if isinstance(fault, dict) and "state" in fault:
        fault = {**torch.optim.Adam(released_parameters(model)).state_dict(), **fault}
    content = {"model": model.official_state_dict(), "optimizer": fault, "network": SMALL.to_dict()}
    torch.save(content, tmp_path / "a.pt")
    found = checkpoints.load_checkpoint(tmp_path / "a.pt")
    assert found.optimizer is None
    assert found.not_carried == [f"optimizer: {sentence}"]
    assert all(torch.equal(a, b) for a, b in zip(found.model.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("x", "str"),
        ([torch.zeros(2)], "list"),
        (3, "int"),
        (None, "NoneType"),
        (torch.zeros(2, 3), r"\[2, 3\]"),
        (torch.zeros(16, 16, 1).to_sparse(), r"\[16, 16, 1\]"),
        (torch.zeros(2, device="meta"), r"\[2\]"),
    ],
)
def test_state_of_the_wrong_kind_starts_afresh(value: Any, got: str) -> None:
    model = HSTL(SMALL)
    theirs = torch.optim.Adam(released_parameters(model))
    steps(theirs, gradients_of(model, 1)[0])
    state = theirs.state_dict()
    keys = [slot.key for slot in slots(SMALL) if slot.key not in BUFFERS]
    state["state"][keys.index("fta.mma.1.fcs.0.weight")]["exp_avg"] = value
    carried, left = checkpoints.load_optimizer_state(state, model)
    assert carried is not None
    assert len(carried["state"]) == len(list(model.parameters())) - 1
    assert len(left) == 1
    assert re.search(rf"fta\.mma\.1\.fcs\.0\.weight: exp_avg must have the shape \[.*\], got {got}$", left[0])


def test_state_of_another_shape_cannot_be_written(tmp_path: Path) -> None:
    model = HSTL(SMALL)
    optimizer = torch.optim.Adam(model.parameters())
    steps(optimizer, gradients_of(model, 1)[1])
    state = optimizer.state_dict()
    state["state"][0]["row_var"] = torch.zeros(7)
    with pytest.raises(ValueError, match=r"parameter's shape, got row_var of \[7\] for stem\.0\.weight of \["):
        checkpoints.save_checkpoint(tmp_path / "a.pt", model, state)
    assert list(tmp_path.iterdir()) == []


def test_a_partial_optimizer_cannot_be_written() -> None:
    model = HSTL(SMALL)
    optimizer = torch.optim.Adam(list(model.parameters())[1:])
    with pytest.raises(ValueError, match=r"optimizer must hold one group of the model's \d+ parameters, got groups of"):
        checkpoints.official_optimizer_state(optimizer.state_dict(), model)


class Code:
    """Writes a file when it is unpickled carelessly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("layout", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(layout: str, tmp_path: Path) -> None:
    path, content = tmp_path / "a.pt", {"model": Code(tmp_path / "run")}
    if layout == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=layout == "zip")
    with pytest.raises(ValueError, match=r"a\.pt: holds pickled objects other than tensors"):
        HSTL.from_official_checkpoint(path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(layout: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": HSTL(SMALL).official_state_dict()}, path, _use_new_zipfile_serialization=layout == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ValueError, match=r"a\.pt: is truncated or not a file written by torch\.save"):
        HSTL.from_official_checkpoint(path)


def saved(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def test_what_is_not_such_a_checkpoint_is_refused(tmp_path: Path) -> None:
    state = HSTL.from_preset("gait3d", 4).official_state_dict()
    path = tmp_path / "a.pt"
    read = HSTL.from_official_checkpoint
    with pytest.raises(FileNotFoundError, match=r"a\.pt"):
        read(path)
    with pytest.raises(ValueError, match="must be a dict with model, optimizer, scheduler and iteration, got list"):
        read(saved([1], path))
    with pytest.raises(ValueError, match=r"got \['epoch', 'weights'\]; torch\.save\(\{'model': model\."):
        read(saved({"weights": state, "epoch": 3}, path))
    with pytest.raises(ValueError, match=r"a\.pt: is not the checkpoint of an HSTL network .*'fc\.weight'"):
        read(saved({"model": {"fc.weight": torch.zeros(2)}}, path))
    with pytest.raises(ValueError, match=r"missing HPP\.p, Bn\.bias$"):
        read(saved({"model": {k: v for k, v in state.items() if k not in ("HPP.p", "Bn.bias")}}, path))
    with pytest.raises(ValueError, match=r"unexpected extra\.weight$"):
        read(saved({"model": {**state, "extra.weight": torch.zeros(1)}}, path))
    with pytest.raises(ValueError, match=r"HPP\.p must have the shape \[1\], got \[2\]$"):
        read(saved({"model": {**state, "HPP.p": torch.zeros(2)}}, path))
    with pytest.raises(ValueError, match=r"a\.pt: holds the network gait3d for 4 people, not oumvlp$"):
        read(saved({"model": state}, path), preset="oumvlp")
    with pytest.raises(ValueError, match=r"missing HPP\.p$"):
        read(saved({"model": {k: v for k, v in state.items() if k != "HPP.p"}}, path), preset="gait3d")
    with pytest.raises(ValueError, match="did you mean 'gait3d'"):
        read(path, preset="gait-3d")


def test_loading_changes_all_or_nothing() -> None:
    model = HSTL(SMALL)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    wrong: dict[str, Any] = {key: value + 1 for key, value in model.official_state_dict().items()}
    wrong["HPP.p"] = "6.5"
    with pytest.raises(ValueError, match=r"HPP\.p must have the shape \[1\], got str"):
        model.load_official_state_dict(wrong)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
