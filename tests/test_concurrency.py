"""One model used by several threads at once, after a fork, and with other thread counts."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import hstl_fast
from hstl_fast import HSTL
from tests.networks import narrow_model, walkers

CLIPS = [[walkers(3 + i, 10 * i + k) for k in range(3)] for i in range(8)]


@pytest.fixture
def model() -> HSTL:
    return narrow_model("casia-b", divisor=8)


def test_threads_embed_at_once(model: HSTL, backend: str) -> None:
    expected = [model.embed(clips) for clips in CLIPS]
    together = threading.Barrier(4)

    def embed(i: int) -> Tensor:
        with hstl_fast.use_backend(backend):
            if i < 4:
                together.wait(timeout=60)
            return model.embed(CLIPS[i])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(embed, range(len(CLIPS))))
    assert all(torch.equal(got, alone) for got, alone in zip(results, expected))
    assert model.training


def test_a_thread_embeds_while_another_trains(model: HSTL, backend: str) -> None:
    trained = narrow_model("casia-b", divisor=8)
    expected = model.embed(CLIPS[0])
    stop = threading.Event()

    def train() -> int:
        count = 0
        with hstl_fast.use_backend(backend):
            while not stop.is_set():
                trained(torch.stack(CLIPS[1])).logits.sum().backward()
                count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        rounds = pool.submit(train)
        embedded = [model.embed(CLIPS[0]) for _ in range(5)]
        stop.set()
        assert rounds.result(timeout=60) > 0
    assert all(torch.equal(result, expected) for result in embedded)
    assert not embedded[0].requires_grad


class Embedded(Dataset[Tensor]):
    """Clips embedded where they are read: in the workers of a DataLoader."""

    def __init__(self, model: HSTL, backend: str) -> None:
        self.model, self.backend = model, backend

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Tensor:
        with hstl_fast.use_backend(self.backend):
            return self.model.embed(CLIPS[i])


def test_workers_forked_after_use(model: HSTL, backend: str) -> None:
    expected = [model.embed(clips) for clips in CLIPS[:4]]
    loader = DataLoader(
        Embedded(model, backend), batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
    )
    for got, alone in zip(loader, expected, strict=True):
        torch.testing.assert_close(got, alone, rtol=1e-6, atol=1e-6)


FORKED = """
import os, sys, torch, hstl_fast
from tests.networks import narrow_model, walkers
torch.set_num_threads(2)
with hstl_fast.use_backend(sys.argv[1]):
    model = narrow_model("casia-b", divisor=8)
    model(torch.stack([walkers(4, 1), walkers(4, 2)])).logits.sum().backward()
    expected = model.embed([walkers(4)])
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        same = torch.allclose(model.embed([walkers(4)]), expected, rtol=1e-5, atol=1e-6)
        os._exit(0 if same else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert torch.equal(model.embed([walkers(4)]), expected)
    sys.exit(code)
"""


def test_a_fork_after_training(backend: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, backend],
        env=environment,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_any_number_of_threads(model: HSTL, backend: str) -> None:
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(model.embed(CLIPS[0]))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)
