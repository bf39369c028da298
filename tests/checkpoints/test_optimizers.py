"""The states of optimisers, schedulers and scalers come back to the bit, also from several groups of parameters."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from hstl_fast import HSTL
from hstl_fast.checkpoints import load_checkpoint, load_optimizer_state, official_optimizer_state, save_checkpoint
from tests.helpers.tiny import TINY, tiny_model

Optimizer = Callable[[Any], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Optimizer] = {
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adam, fused": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
    "adam, foreach": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
    "adam, tensor lr": lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "adamw, amsgrad": lambda p: torch.optim.AdamW(p, lr=1e-3, amsgrad=True),
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd, momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "sgd, fused": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "radam": lambda p: torch.optim.RAdam(p, lr=1e-3),
}


def train(model: HSTL, optimizer: torch.optim.Optimizer, steps: int = 2, seed: int = 0) -> None:
    random = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=random)
        optimizer.step()


def check_same(a: Any, b: Any) -> None:
    """Check that two states are equal to the bit, down to their types."""
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert torch.equal(a, b)
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            check_same(one, other)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key, value in a.items():
            check_same(value, b[key])
    else:
        assert a == b


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_saving_what_was_loaded_gives_the_same_file(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = OPTIMIZERS[kind](model.parameters())
    train(model, optimizer)
    save_checkpoint(tmp_path / "a.pt", model, optimizer.state_dict(), iteration=2)
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.not_carried == []
    again = OPTIMIZERS[kind](found.model.parameters())
    again.load_state_dict(found.optimizer)
    check_same(again.state_dict(), optimizer.state_dict())
    save_checkpoint(tmp_path / "b.pt", found.model, again.state_dict(), iteration=2)
    first, second = (torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt"))
    check_same(first, second)

    train(model, optimizer, seed=1)
    train(found.model, again, seed=1)
    check_same(dict(found.model.state_dict()), dict(model.state_dict()))


def decayed(model: HSTL, names: bool) -> list[dict[str, Any]]:
    """Two groups: what decays, and what does not."""
    groups: list[list[Any]] = [[], []]
    for name, parameter in model.named_parameters():
        groups[parameter.dim() < 2].append((name, parameter) if names else parameter)
    return [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0, "lr": 0.5}]


@pytest.mark.parametrize("given", ["names", "prefixed names", "optimizer"])
def test_several_groups_come_back(given: str, tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.AdamW(decayed(model, names=given != "optimizer"))
    train(model, optimizer)
    state: Any = optimizer if given == "optimizer" else optimizer.state_dict()
    if given == "prefixed names":
        for group in state["param_groups"]:
            group["param_names"] = [f"module._orig_mod.{name}" for name in group["param_names"]]
    save_checkpoint(tmp_path / "a.pt", model, state)
    written = torch.load(tmp_path / "a.pt", weights_only=True)["optimizer"]["param_groups"]
    assert written[1]["param_names"][:2] == ["astp1.hpp.0.p", "astp2.hpp.0.p"]

    found = load_checkpoint(tmp_path / "a.pt")
    assert found.not_carried == []
    assert found.optimizer is not None
    again = torch.optim.AdamW(decayed(found.model, names=False))
    again.load_state_dict(found.optimizer)
    assert [group["lr"] for group in again.param_groups] == [1e-3, 0.5]
    check_same(again.state_dict()["state"], optimizer.state_dict()["state"])
    save_checkpoint(tmp_path / "b.pt", found.model, again)
    check_same(*(torch.load(tmp_path / name, weights_only=True) for name in ("a.pt", "b.pt")))


def test_some_of_the_parameters_come_back(tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.classifier.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    save_checkpoint(tmp_path / "a.pt", model, optimizer)
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.optimizer is not None
    assert found.optimizer["param_groups"][0]["param_names"] == ["classifier.weight"]
    again = torch.optim.SGD(found.model.classifier.parameters(), lr=1.0)
    again.load_state_dict(found.optimizer)
    check_same(again.state_dict()["state"], optimizer.state_dict()["state"])
    sentence = (
        r"^optimizer must hold one group of the model's \d+ parameters, got groups of \[1\] without param_names; "
    )
    with pytest.raises(ValueError, match=sentence):
        official_optimizer_state(optimizer.state_dict(), model)


def test_an_optimiser_of_the_model_that_was_averaged_is_taken() -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    average = torch.optim.swa_utils.AveragedModel(model).module
    check_same(official_optimizer_state(optimizer, average), official_optimizer_state(optimizer, model))


def test_what_groups_cannot_tell_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(
        ValueError, match=r"^optimizer must hold the parameters of a group in the order of model\.param"
    ):
        official_optimizer_state(torch.optim.SGD(list(model.parameters())[::-1]), model)
    with_a_loss = torch.optim.SGD([{"params": model.parameters()}, {"params": nn.Parameter(torch.zeros(2))}])
    with pytest.raises(ValueError, match=r"^optimizer must hold one group of .*, got groups of \[\d+, 1\]"):
        official_optimizer_state(with_a_loss, model)
    state = torch.optim.SGD(decayed(model, names=True)).state_dict()
    state["param_groups"][0]["param_names"][0] = "loss.centres"
    with pytest.raises(ValueError, match=r"^optimizer must hold parameters of the model, got loss\.centres$"):
        official_optimizer_state(state, model)
    state["param_groups"][0]["param_names"][0] = state["param_groups"][0]["param_names"][1]
    with pytest.raises(ValueError, match=r"^optimizer must name each of its parameters once$"):
        official_optimizer_state(state, model)
    for broken in (3, {}, {"param_groups": 3}):
        with pytest.raises(
            ValueError, match=r"^optimizer (must be a dict, got int|has no param_groups|param_groups must)"
        ):
            official_optimizer_state(broken, model)  # type: ignore[arg-type]


def test_regions_in_several_groups_are_left_behind() -> None:
    model = tiny_model()
    state = official_optimizer_state(torch.optim.SGD(decayed(model, names=True)), model)
    first, second = state["param_groups"]
    name = next(name for name in first["param_names"] if name.startswith("arme2.0.conv3d.1"))
    number = first["params"].pop(first["param_names"].index(name))
    first["param_names"].remove(name)
    second["params"].append(number)
    second["param_names"].append(name)
    assert load_optimizer_state(state, model) == (
        None,
        [f"optimizer: {name} must be in the group of the other regions of stages.0.0.weight"],
    )


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, [2, 4, 4], 0.1),
    "step": lambda o: lr_scheduler.StepLR(o, 2),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 5),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 1.0, total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 1 / (1 + step)),
    "warm-up": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.MultiStepLR(o, [1, 3])], [2]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.MultiStepLR(o, [1, 3])]
    ),
}


def rates(optimizer: torch.optim.Optimizer, scheduler: Any, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        optimizer.step()
        scheduler.step(1.0) if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else scheduler.step()
        found.append(float(optimizer.param_groups[0]["lr"]))
    return found


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_schedule_goes_on(kind: str, tmp_path: Path) -> None:
    model = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    scheduler = SCHEDULERS[kind](optimizer)
    rates(optimizer, scheduler, 3)
    save_checkpoint(tmp_path / "a.pt", model, optimizer.state_dict(), scheduler.state_dict())
    found = load_checkpoint(tmp_path / "a.pt")
    assert found.scheduler is not None
    assert found.scheduler == scheduler.state_dict()

    again = torch.optim.SGD(found.model.parameters(), lr=0.5, momentum=0.9)
    other = SCHEDULERS[kind](again)
    other.load_state_dict(found.scheduler)
    again.load_state_dict(found.optimizer)
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert rates(again, other, 6) == rates(optimizer, scheduler, 6)


def test_the_closed_form_of_a_schedule_survives(tmp_path: Path) -> None:
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.5)
    scheduler = lr_scheduler.MultiStepLR(optimizer, [2, 4, 4], 0.1)
    save_checkpoint(tmp_path / "a.pt", tiny_model(), scheduler=scheduler.state_dict())
    found = load_checkpoint(tmp_path / "a.pt").scheduler
    assert found is not None
    assert sorted(found["milestones"].elements()) == [2, 4, 4]


def test_a_scaler_and_generators_go_on(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    loss = scaler.scale(nn.Parameter(torch.ones(1)).sum())
    loss.backward()
    generator = torch.Generator().manual_seed(3)
    torch.rand(5, generator=generator)
    training = {"scaler": scaler.state_dict(), "generator": generator.get_state()}
    save_checkpoint(tmp_path / "a.pt", tiny_model(), training=training)
    found = load_checkpoint(tmp_path / "a.pt").training
    assert found is not None
    again = torch.amp.GradScaler("cpu")
    again.load_state_dict(found["scaler"])
    assert again.state_dict() == scaler.state_dict()
    other = torch.Generator()
    other.set_state(found["generator"])
    assert torch.equal(torch.rand(5, generator=other), torch.rand(5, generator=generator))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_weights_of_other_types_keep_their_values(dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model().to(dtype)
    save_checkpoint(tmp_path / "a.pt", model)
    written = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    check_same(written, model.official_state_dict())
    found = load_checkpoint(tmp_path / "a.pt").model
    assert found.config == TINY
    for name, value in found.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].to(value.dtype))
