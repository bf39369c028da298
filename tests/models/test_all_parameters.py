"""Training of several processes by a loss that leaves one output of the network out."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from hstl_fast import HSTL, HSTLConfig
from hstl_fast.models import Stage
from hstl_fast.models.hstl import HSTLOutput
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import walkers
from tests.helpers.processes import run_two

LABELS = torch.tensor([0, 1, 0, 1])
# The loss of the global batch is as each process computes it, and the mean over processes is taken of gradients.
TRAINED = """
import gc, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector
from hstl_fast.losses import all_processes, cross_entropy, triplet_loss
from tests.models.test_all_parameters import LABELS, clips, smallest

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
own = slice(0, 2) if rank == 0 else slice(2, 4)


def trained(shared, weight):
    model = smallest().double()
    wrapped = DistributedDataParallel(model) if shared else model
    steps = torch.optim.SGD(wrapped.parameters(), lr=0.5)
    for step in range(3):
        steps.zero_grad()
        if shared:
            embeddings, logits = wrapped(clips(step)[own])
            loss = 2 * triplet_loss(*all_processes(embeddings, LABELS[own]))
        else:
            embeddings, logits = wrapped(clips(step))
            loss = triplet_loss(embeddings, LABELS)
        if weight:
            loss = loss + weight * cross_entropy(logits, LABELS[own] if shared else LABELS)
        loss.backward()
        steps.step()
    return parameters_to_vector(model.parameters()).detach()


start = parameters_to_vector(smallest().double().parameters()).detach()
for weight in (0, 1):
    alone, together = trained(False, weight), trained(True, weight)
    assert (alone - start).norm() > 1e-5 * start.norm()
    assert (together - alone).norm() <= 1e-9 * (alone - start).norm(), weight
gc.collect()
dist.destroy_process_group()
print("equal")
"""
LOSSES: dict[str, Callable[[HSTLOutput], Tensor]] = {
    "embeddings": lambda out: out.embeddings.sin().sum(),
    "logits": lambda out: out.logits.sin().sum(),
    "both": lambda out: out.embeddings.sin().sum() + out.logits.sin().sum(),
}


def smallest() -> HSTL:
    """A network whose batch norm is in evaluation mode: its statistics are those of one process."""
    torch.manual_seed(0)
    stages = (Stage((20, 12), (3,)), Stage((4, 28), (4,)))
    return HSTL(HSTLConfig((2,), stages, pool=True, strips=4, num_classes=2)).eval()


def clips(step: int) -> Tensor:
    return torch.stack([walkers(3, seed=4 * step + i) for i in range(4)])


def gradients(model: torch.nn.Module, loss: Callable[[HSTLOutput], Tensor]) -> list[Tensor | None]:
    model.zero_grad()
    loss(model(clips(0))).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_may_leave_an_output_out(name: str, request: pytest.FixtureRequest) -> None:
    model = smallest()
    alone = gradients(model, LOSSES[name])
    assert (model.classifier.weight.grad is None) == (name == "embeddings")
    request.getfixturevalue("process_group")
    wrapped = DistributedDataParallel(model)
    for _ in range(3):  # torch complains of the first step in the second
        together = gradients(wrapped, LOSSES[name])
    for got, expected in zip(together, alone, strict=True):
        if expected is None:
            assert got.count_nonzero() == 0
        else:
            assert distance(got, expected) <= rounding(torch.float32, NETWORK)


@pytest.mark.usefixtures("process_group")
def test_logits_may_be_changed_in_place() -> None:
    model = smallest()
    expected = gradients(model, lambda out: out.embeddings.sin().sum() + (2 * out.logits).sum())
    got = gradients(model, lambda out: out.embeddings.sin().sum() + out.logits.mul_(2).sum())
    for one, other in zip(got, expected, strict=True):
        assert one is not None
        assert other is not None
        assert distance(one, other) <= rounding(torch.float32, NETWORK)


@pytest.mark.usefixtures("process_group")
def test_outputs_without_gradients_are_left_as_they_are() -> None:
    model = smallest()
    with torch.no_grad():
        assert not model(clips(0)).embeddings.requires_grad
    model.requires_grad_(False)
    assert not model(clips(0)).logits.requires_grad


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")  # which skips where there is no gloo
def test_two_processes_train_as_one_with_the_whole_batch(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run_two(TRAINED, tmp_path / "store", environment) == ["equal\n", "equal\n"]
