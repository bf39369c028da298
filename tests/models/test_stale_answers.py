"""Evaluation answers by the weights as they are at the call, however they came to be so.

Most of these changes move no version counter of torch. After each, a network that has been evaluated before gives what
a new one with the same values gives, to the bit.
"""

import copy
import ctypes
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, prune, vector_to_parameters
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hstl_fast import HSTL, HSTLConfig, accelerate, clear_caches
from hstl_fast.backends.cpu import weights
from hstl_fast.models import Stage
from hstl_fast.ops import _dispatch
from tests.helpers.drop_in import network, silhouettes
from tests.helpers.networks import walkers

NO_BINARY = _dispatch.why_not("arme", "cpu", "cpu", torch.float32)
pytestmark = [pytest.mark.skipif(NO_BINARY is not None, reason=str(NO_BINARY)), pytest.mark.usefixtures("one_thread")]

# The stem is computed directly, the stages in the Winograd domain.
CONFIG = HSTLConfig((8,), (Stage((40, 24), (8,)), Stage((40, 16, 8), (8,))), False, 4, 3)
CLIP = walkers(4)[None]


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    """Caches are empty before a test and after it."""
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def model() -> HSTL:
    """A network that was evaluated, so that whatever is kept of its weights is kept now."""
    torch.manual_seed(0)
    found = HSTL(CONFIG).eval()
    answers(found)
    assert len(weights._entries) == 3
    return found


@torch.no_grad()
def answers(model: HSTL) -> list[Tensor]:
    """The embeddings by an execution plan, by `embed`, and layer by layer."""
    with pytest.MonkeyPatch.context() as patch:
        planned, embedded = model(CLIP).embeddings, model.embed([CLIP[0]])
        patch.setattr("hstl_fast.models.hstl.planned_embeddings", lambda *_: None)
        return [planned, embedded, model(CLIP).embeddings]


def assert_answers_by_its_weights(model: HSTL, before: list[Tensor] | None = None) -> None:
    """As a new network with the same values; and not as before the change, if that is given."""
    found = answers(model)
    fresh = HSTL(CONFIG).eval()
    fresh.load_state_dict({name: value.detach().clone() for name, value in model.state_dict().items()})
    for got, expected in zip(found, answers(fresh), strict=True):
        assert torch.equal(got, expected)
    for got, old in zip(found, before or []):
        assert not torch.equal(got, old)


def convolutions(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.dim() == 6]


def of_other_seed() -> HSTL:
    torch.manual_seed(1)
    return HSTL(CONFIG)


def by_data(model: HSTL) -> None:
    for weight in convolutions(model):
        weight.data[0, 3, 0, 1, 1, 2] += 1


def by_a_flat_view(model: HSTL) -> None:
    for weight in convolutions(model):
        weight.data.view(-1)[-1] = 2


def by_numpy(model: HSTL) -> None:
    for weight in convolutions(model):
        weight.detach().numpy()[-1, 5, 0, 2, 0, 1] *= -3


def by_dlpack(model: HSTL) -> None:
    for weight in convolutions(model):
        torch.from_dlpack(weight.detach()).neg_()


def by_the_storage(model: HSTL) -> None:
    for weight, other in zip(convolutions(model), convolutions(of_other_seed())):
        weight.untyped_storage().copy_(other.untyped_storage())


def by_an_address(model: HSTL) -> None:
    for weight, other in zip(convolutions(model), convolutions(of_other_seed())):
        ctypes.memmove(weight.data_ptr() + 8, other.data_ptr(), weight.nbytes - 8)


def by_a_vector(model: HSTL) -> None:
    vector_to_parameters(parameters_to_vector(of_other_seed().parameters()), model.parameters())


def by_assignment(model: HSTL) -> None:
    model.load_state_dict(of_other_seed().state_dict(), assign=True)


def by_a_loader(model: HSTL) -> None:
    model.load_state_dict(of_other_seed().state_dict())


def by_other_data(model: HSTL) -> None:
    for weight, other in zip(convolutions(model), convolutions(of_other_seed())):
        weight.data = other.data


