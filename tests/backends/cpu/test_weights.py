"""Prepacked weights are cached in evaluation, are never those of other values, and are not seen from outside.

tests/models/test_stale_answers.py changes the weights of whole networks in every way that PyTorch does not notice.
"""

import copy
import gc
import io
import os
import pickle
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import clear_caches, functional, use_algorithm
from hstl_fast.backends.cpu import library, weights
from hstl_fast.nn import ARME

X = torch.rand(1, 8, 4, 6, 7, generator=torch.Generator().manual_seed(0))
SPLIT = [4, 2]


@pytest.fixture(autouse=True)
def nothing_kept(native: str) -> Iterator[None]:
    """Before a test and after it."""
    clear_caches()
    yield
    clear_caches()


@pytest.fixture
def layer() -> ARME:
    torch.manual_seed(1)
    return ARME(8, 16, SPLIT)


@pytest.fixture
def prepackings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one whenever weights are prepacked."""
    count: list[int] = []
    right = weights._prepacked

    def noting(*arguments: object) -> Tensor:
        count.append(1)
        return right(*arguments)

    monkeypatch.setattr(weights, "_prepacked", noting)
    return count


@torch.no_grad()
def answer(layer: ARME) -> Tensor:
    """In evaluation."""
    y: Tensor = layer(X.to(layer.weight.dtype))
    return y


@torch.no_grad()
def uncached(layer: ARME) -> Tensor:
    """The answer with weights that were never prepacked before."""
    weight = layer.weight.detach().clone().contiguous()
    return functional.arme(X.to(weight.dtype), weight, layer.split)


def test_evaluation_prepacks_once(layer: ARME, prepackings: list[int]) -> None:
    first = answer(layer)
    assert torch.equal(answer(layer), first)
    with torch.inference_mode():
        assert torch.equal(layer(X), first)
    layer.requires_grad_(False)
    assert torch.equal(layer(X), first)
    assert len(prepackings) == 1
    with use_algorithm("direct"):
        answer(layer)
        answer(layer)
    assert len(prepackings) == 2
    assert weights.cached_bytes() > 5 * layer.weight.nbytes
    clear_caches()
    assert weights.cached_bytes() == 0
    assert torch.equal(answer(layer), first)
    assert len(prepackings) == 3


@pytest.mark.parametrize("cached", [True, False])
def test_weights_are_prepacked_in_the_shape_that_was_read(
    layer: ARME, cached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another thread may give them memory of another shape then."""
    expected, values = uncached(layer), weights._values
    if not cached:
        monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", "0")

    def changed(x: Tensor) -> Tensor:
        found = values(x)
        x.data = torch.zeros(2, 48, 24, 3, 3, 3)
        return found

    monkeypatch.setattr(weights, "_values", changed)
    assert torch.equal(answer(layer), expected)


def test_training_keeps_nothing(layer: ARME) -> None:
    for _ in range(2):
        layer(X.requires_grad_()).sum().backward()
    X.requires_grad_(False)
    assert not weights._entries


def _step(layer: ARME) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1)
    layer(X).square().sum().backward()
    optimizer.step()


def _in_place(layer: ARME) -> None:
    with torch.no_grad():
        layer.weight[1, 3, 2, 0, 1, 2] += 1


def _other_weights(layer: ARME) -> dict[str, Tensor]:
    return {"weight": layer.weight.detach().flip(0)}


def _behind_the_back(layer: ARME) -> None:
    layer.weight.data.mul_(1.5)


def _other_data(layer: ARME) -> None:
    layer.weight.data = layer.weight.data.flip(1)


def _there_and_back(layer: ARME) -> None:
    layer.double()
    answer(layer)
    with torch.no_grad():
        layer.weight.mul_(2)
    layer.float()


def _other_split(layer: ARME) -> None:
    layer.split = [2, 4]


def _through_numpy(layer: ARME) -> None:
    layer.weight.detach().numpy()[:] *= 2


