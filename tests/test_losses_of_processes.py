"""The loss of the global batch: every process holds a part of it, and all compute what one process would."""

from pathlib import Path

import pytest
import torch

from hstl_fast.losses import all_processes, triplet_loss
from tests.helpers.processes import run_two

LABELS = torch.tensor([4, 4, 9, 9, 2, 4, 9])
GLOBAL = """
import re, sys, torch
import torch.distributed as dist
from hstl_fast.losses import all_processes, triplet_loss
from tests.test_losses_of_processes import LABELS, batch

rank, store = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
whole = batch().requires_grad_()
expected = triplet_loss(whole, LABELS)
expected.backward()
for border in (4, 0, 7):  # unequal numbers of sequences, and none
    own = slice(0, border) if rank == 0 else slice(border, 7)
    mine = batch()[own].requires_grad_()
    embeddings, labels = all_processes(mine, LABELS[own].int())
    assert torch.equal(embeddings, whole) and torch.equal(labels, LABELS)
    loss = triplet_loss(embeddings, labels)
    loss.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(mine.grad, whole.grad[own])
for wrong in (batch()[:, rank:], batch().to([torch.float32, torch.float64][rank])):
    try:
        all_processes(wrong, LABELS)
    except ValueError as error:
        assert re.match("embeddings must have the same parts, channels and type in all processes", str(error))
    else:
        raise AssertionError("other sizes must be refused")
dist.destroy_process_group()
print("equal")
"""


def batch() -> torch.Tensor:
    return torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 4


def test_one_process_without_a_group_keeps_its_own() -> None:
    embeddings, labels = all_processes(batch(), LABELS)
    assert torch.equal(embeddings, batch())
    assert labels is LABELS


@pytest.mark.usefixtures("process_group")
def test_a_group_of_one_process_gives_the_gradient_of_its_own_batch() -> None:
    alone, grouped = batch().requires_grad_(), batch().requires_grad_()
    triplet_loss(alone, LABELS).backward()
    embeddings, labels = all_processes(grouped, LABELS)
    assert embeddings.grad_fn is not None
    triplet_loss(embeddings, labels).backward()
    assert torch.equal(grouped.grad, alone.grad)
    with pytest.raises(ValueError, match="embeddings must be floating"):
        all_processes(batch().long(), LABELS)
    with pytest.raises(ValueError, match="labels must be 7 integers"):
        all_processes(batch(), LABELS[:6])


@pytest.mark.slow
@pytest.mark.usefixtures("process_group")  # which skips where there is no gloo
def test_two_processes_compute_the_loss_of_the_global_batch(tmp_path: Path, environment: dict[str, str]) -> None:
    assert run_two(GLOBAL, tmp_path / "store", environment) == ["equal\n", "equal\n"]