def by_inference_mode(model: HSTL) -> None:
    with torch.inference_mode():
        for weight in convolutions(model):
            weight.mul_(1.25)


def by_foreach(model: HSTL) -> None:
    with torch.no_grad():
        torch._foreach_lerp_(list(model.parameters()), list(of_other_seed().parameters()), 0.3)


def by_pruning(model: HSTL) -> None:
    layers = [(module, "weight") for module in model.modules() if getattr(module, "weight", torch.ones(1)).dim() == 6]
    prune.global_unstructured(layers, prune.L1Unstructured, amount=0.4)
    assert not torch.equal(answers(model)[0], answers(HSTL(CONFIG).eval())[0])
    for module, name in layers:
        prune.remove(module, name)


def step(model: HSTL, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        optimizer.step()


def by_a_fused_optimizer(model: HSTL) -> None:
    versions = [weight._version for weight in convolutions(model)]
    step(model, torch.optim.AdamW(model.parameters(), lr=0.01, fused=True))
    assert versions == [weight._version for weight in convolutions(model)]  # else this test shows less than it should


def by_an_optimizer(model: HSTL) -> None:
    step(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True))


def by_a_process_group(model: HSTL) -> None:
    """Two members of a group in one process: one sends the weights that the other receives in place."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        pytest.skip("torch was built without gloo")
    store, sent = torch.distributed.HashStore(), [weight.detach() for weight in convolutions(of_other_seed())]
    received = [weight.detach() for weight in convolutions(model)]

    def take_part(rank: int, tensors: list[Tensor]) -> None:
        group = torch.distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=30))
        for tensor in tensors:
            group.broadcast(tensor, 0).wait()

    sender = threading.Thread(target=take_part, args=(0, sent))
    sender.start()
    take_part(1, received)
    sender.join()
    for got, expected in zip(received, sent, strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    "change",
    [
        *(by_data, by_a_flat_view, by_numpy, by_dlpack, by_the_storage, by_an_address, by_a_vector, by_assignment),
        *(by_a_loader, by_other_data, by_inference_mode, by_foreach, by_pruning, by_a_fused_optimizer),
        *(by_an_optimizer, by_a_process_group),
    ],
)
def test_every_change_is_answered(change: Callable[[HSTL], None], model: HSTL) -> None:
    before = answers(model)
    change(model)
    assert_answers_by_its_weights(model, before)


def test_averages_are_answered(model: HSTL) -> None:
    """As means and as exponential means, whose weights are written by torch's `_foreach` functions."""
    for average in (None, get_ema_multi_avg_fn(0.6)):
        averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=average is not None)
        for seed in range(3):
            before = answers(averaged.module)
            torch.manual_seed(5 + seed)
            averaged.update_parameters(HSTL(CONFIG))
            assert_answers_by_its_weights(averaged.module, before)


def test_shared_memory_that_another_process_writes_is_answered(model: HSTL, tmp_path: Path) -> None:
    """As the workers of Hogwild do: this process has no part in the change."""
    for i, weight in enumerate(convolutions(model)):
        path = tmp_path / f"{i}.bin"
        path.write_bytes(weight.detach().numpy().tobytes())
        weight.data = torch.from_file(str(path), shared=True, size=weight.numel()).view(weight.shape)
    before = answers(model)
    program = "import sys\nfor path in sys.argv[1:]:\n f = open(path, 'r+b'); f.seek(40); f.write(bytes(2)); f.close()"
    subprocess.run([sys.executable, "-c", program, *map(str, sorted(tmp_path.glob("*.bin")))], check=True)
    assert_answers_by_its_weights(model, before)


