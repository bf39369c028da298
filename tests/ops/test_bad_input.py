"""What a caller can get wrong is answered by the argument's name, what was expected and what was given."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hstl_fast import functional as F

X = torch.rand(2, 4, 6, 8, 5)
PACKED = torch.rand(1, 4, 6, 8, 5)
W = torch.rand(2, 3, 4, 3, 3, 3)
PROJ, P = torch.rand(7, 4), torch.full((2,), 6.5)
FW, FB = torch.rand(2, 2, 4, 4), torch.rand(2, 2, 4)
SPLIT = [5, 3]


def arme(x: Any = X, weights: Any = W, split: Any = SPLIT, **options: Any) -> Tensor:
    return F.arme(x, weights, split, **options)


def astp(x: Any = X, proj: Any = PROJ, p: Any = P, split: Any = SPLIT, **options: Any) -> Tensor:
    return F.astp(x, proj, p, split, **options)


def fta(x: Any = X, weights: Any = FW, biases: Any = FB, split: Any = SPLIT, **options: Any) -> Tensor:
    return F.fta(x, weights, biases, split, **options)


EVERY = [arme, astp, fta]
FOR_EVERY: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X[0]}, ValueError, "x must have the 5 dimensions [n, c, t, h, w], got 4: [4, 6, 8, 5]"),
    ({"x": "silhouettes"}, TypeError, "x must be a tensor [n, c, t, h, w], got str"),
    ({"x": X.int()}, TypeError, "x must be float16, bfloat16, float32 or float64, got torch.int32"),
    (
        {"x": X[:0]},
        ValueError,
        "x must have at least one sequence, channel, frame, row and column, got [0, 4, 6, 8, 5]",
    ),
    ({"split": [5, 4]}, ValueError, "split must sum to H: sum([5, 4]) = 9, H = 8"),
    ({"split": []}, ValueError, "split must be a non-empty list of positive integers, got []"),
    ({"split": [8, 0]}, ValueError, "split must be a non-empty list of positive integers, got [8, 0]"),
    ({"split": [9, -1]}, ValueError, "split must be a non-empty list of positive integers, got [9, -1]"),
    ({"split": 8}, TypeError, "split must be a list of row counts, got int"),
    (
        {"seq_lens": [3, 3]},
        ValueError,
        "x must have n = 1 when seq_lens is given (sequences packed along t), got n = 2",
    ),
    ({"x": PACKED, "seq_lens": [3, 4]}, ValueError, "seq_lens must sum to the frames: sum([3, 4]) = 7, T = 6"),
    ({"x": PACKED, "seq_lens": []}, ValueError, "seq_lens must be lengths of at least"),
    ({"x": PACKED, "seq_lens": [6, 0]}, ValueError, "seq_lens must be lengths of at least"),
    ({"x": PACKED, "seq_lens": [7, -1]}, ValueError, "seq_lens must be lengths of at least"),
    ({"x": PACKED, "seq_lens": [3.0, 3.0]}, TypeError, "seq_lens must hold integers, got [3.0, 3.0]"),
    (
        {"x": PACKED, "seq_lens": 6},
        TypeError,
        "seq_lens must be a list, a numpy array or a 1-D CPU integer",
    ),
    (
        {"x": PACKED, "seq_lens": torch.tensor([[6]])},
        TypeError,
        "seq_lens must be a 1-D integer tensor, got torch.int64 with 2 dimensions, as OpenGait's seqL has; write "
        "seq_lens=seqL[0].flatten().tolist()",
    ),
    (
        {"x": PACKED, "seq_lens": [torch.tensor([[4, 2]])]},
        TypeError,
        "seq_lens must be a list of lengths, got OpenGait's seqL, a list that holds a tensor of shape [1, 2]; write "
        "seq_lens=seqL[0].flatten().tolist()",
    ),
    (
        {"x": PACKED, "seq_lens": np.array([6.0])},
        TypeError,
        "seq_lens must be a 1-D integer array, got float64 with 1 dimensions",
    ),
    ({"x": PACKED, "seq_lens": np.array([[4, 2]])}, TypeError, "write seq_lens=seqL[0].flatten().tolist()"),
    ({"x": PACKED, "seq_lens": np.array([True])}, TypeError, "1-D integer array, got bool with 1 dimensions"),
    (
        {"x": PACKED, "seq_lens": torch.tensor([6.0])},
        TypeError,
        "seq_lens must be a 1-D integer tensor, got torch.float32",
    ),
    ({"x": PACKED, "seq_lens": torch.ones(1, dtype=int, device="meta")}, TypeError, "got a tensor on meta"),
    (
        {"support": torch.ones(2, 6, 8, 5)},
        TypeError,
        "support must be None or a bool tensor [n, t, h, w], got torch.float32",
    ),
    (
        {"support": torch.ones(2, 6, 8, 4) > 0},
        ValueError,
        "support must have the shape [2, 6, 8, 5] on cpu, got [2, 6, 8, 4]",
    ),
    ({"backend": "cuad"}, ValueError, "got 'cuad'; did you mean 'cuda'?"),
    ({"backend": "triton"}, RuntimeError, "backend 'triton' cannot run"),
    ({"x": X.double()}, TypeError, "beside x of torch.float64, got torch.float32"),
]
FOR_ONE: list[tuple[Callable[..., Tensor], dict[str, Any], type[Exception], str]] = [
    (
        arme,
        {"weights": W[:1]},
        ValueError,
        "weights must have the shape [2, c_out, 4, 3, 3, 3], got [1, 3, 4, 3, 3, 3]",
    ),
    (arme, {"weights": W[:, :, :3]}, ValueError, "weights must have the shape [2, c_out, 4, 3, 3, 3]"),
    (
        arme,
        {"weights": list(W)[:1]},
        ValueError,
        "weights must hold one tensor for each of the 2 regions of split, got 1",
    ),
    (arme, {"weights": [W[0], W[0, :2]]}, ValueError, "weights[1] must have the shape [3, 4, 3, 3, 3]"),
    (arme, {"weights": [W[0], None]}, TypeError, "weights[1] must be a tensor, got NoneType"),
    (arme, {"weights": W.to("meta")}, ValueError, "weights must be on the device of x, cpu, got meta"),
    (arme, {"weights": W.bfloat16()}, TypeError, "weights must be torch.float32 beside x of torch.float32"),
    (arme, {"negative_slope": -0.1}, ValueError, "negative_slope must be None or a number of at least 0, got -0.1"),
    (
        arme,
        {"negative_slope": float("nan")},
        ValueError,
        "negative_slope must be None or a number of at least 0, got nan",
    ),
    (astp, {"proj": PROJ[:, :3]}, ValueError, "proj must have the shape [c_out, 4], got [7, 3]"),
    (astp, {"p": P[:1]}, ValueError, "p must have the shape [2], got [1]"),
    (fta, {"x": X[:, :, :2]}, ValueError, "x must have at least 3 frames, got 2: [2, 4, 2, 8, 5]"),
    (fta, {"x": PACKED, "seq_lens": [4, 2]}, ValueError, "seq_lens must be lengths of at least 3, got [4, 2]"),
    (fta, {"weights": FW[:, :1]}, ValueError, "weights must have the shape [2, 2, 4, 4], got [2, 1, 4, 4]"),
    (fta, {"biases": FB[:1]}, ValueError, "biases must have the shape [2, 2, 4], got [1, 2, 4]"),
]


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize(("arguments", "error", "sentence"), FOR_EVERY, ids=[row[2] for row in FOR_EVERY])
def test_every_operator(
    operator: Callable[..., Tensor], arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        operator(**arguments)


@pytest.mark.parametrize(("operator", "arguments", "error", "sentence"), FOR_ONE, ids=[row[3] for row in FOR_ONE])
def test_one_operator(
    operator: Callable[..., Tensor], arguments: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=re.escape(sentence)):
        operator(**arguments)


@pytest.mark.parametrize("bins", [3, 0, -2, 2.0, True, None])
def test_strips(bins: Any) -> None:
    with pytest.raises(ValueError, match=f"bins must be a positive integer that divides H = 8, got {bins!r}"):
        F.strip_pool(X, P[:1], bins)


def test_strip_pool_takes_one_exponent() -> None:
    with pytest.raises(ValueError, match=re.escape("p must have the shape [1], got [2]")):
        F.strip_pool(X, P, 2)


def test_sequences_longer_than_the_frame_index(native: str) -> None:
    x = torch.ones(1, 1, 32768, 1, 1)
    with pytest.raises(RuntimeError, match="sequences of at most 32767 frames, got 32768"):
        F.astp(x, None, P[:1], [1], backend=native)
    assert F.astp(x, None, P[:1], [1]).item() == pytest.approx(1)  # auto falls back
    assert F.astp(x[:, :, 1:], None, P[:1], [1], backend=native).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="sequences of at most 32767 frames, got 32768"):
        torch.ops.hstl_fast.astp_forward(x, None, P[:1], None, [1], [], "cpu")


def test_integers_may_be_numpys(backend: str) -> None:
    rows, lens = [np.int64(5), np.int32(3)], [np.int64(4), np.uint8(2)]
    given = F.arme(PACKED, W, rows, seq_lens=lens, backend=backend)
    assert torch.equal(given, F.arme(PACKED, W, SPLIT, seq_lens=[4, 2], backend=backend))


@pytest.mark.parametrize("operator", EVERY)
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_lengths_may_be_an_array(operator: Callable[..., Tensor], dtype: type, backend: str) -> None:
    x = torch.rand(1, 4, 7, 8, 5)
    given = operator(x=x, split=np.array(SPLIT), seq_lens=np.array([4, 3], dtype), backend=backend)
    assert torch.equal(given, operator(x=x, split=SPLIT, seq_lens=[4, 3], backend=backend))


@pytest.mark.parametrize("operator", EVERY)
def test_second_derivatives_are_refused_clearly(operator: Callable[..., Tensor], native: str) -> None:
    x = X.clone().requires_grad_()
    y = operator(x=x, backend=native).sum()
    with pytest.raises(RuntimeError, match=r'first derivatives only .*create_graph=True.* use backend="reference"'):
        torch.autograd.grad(y, x, create_graph=True)
