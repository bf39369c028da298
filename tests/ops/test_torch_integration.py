"""The operators under torch's own checks and compilers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from hstl_fast.backends.cpu import algorithm
from tests.helpers.cases import LONG_ENOUGH, OPERATORS, Case, Operator

CASE = LONG_ENOUGH[6]
each_operator = pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)


def private_calls(case: Case, dtype: torch.dtype, backend: str) -> list[tuple[str, tuple[Any, ...]]]:
    """Every private operator with arguments as the public functions hand them over."""
    ops, lens = torch.ops.hstl_fast, case.lens if case.packed else []
    x, weights = (value.to(dtype) for value in OPERATORS[0].inputs(case))
    _, proj, p = (value.to(dtype) for value in OPERATORS[1].inputs(case))
    _, fta_weights, biases = (value.to(dtype) for value in OPERATORS[2].inputs(case))
    support = x.new_ones((x.shape[0], *x.shape[2:]), dtype=torch.bool)
    support[..., ::2] = False
    within = (support, ops.grow_support(support, case.split, lens, backend), case.split, lens, 0.01, algorithm.AUTO)
    everywhere = (None, None, *within[2:])
    y = ops.arme_forward(x, weights, *within, True, False, backend)
    astp = (x, proj, p, None, case.split, lens)
    pooled, *made = ops.astp_forward(*astp, backend)
    frames_maximum, frames_index = ops.frame_maximum(x, None, lens, backend)
    bare = (x, None, p, None, case.split, lens)
    bare_pooled, *bare_made = ops.astp_forward(*bare, backend)
    size = (list(x.shape), x.dtype)
    fta = (x, fta_weights, biases, ops.window_support(support, lens, backend), case.split, lens)
    z, means = ops.fta_forward(*fta, backend)
    calls = [
        ("grow_support", (support, case.split, lens)),
        ("window_support", (support, lens)),
        ("max_pool_support", (support,)),
        ("arme_forward", (x, weights, *within, True, False)),
        ("arme_forward", (x, weights, *everywhere, False, True)),
        ("arme_dgrad", (y, y, weights, *within)),
        ("arme_wgrad", (y, y, x, weights, *within)),
        ("arme_wgrad", (y, y, x, weights, *everywhere)),
        ("astp_forward", astp),
        ("astp_forward", bare),
        ("astp_forward", (x, proj, p, support, case.split, lens)),
        ("astp_inference", astp),
        ("astp_inference", bare),
        ("frame_maximum", (x, support, lens)),
        ("frame_maximum_backward", (frames_maximum, frames_index, *size, lens)),
        ("astp_backward", (pooled, pooled, *made, proj, p, *size, case.split, lens)),
        ("astp_backward", (bare_pooled, bare_pooled, *bare_made, None, p, *size, case.split, lens)),
        ("fta_forward", fta),
        ("fta_backward", (z, x, means, *fta[1:])),
    ]
    return [(name, (*arguments, backend)) for name, arguments in calls]


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (LONG_ENOUGH[2], torch.float32),
        (LONG_ENOUGH[6], torch.bfloat16),
        pytest.param(LONG_ENOUGH[2], torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(LONG_ENOUGH[6], torch.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_opcheck(case: Case, dtype: torch.dtype, native: str) -> None:
    for name, arguments in private_calls(case, dtype, native):
        torch.library.opcheck(getattr(torch.ops.hstl_fast, name).default, arguments)


COMPILERS = [
    ("cpu", "aot_eager"),
    pytest.param("cpu", "inductor", marks=pytest.mark.slow),
    ("reference", "aot_eager"),
    pytest.param("reference", "inductor", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "compiler"), COMPILERS, indirect=["backend"])
@each_operator
def test_compiles_whole(operator: Operator, compiler: str, backend: str) -> None:
    inputs = [value.requires_grad_() for value in operator.inputs(CASE)]

    def call(*leaves: Tensor) -> Tensor:
        return operator.public(*leaves, CASE.split, seq_lens=CASE.lens, backend=backend).sin().sum()

    if compiler == "inductor":  # on AVX2 its own sums are wrong in torch's deterministic mode, which poisons memory
        torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()
    _same_value_and_gradients(torch.compile(call, fullgraph=True, backend=compiler), call, inputs)


@each_operator
def test_compiles_with_any_number_of_frames(operator: Operator, native: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(operator.public, fullgraph=True, backend="aot_eager", dynamic=True)
    for t in (5, 6, 11):
        case = LONG_ENOUGH[5]._replace(lens=[t, t])
        inputs = operator.inputs(case)
        torch.testing.assert_close(compiled(*inputs, case.split), operator.public(*inputs, case.split))


def _same_value_and_gradients(one: Callable[..., Tensor], other: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    results = [one(*inputs), other(*inputs)]
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(result, inputs) for result in results]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