def test_one_changed_element_anywhere_is_answered(model: HSTL) -> None:
    """By a number, its sign or its last bit, one at a time, each time back to the weights before."""
    generator = torch.Generator().manual_seed(3)
    first = answers(model)
    for weight in convolutions(model):
        flat = weight.data.view(-1)
        places = torch.randint(flat.numel(), (8,), generator=generator).tolist()
        for i, place in enumerate([0, flat.numel() - 1, *places]):
            value = float(flat[place])
            flat[place] = (value + 1, -value, math.nextafter(value, 9) + 2.0**-20)[i % 3]
            assert_answers_by_its_weights(model)
            flat[place] = value
    assert all(torch.equal(got, old) for got, old in zip(answers(model), first))


def test_two_exchanged_elements_are_answered(model: HSTL) -> None:
    """Sums and samples of the values stay as they were, and so do sets of values."""
    generator = torch.Generator().manual_seed(4)
    for weight in convolutions(model):
        flat = weight.data.view(-1)
        last = flat.numel() - 1
        pairs = [(0, last), (0, 1), (7, 34), *torch.randint(last, (4, 2), generator=generator).tolist()]
        for i, j in pairs:
            flat[[i, j]] = flat[[j, i]]
            assert_answers_by_its_weights(model)
            flat[[i, j]] = -flat[[i, j]]
            assert_answers_by_its_weights(model)


def test_every_tensor_of_the_network_is_answered(model: HSTL) -> None:
    """Convolutions, gates, projections, powers, the parts' maps and the norm's statistics."""
    generator = torch.Generator().manual_seed(5)
    before = answers(model)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not name.startswith("classifier"):
            values, noise = tensor.clone(), torch.rand(tensor.shape, generator=generator)
            tensor.numpy()[...] += noise.numpy()
            assert_answers_by_its_weights(model, before)
            tensor.numpy()[...] = values.numpy()


def test_copies_do_not_share_answers(model: HSTL) -> None:
    other = copy.deepcopy(model)
    by_numpy(other)
    assert_answers_by_its_weights(other, answers(model))
    by_data(model)
    assert_answers_by_its_weights(model, answers(other))


def test_a_network_in_training_is_answered_in_between(model: HSTL) -> None:
    """Evaluated after each step of an optimiser of which torch counts nothing."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=True)
    clips = torch.cat([CLIP, CLIP.flip(3)])
    for _ in range(3):
        optimizer.zero_grad()
        model(clips).logits.square().sum().backward()
        model.eval()
        before = answers(model)
        model.train()
        optimizer.step()
        model.eval()
        assert_answers_by_its_weights(model, before)
        model.train()


def test_long_clips_are_answered(model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows."""
    monkeypatch.setattr("hstl_fast.models.hstl.FRAMES_OF_A_WINDOW", 30)
    clip = walkers(50)
    before = model.embed([clip], max_frames=30)
    by_numpy(model)
    fresh = HSTL(CONFIG)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    after = model.embed([clip], max_frames=30)
    assert torch.equal(after, fresh.embed([clip], max_frames=30))
    assert not torch.equal(after, before)


@torch.no_grad()
def test_accelerated_layers_of_others_are_answered() -> None:
    model = network("casia-b").eval()
    accelerate(model)
    clips = silhouettes()
    model(clips)
    for parameter in model.parameters():
        if parameter.numel() > 1:
            parameter.detach().numpy().reshape(-1)[parameter.numel() // 3] += 0.25
    fresh = network("casia-b").eval()
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    accelerate(fresh)
    for got, expected in zip(model(clips), fresh(clips)):
        assert torch.equal(got, expected)


@pytest.mark.slow
@torch.no_grad()
def test_exported_and_compiled_networks_are_answered(model: HSTL) -> None:
    from hstl_fast.export import Embedder

    embedder = Embedder(model).eval()
    program = torch.export.export(embedder, (CLIP,)).module()
    compiled = torch.compile(embedder, backend="aot_eager")
    for run, owner in ((program, program), (compiled, embedder)):
        before = run(CLIP)
        for weight in convolutions(owner):
            weight.detach().numpy()[0, 1, 0, 1, 1, 1] += 1
        after = run(CLIP)
        clear_caches()
        assert torch.equal(run(CLIP), after)
        assert not torch.equal(after, before)
