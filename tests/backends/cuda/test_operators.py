"""The operators on the cuda backend: the tests of Triton's kernels, on those in CUDA C++.

On a GPU if there is one, else in the emulator.
"""

import pytest
import torch

from hstl_fast import functional, use_backend
from tests.backends.triton.helpers import BATCH, DEVICE, PACKED, assert_near, results
from tests.backends.triton.test_kernels import (
    assert_float32,
    test_a_network_with_and_without_gradients,
    test_constant_maps_pool_to_their_level,
    test_float32,
    test_narrow_inputs_take_float32_parameters,
    test_narrow_types,
    test_only_the_wanted_gradient,
    test_packed_sequences_do_not_meet,
    test_slope_of_the_activation,
    test_strides_do_not_matter,
    test_strip_pool,
    test_the_default_type_does_not_matter,
    test_the_first_of_equal_maxima_takes_the_gradient,
)
from tests.backends.triton.test_support import (
    test_background_frames_enter_maxima,
    test_means_keep_their_denominators,
    test_supports_grow,
    test_the_first_of_equal_zeros_takes_the_gradient,
    test_what_stands_outside_counts_as_zero,
)
from tests.helpers.bounds import rounding
from tests.helpers.cases import OPERATORS, Case

__all__ = [
    "test_a_network_with_and_without_gradients",
    "test_background_frames_enter_maxima",
    "test_constant_maps_pool_to_their_level",
    "test_float32",
    "test_means_keep_their_denominators",
    "test_narrow_inputs_take_float32_parameters",
    "test_narrow_types",
    "test_only_the_wanted_gradient",
    "test_packed_sequences_do_not_meet",
    "test_slope_of_the_activation",
    "test_strides_do_not_matter",
    "test_strip_pool",
    "test_supports_grow",
    "test_the_default_type_does_not_matter",
    "test_the_first_of_equal_maxima_takes_the_gradient",
    "test_the_first_of_equal_zeros_takes_the_gradient",
    "test_what_stands_outside_counts_as_zero",
]
pytestmark = pytest.mark.usefixtures("exact_kernels")
ARME = OPERATORS[0]


@pytest.mark.parametrize("case", [BATCH, PACKED], ids=str)
def test_stretches_of_time_are_joined(case: Case, stretch: int) -> None:
    inputs = [value.float() for value in ARME.inputs(case)]
    assert_float32(ARME, case, inputs, **ARME.options(case))


def test_tf32_where_torch_convolves_in_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = [value.float() for value in ARME.inputs(BATCH)]
    exact = results(ARME.definition, [value.double() for value in inputs], BATCH.split)
    full = results(functional.arme, inputs, BATCH.split, signs=exact[0])
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    found = results(functional.arme, inputs, BATCH.split, signs=exact[0])
    assert not torch.equal(found[0], full[0])
    # TF32 rounds to 10 bits, as float16 does.
    assert_near(found, exact, [rounding(torch.float16, 16)] * 3)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic: bool) -> None:
    x, weights = (value.to(DEVICE, torch.float32) for value in ARME.inputs(PACKED))
    compiled = torch.compile(functional.arme, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    found, expected = (f(x, weights, PACKED.split, seq_lens=PACKED.lens) for f in (compiled, functional.arme))
    assert torch.equal(found, expected)
    torch.compiler.reset()


def test_gradients_compile_without_a_break() -> None:
    x, weights = (value.to(DEVICE, torch.float32).requires_grad_() for value in ARME.inputs(PACKED))
    compiled = torch.compile(functional.arme, backend="aot_eager", fullgraph=True)
    found, expected = (
        torch.autograd.grad(f(x, weights, PACKED.split, seq_lens=PACKED.lens).square().sum(), (x, weights))
        for f in (compiled, functional.arme)
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.compiler.reset()


def test_float64_is_refused_by_name() -> None:
    x, weights = (value.to(DEVICE) for value in ARME.inputs(BATCH))
    with pytest.raises(RuntimeError, match=r"backend 'cuda' cannot run arme: .* not torch\.float64"):
        functional.arme(x, weights, BATCH.split)
    with use_backend("auto"):
        assert functional.arme(x, weights, BATCH.split).dtype == torch.float64
