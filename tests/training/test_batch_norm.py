"""Batch norm over processes: in one process it is torch's; in two, that of their batches together."""

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from hstl_fast.training.batch_norm import GlobalBatchNorm1d, plain_batch_norm, use_global_batch_norm
from tests.helpers.bounds import distance, rounding
from tests.helpers.tiny import tiny_model
from tests.training.processes import free_port, in_processes

SHAPE, MEAN = (6, 5, 7), 3.0
# The rounding of a value of the size of the mean stays when the mean is taken off; gradients subtract two more means.
BOUND = 3 * MEAN * rounding(torch.float64, SHAPE[0] * SHAPE[2] * SHAPE[1])


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def make_norm(dtype: torch.dtype = torch.float64) -> nn.BatchNorm1d:
    generator = torch.Generator().manual_seed(0)
    norm = nn.BatchNorm1d(SHAPE[1], eps=1e-3, momentum=0.3).to(dtype)
    for tensor in (*norm.parameters(), norm.running_mean, norm.running_var):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return norm


def draw(seed: int) -> Tensor:
    return MEAN + torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def results(norm: nn.BatchNorm1d, rows: slice = slice(None)) -> dict[str, Tensor]:
    """Output, gradients and statistics for some rows of the batch."""
    x, direction = draw(1)[rows].requires_grad_(), draw(2)[rows]
    y = norm(x)
    (y * direction).sum().backward()
    found = {"y": y.detach(), "x": x.grad, "weight": norm.weight.grad, "bias": norm.bias.grad}
    return {**found, "mean": norm.running_mean, "var": norm.running_var, "batches": norm.num_batches_tracked}


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("momentum", [0.3, None])
def test_one_process(momentum: float | None) -> None:
    plain, ours = make_norm(), GlobalBatchNorm1d(make_norm())
    plain.momentum = ours.momentum = momentum
    found, expected = results(ours), results(plain)
    for name, value in expected.items():
        assert distance(found[name].double(), value.double()) < BOUND, name


def test_evaluation_is_plain() -> None:
    plain, ours = make_norm().eval(), GlobalBatchNorm1d(make_norm().eval())
    assert not ours.training
    assert torch.equal(ours(draw(1)), plain(draw(1)))


def check_two() -> None:
    """Compare each process's results for its rows with those of one process for the whole batch."""
    rank = dist.get_rank()
    rows = slice(0, 2) if rank == 0 else slice(2, 6)
    ours, expected = results(GlobalBatchNorm1d(make_norm()), rows), results(make_norm())
    for name in ("weight", "bias"):
        dist.all_reduce(ours[name])
    for name in ("y", "x"):
        expected[name] = expected[name][rows]
    for name, value in expected.items():
        assert distance(ours[name].double(), value.double()) < BOUND, (rank, name)


@pytest.mark.slow
def test_two_processes_with_unequal_batches() -> None:
    in_processes(2, check_two, free_port())


def test_a_network_keeps_its_tensors() -> None:
    model = tiny_model()
    before, norm = model.state_dict(keep_vars=True), model.norm
    use_global_batch_norm(model)
    use_global_batch_norm(model)
    with plain_batch_norm(model):
        assert type(model.norm) is nn.BatchNorm1d
        assert model.norm is not norm
        model.norm.train()
    assert type(model.norm) is GlobalBatchNorm1d
    after = model.state_dict(keep_vars=True)
    assert list(after) == list(before)
    assert all(after[name] is tensor for name, tensor in before.items())
