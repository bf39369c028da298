"""The network with its losses, its optimiser and its learning rates, against loops that are written out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import losses
from hstl_fast.training import LossConfig, OptimizerConfig, ScheduleConfig, TrainingConfig
from hstl_fast.training.module import TrainingModule
from hstl_fast.training.optimization import factor_at, make_optimizer, make_scheduler
from tests.golden import recipe
from tests.helpers.bounds import distance
from tests.helpers.tiny import tiny_model

# The bound of float64 against data stored as float32.
STORED = 2e-6
LABELS = torch.tensor([0, 0, 1, 1])


def batch() -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(4, 3, 64, 44, generator=generator)


def make_steps(config: TrainingConfig, module: TrainingModule, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Triplet loss and cross entropy `[steps, 2]`."""
    optimizer = make_optimizer(config.optimizer, module.model.parameters())
    scheduler = make_scheduler(config.schedule, optimizer)
    history = []
    for silhouettes, labels in batches:
        optimizer.zero_grad()
        found = module(silhouettes, labels)
        found["loss"].backward()
        optimizer.step()
        scheduler.step()
        assert torch.allclose(found["loss"].detach(), found["triplet"] + found["cross_entropy"])
        history.append(torch.stack([found["triplet"], found["cross_entropy"]]))
    return torch.stack(history)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_golden_trajectory() -> None:
    golden = recipe.load("casia-b.trajectory")
    silhouettes, labels = torch.tensor(golden["silhouettes"]), torch.tensor(golden["labels"])
    config = TrainingConfig.from_preset("casia-b")
    model = recipe.model("casia-b").train()
    batches = [(silhouettes[:, s : s + 7], labels) for s in range(6)]
    found = make_steps(config, TrainingModule(model, config.loss), batches)
    assert distance(found, torch.tensor(golden["losses"])) < STORED
    with torch.no_grad():
        final = model.eval()(silhouettes[:1]).embeddings
    assert distance(final, torch.tensor(golden["final_eval_embeddings"])) < STORED


def test_the_optimizer_sees_every_parameter() -> None:
    model = tiny_model()
    for config, kind in ((OptimizerConfig(), torch.optim.Adam), (OptimizerConfig("sgd", 0.1), torch.optim.SGD)):
        optimizer = make_optimizer(config, model.parameters())
        assert type(optimizer) is kind
        (group,) = optimizer.param_groups
        assert [id(p) for p in group["params"]] == [id(p) for p in model.parameters()]
        assert group["weight_decay"] == 5e-4
        assert group["lr"] == config.lr
        assert group.get("momentum", 0.9) == 0.9


def test_learning_rates() -> None:
    config = ScheduleConfig(steps=10, milestones=(5, 8), factor=0.5, warmup=4)
    expected = [0.25, 0.5, 0.75, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert [factor_at(config, step) for step in range(10)] == expected
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler, rates = make_scheduler(config, optimizer), []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"] / 2)
        optimizer.step()
        scheduler.step()
    assert rates == expected
    assert factor_at(replace(config, warmup=0, milestones=()), 0) == 1


def test_losses_and_their_weights() -> None:
    module = TrainingModule(tiny_model(), LossConfig(2.0, 0.3, 0.5, scale=4.0, smoothing=0.1))
    found = module(batch(), LABELS)
    embeddings, logits = tiny_model()(batch())
    triplet = losses.triplet_loss(embeddings, LABELS, 0.3)
    cross_entropy = losses.cross_entropy(logits, LABELS, 4.0, 0.1)
    assert torch.equal(found["triplet"], triplet)
    assert torch.equal(found["cross_entropy"], cross_entropy)
    assert torch.equal(found["loss"], 2.0 * triplet + 0.5 * cross_entropy)
    assert not found["triplet"].requires_grad
    assert not found["cross_entropy"].requires_grad


def test_without_cross_entropy_the_classifier_stays() -> None:
    model = tiny_model()
    names, classifier = list(model.state_dict()), model.classifier.weight.clone()
    module = TrainingModule(model, LossConfig(cross_entropy=0))
    optimizer = make_optimizer(OptimizerConfig(), model.parameters())
    found = module(batch(), LABELS)
    assert list(found) == ["loss", "triplet"]
    found["loss"].backward()
    optimizer.step()
    assert list(model.state_dict()) == names
    assert torch.equal(model.classifier.weight, classifier)
    assert all(p.grad is not None for name, p in model.named_parameters() if name != "classifier.weight")


def test_without_triplet_loss() -> None:
    module = TrainingModule(tiny_model(), LossConfig(triplet=0))
    found = module(batch(), LABELS)
    assert list(found) == ["loss", "cross_entropy"]
    found["loss"].backward()
    assert all(p.grad is not None for p in module.parameters())


def test_losses_are_float32_under_autocast() -> None:
    module = TrainingModule(tiny_model(), LossConfig())
    with torch.autocast("cpu", torch.bfloat16):
        found = module(batch(), LABELS)
    assert {value.dtype for value in found.values()} == {torch.float32}