def _swapped(layer: ARME) -> None:
    layer.weight = nn.Parameter(layer.weight.detach() * 2)


CHANGES: list[Callable[[ARME], object]] = [
    _step,
    _in_place,
    lambda layer: layer.load_state_dict(_other_weights(layer)),
    lambda layer: layer.load_state_dict(_other_weights(layer), assign=True),
    lambda layer: layer.reset_parameters(),
    lambda layer: layer.double(),
    lambda layer: layer.bfloat16(),
    _there_and_back,
    lambda layer: layer.half().float(),
    _behind_the_back,
    _other_data,
    _other_split,
    _through_numpy,
    _swapped,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_prepacked_again(
    change: Callable[[ARME], object], layer: ARME, prepackings: list[int]
) -> None:
    before = answer(layer)
    change(layer)
    prepackings.clear()
    after = answer(layer)
    assert len(prepackings) == 1
    assert torch.equal(after, uncached(layer))
    assert after.dtype != before.dtype or not torch.equal(after, before)


def test_no_model_is_kept_alive() -> None:
    layer = ARME(8, 16, SPLIT)
    answer(layer)
    assert len(weights._entries) == 1
    del layer
    gc.collect()
    assert not weights._entries


def test_weights_at_the_address_of_others(prepackings: list[int]) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        weight = torch.rand(2, 16, 8, 3, 3, 3)
        y = functional.arme(X, weight, SPLIT)
        assert torch.equal(y, functional.arme(X, list(weight), SPLIT))
        del weight
    assert len(prepackings) == 5  # those of a list are prepacked by the convolution itself
    assert not weights._entries


def test_copies_and_files_hold_nothing_of_it(layer: ARME) -> None:
    size = len(pickle.dumps(layer))
    expected = answer(layer)
    assert len(pickle.dumps(layer)) == size
    assert set(layer.state_dict()) == {"weight"}
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), torch.load(file, weights_only=False)):
        assert torch.equal(answer(other), expected)
        with torch.no_grad():
            other.weight.mul_(2)
        assert torch.equal(answer(other), uncached(other))
    assert torch.equal(answer(layer), expected)


def test_weights_of_inference_mode_are_cached_and_never_stale(prepackings: list[int], layer: ARME) -> None:
    """Torch counts no versions of them."""
    with torch.inference_mode():
        weight = layer.weight.clone()
        expected = functional.arme(X, weight, SPLIT)
        assert torch.equal(functional.arme(X, weight, SPLIT), expected)
        assert len(prepackings) == 1
        weight[1, 3, 2, 0, 1, 2] += 1
        assert torch.equal(functional.arme(X, weight, SPLIT), functional.arme(X, weight.clone(), SPLIT))
        assert not torch.equal(functional.arme(X, weight, SPLIT), expected)


def test_weights_that_are_not_numbers_are_cached_and_never_stale(layer: ARME, prepackings: list[int]) -> None:
    with torch.no_grad():
        layer.weight.fill_(float("nan"))
    for _ in range(2):
        assert answer(layer).isnan().all()
    assert len(prepackings) == 1
    layer.weight.data.fill_(1)
    assert torch.equal(answer(layer), uncached(layer))


def test_weights_that_are_not_contiguous_are_never_stale(layer: ARME) -> None:
    memory = layer.weight.detach().permute(1, 2, 0, 3, 4, 5).contiguous()
    layer.weight.data = memory.permute(2, 0, 1, 3, 4, 5)
    assert not layer.weight.is_contiguous()
    before = answer(layer)
    memory[3, 2, 1, 0, 1, 2] += 1
    assert torch.equal(answer(layer), uncached(layer))
    assert not torch.equal(answer(layer), before)


def test_the_same_values_are_not_prepacked_again(layer: ARME, prepackings: list[int]) -> None:
    """However often they are written, and wherever they are."""
    before = answer(layer)
    with torch.no_grad():
        layer.weight.mul_(1)
    layer.load_state_dict(layer.state_dict())
    layer.weight.data = layer.weight.data.clone()
    assert torch.equal(answer(layer), before)
    assert len(prepackings) == 1


