"""One model used by several threads at once, after a fork, and with other thread counts."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import hstl_fast
from hstl_fast import HSTL, clear_caches
from hstl_fast.backends.cpu import library
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers
from tests.helpers.processes import run_python

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
        assert distance(got, alone) <= rounding(torch.float32, NETWORK)


FORKED = """
import os, sys, torch, hstl_fast
from tests.helpers.bounds import NETWORK, distance, rounding
from tests.helpers.networks import narrow_model, walkers
torch.set_num_threads(2)
with hstl_fast.use_backend(sys.argv[1]):
    model = narrow_model("casia-b", divisor=8)
    model(torch.stack([walkers(4, 1), walkers(4, 2)])).logits.sum().backward()
    expected = model.embed([walkers(4)])
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        same = distance(model.embed([walkers(4)]), expected) <= rounding(torch.float32, NETWORK)
        os._exit(0 if same else 3)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert torch.equal(model.embed([walkers(4)]), expected)
    sys.exit(code)
"""


@pytest.mark.parametrize("backend", ["cpu", pytest.param("reference", marks=pytest.mark.slow)], indirect=True)
def test_a_fork_after_training(backend: str, environment: dict[str, str]) -> None:
    run_python(FORKED, backend, environment)


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
        if backend == "cpu":
            assert torch.equal(result, results[0])
        else:
            assert distance(result, results[0]) <= rounding(torch.float32, NETWORK)


# ---- the native backend: both algorithms, with the background skipped, forward and backward

needs_native = pytest.mark.skipif(library.cpu() is None, reason=library.cpu_error())
each_algorithm = pytest.mark.parametrize("algorithm", ["direct", "winograd"])


def training_step(model: HSTL, clips: list[Tensor], algorithm: str) -> list[Tensor]:
    """Embeddings, logits and the gradients of all parameters."""
    with hstl_fast.use_backend("cpu"), hstl_fast.use_algorithm(algorithm):
        model.zero_grad(set_to_none=True)
        out = model(torch.stack(clips))
        (out.embeddings.square().sum() + out.logits.sin().sum()).backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [out.embeddings.detach(), out.logits.detach(), *gradients]


def same_bits(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(first, second, strict=True))


@pytest.fixture
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@needs_native
@each_algorithm
@pytest.mark.parametrize(
    "threads", [pytest.param(1, marks=pytest.mark.slow), 2, 3, pytest.param(8, marks=pytest.mark.slow)]
)
def test_the_same_bits_run_to_run(threads: int, algorithm: str, threads_restored: None) -> None:
    torch.set_num_threads(threads)
    model = narrow_model("casia-b", divisor=8)
    first = training_step(model, CLIPS[2], algorithm)
    assert all(same_bits(training_step(model, CLIPS[2], algorithm), first) for _ in range(2))


@needs_native
@each_algorithm
def test_a_convolution_gives_the_same_bits_with_any_number_of_threads(algorithm: str, threads_restored: None) -> None:
    random = torch.Generator().manual_seed(0)
    x, w = (torch.randn(*s, generator=random) for s in ((1, 16, 11, 13, 9), (2, 24, 16, 3, 3, 3)))
    support = torch.rand(1, 11, 13, 9, generator=random) > 0.6
    gy = torch.randn(1, 24, 11, 13, 9, generator=random)

    def results(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        leaves = [x.clone().requires_grad_(), w.clone().requires_grad_()]
        options = {"seq_lens": [7, 4], "support": support, "backend": "cpu", "algorithm": algorithm}
        y = hstl_fast.functional.arme(*leaves, [8, 5], **options)
        return [y.detach(), *torch.autograd.grad(y, leaves, gy)]

    alone = results(1)
    assert all(same_bits(results(threads), alone) for threads in (2, 3, 8, 16))


@needs_native
@each_algorithm
def test_threads_train_at_once(algorithm: str) -> None:
    models = [narrow_model("casia-b", seed, divisor=8) for seed in range(4)]
    expected = [training_step(model, clips, algorithm) for model, clips in zip(models, CLIPS)]
    together = threading.Barrier(4)

    def train(i: int) -> list[list[Tensor]]:
        together.wait(timeout=60)
        return [training_step(models[i], CLIPS[i], algorithm) for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        for steps, alone in zip(pool.map(train, range(4)), expected):
            assert all(same_bits(step, alone) for step in steps)


@needs_native
def test_threads_of_one_model_pack_its_weights_at_once() -> None:
    model = narrow_model("casia-b").eval()
    expected = model.embed(CLIPS[0])
    for _ in range(5):
        clear_caches()
        together = threading.Barrier(4)

        def embed(_: int, together: threading.Barrier = together) -> Tensor:
            together.wait(timeout=60)
            return model.embed(CLIPS[0])

        with ThreadPoolExecutor(4) as pool:
            assert all(torch.equal(result, expected) for result in pool.map(embed, range(4)))


FORKED_WHILE_LOCKED = """
import os, signal, threading
from hstl_fast.backends.cpu import allocator
held, forked = threading.Event(), threading.Event()

def hold():
    with allocator._blocks:
        held.set()
        forked.wait()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(10)
    allocator.allocate(2 << 20)
    os._exit(0)
forked.set()
holder.join()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_while_another_thread_takes_memory(environment: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED_WHILE_LOCKED], env=environment, timeout=120, check=False)
    assert done.returncode == 0


COUNTED = """
import os, sys, torch, hstl_fast
from torch.utils.data import DataLoader
from tests.helpers.networks import narrow_model, walkers

def threads_of_process():
    return len(os.listdir("/proc/self/task"))

def work(model):
    with hstl_fast.use_backend("cpu"):
        model.embed([walkers(9), walkers(5)])
        model(torch.stack([walkers(4, 1), walkers(4, 2)])).logits.sum().backward()

class Counted(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        before = threads_of_process()
        work(model)
        return threads_of_process() - before

torch.set_num_threads(int(sys.argv[1]))
model = narrow_model("casia-b")
print(Counted()[0], *DataLoader(Counted(), batch_size=None, num_workers=2, multiprocessing_context="fork"))
"""


@needs_native
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of a process's threads")
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_no_more_threads_than_torch_was_given(threads: int, environment: dict[str, str]) -> None:
    """Nor any at all in the workers of a DataLoader, which torch gives one thread."""
    command = [sys.executable, "-c", COUNTED, str(threads)]
    started = subprocess.check_output(command, env=environment, timeout=120, text=True)
    assert [int(count) for count in started.split()] == [threads - 1, 0, 0]
