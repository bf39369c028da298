"""Failures in the middle: memory runs out, a launch fails, a map is too large. The next call works."""

import gc
from types import ModuleType

import pytest
import torch
from torch import Tensor

from hstl_fast import functional
from hstl_fast.backends.cuda import arme, astp, support
from tests.backends.triton.helpers import BATCH, DEVICE, results
from tests.helpers.cases import OPERATORS

pytestmark = pytest.mark.usefixtures("exact_kernels")
INPUTS = [value.float() for value in OPERATORS[0].inputs(BATCH)]


def computed() -> list[Tensor]:
    return results(functional.arme, INPUTS, BATCH.split)


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(value), Tensor) for value in gc.get_objects())


@pytest.mark.parametrize("number", [0, 1, 2], ids=["forward", "wgrad", "dgrad"])
def test_memory_that_runs_out_inside_a_sequence(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, allocate, asked = computed(), arme.workspace, []
    before = tensors()

    def workspace(size: int, like: Tensor) -> Tensor:
        asked.append(size)
        if len(asked) == number + 1:
            raise torch.OutOfMemoryError("out of memory")
        return allocate(size, like)

    with monkeypatch.context() as patch:
        patch.setattr(arme, "workspace", workspace)
        with pytest.raises(torch.OutOfMemoryError):
            computed()
    assert len(asked) == number + 1
    assert tensors() == before
    assert all(torch.equal(a, b) for a, b in zip(computed(), expected, strict=True))


def test_a_launch_that_fails_says_why_and_the_next_one_works(installed: ModuleType) -> None:
    if DEVICE == "cuda":
        pytest.skip("no launch can be made to fail on a GPU without breaking its context")
    expected = computed()
    before = installed.shim.options()
    installed.shim.options(shared_limit=1024)
    try:
        with pytest.raises(RuntimeError, match="invalid argument"):
            computed()
    finally:
        installed.shim.options(**before)
    assert all(torch.equal(a, b) for a, b in zip(computed(), expected, strict=True))


def test_maps_of_more_positions_than_32_bits_count() -> None:
    frames = 2**31 // (64 * 44) + 1
    many = torch.empty((1, frames, 64, 44), dtype=torch.bool, device="meta")
    weights = torch.empty((1, 1, 1, 3, 3, 3), device="meta")
    calls = [
        lambda: arme.forward(many[:, None], weights, None, [64], [], 1.0),
        lambda: arme.dgrad(many[:, None], weights, None, [64], []),
        lambda: arme.wgrad(many[:, None], many[:, None], None, [64], []),
        lambda: support.grow(many, [64], []),
        lambda: astp.frame_maximum(many[:, None], None, []),
    ]
    for call in calls:
        with pytest.raises(
            ValueError,
            match=r"x must have at most 2147482624 positions .* in the cuda backend, got",
        ):
            call()


def test_a_tensor_elsewhere_is_refused() -> None:
    elsewhere = torch.empty((1, 2, 3, 4), dtype=torch.bool, device="meta")
    with pytest.raises(RuntimeError, match="backend 'cuda' cannot run on meta"):
        support.max_pool(elsewhere)