def test_one_tensor_in_two_layouts(layer: ARME) -> None:
    requests = [weights.Request(layer.weight, torch.float32, split, 0) for split in (SPLIT, [1, 5])]
    for _ in range(2):
        same = weights.cached_weights([*requests, requests[0]])
        assert torch.equal(same[0], same[2])
    wide = weights.Request(layer.weight, torch.float64, SPLIT, 0)
    assert torch.equal(weights.cached_weights([wide])[0], weights._prepacked(wide, wide.weights, False))


def test_a_writer_during_prepacking_leaves_no_false_entry(layer: ARME, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry is of the values whose checksum it has, though others stood there for a moment."""
    right, flat = weights._prepacked, layer.weight.data.view(-1)

    def disturbed(*arguments: object) -> Tensor:
        flat.neg_()
        prepacked = right(*arguments)
        flat.neg_()
        return prepacked

    expected = uncached(layer)
    monkeypatch.setattr(weights, "_prepacked", disturbed)
    for _ in range(2):
        assert torch.equal(answer(layer), expected)


def test_an_instruction_set_has_its_own(layer: ARME, prepackings: list[int]) -> None:
    native = library.require_cpu()
    before = native.instruction_set()
    expected = answer(layer)
    try:
        for name in sorted(native.instruction_sets(), key=lambda name: name != before):  # what is prepacked goes first
            native.use_instruction_set(name)
            torch.testing.assert_close(answer(layer), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    finally:
        native.use_instruction_set(before)
    assert len(prepackings) == len(native.instruction_sets())


def test_the_environment_bounds_the_memory(
    layer: ARME, prepackings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", "0")
    answer(layer)
    assert not weights._entries
    monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", "3")
    request = weights.Request(layer.weight.detach(), torch.float32, SPLIT, 4)
    size = weights._prepacked(request, request.weights, False).nbytes
    count = (3 << 20) // size + 2  # how large one is depends on the instruction set
    layers = [ARME(8, 16, SPLIT) for _ in range(count)]
    assert 2 * size < 3 << 20
    prepackings.clear()
    for other in layers:
        answer(other)
        answer(layers[0])
    assert weights.cached_bytes() <= 3 << 20
    assert len(prepackings) == count  # the first was never the least recently used
    monkeypatch.setenv("HSTL_FAST_PACKED_CACHE", "much")
    with pytest.raises(ValueError, match=r"HSTL_FAST_PACKED_CACHE must be a number of MiB .* got 'much'"):
        answer(layer)


def test_threads_that_change_and_ask(layer: ARME) -> None:
    """Each with a layer of its own and all with one that is shared."""
    shared, wrong = answer(layer), []

    def work(seed: int) -> None:
        torch.manual_seed(seed)
        own = ARME(8, 16, SPLIT)
        for _ in range(10):
            with torch.no_grad():
                own.weight.mul_(1.1)
            wrong.extend([not torch.equal(answer(own), uncached(own)), not torch.equal(answer(layer), shared)])
            clear_caches()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 80
    assert not any(wrong)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_goes_on(layer: ARME, one_thread: None) -> None:
    expected = answer(layer)
    child = os.fork()
    if child == 0:
        with torch.no_grad():
            same = torch.equal(answer(layer), expected)
            layer.weight.mul_(2)
            os._exit(0 if same and torch.equal(answer(layer), uncached(layer)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(answer(layer), expected)


def test_compiled_layers_prepack_once(layer: ARME, prepackings: list[int]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        expected = compiled(X)
        assert torch.equal(compiled(X), expected)
        assert len(prepackings) == 1
        layer.weight.mul_(2)
        assert torch.equal(compiled(X), uncached(layer))
    assert not torch.equal(compiled(X), expected)
    assert len(weights._entries) == 1
