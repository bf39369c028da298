"""An accelerated model trains under DistributedDataParallel as before."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

DISTRIBUTED = """
import gc, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hstl_fast import accelerate
from tests.helpers.drop_in import network, randomised, silhouettes
from tests.helpers.gaitgl import OpenGaitGL

rank, store, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
make = network if name == "HSTL" else lambda: randomised(OpenGaitGL("casia-b", 16))
count = 14 if name == "HSTL" else 5
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
sils = silhouettes(4, seed=rank).double()


def trained(accelerated):
    model = make().double()
    if accelerated == "before":
        assert len(accelerate(model).replaced) == count
    wrapped = DistributedDataParallel(model)
    if accelerated == "after":
        report = accelerate(wrapped)
        assert len(report.replaced) == count and report.replaced[0].name.startswith("module."), report
    steps = torch.optim.SGD(wrapped.parameters(), lr=0.05)
    for _ in range(2):
        steps.zero_grad()
        embeddings, logits = wrapped(sils)
        (embeddings.sin().sum() + logits.square().mean()).backward()
        steps.step()
    return [p.detach() for p in model.parameters()]


plain = trained("never")
alone = make().double()
assert not all(torch.equal(a, b) for a, b in zip(plain, alone.parameters()))
for when in ("before", "after"):
    for got, expected in zip(trained(when), plain, strict=True):
        assert (got - expected).norm() <= 1e-9 * expected.norm(), when
        both = [torch.empty_like(got) for _ in range(2)]
        dist.all_gather(both, got)
        assert torch.equal(*both)
gc.collect()  # wrapped models in cycles would keep gloo's threads until the interpreter ends, which may abort it
dist.destroy_process_group()
print("equal")
"""


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    """Children started by a test, ended with it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HSTL", "GaitGL"])
def test_two_processes_train_as_before(
    name: str, tmp_path: Path, environment: dict[str, str], processes: list[subprocess.Popen[str]]
) -> None:
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("this torch has no gloo")
    for rank in range(2):
        command = [sys.executable, "-c", DISTRIBUTED, str(rank), str(tmp_path / "store"), name]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == "equal"
