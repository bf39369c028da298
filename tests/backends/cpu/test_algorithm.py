"""How convolutions multiply: who asks for it, what cannot run, what is taken for a layer, and how far off it is."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, func, nn

import hstl_fast
from hstl_fast import functional, reference, use_algorithm
from hstl_fast.backends.cpu import algorithm
from hstl_fast.backends.cpu import arme as native_arme
from hstl_fast.drop_in.forward import FastForward
from hstl_fast.ops import _dispatch
from tests.helpers.bounds import away_from_kink
from tests.helpers.cases import CASES, OPERATORS, Case

ARME = OPERATORS[0]
X, W = torch.rand(1, 8, 3, 4, 5), torch.rand(1, 8, 8, 3, 3, 3)
# A layer that "auto" gives to Winograd.
WIDE = Case(16, 24, [5, 3], 13, [6, 6], False)


@pytest.fixture
def codes(native: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The algorithm of every native call: 0 (direct) or the frames of a Winograd tile."""
    seen: list[int] = []
    right = algorithm.resolve

    def noting(*arguments: Any) -> int:
        seen.append(right(*arguments))
        return seen[-1]

    monkeypatch.setattr(native_arme, "resolve", noting)
    return seen


def is_winograd(codes: list[int]) -> bool:
    """Whether all calls since the last question were in the Winograd domain; none may be otherwise."""
    assert codes
    kinds = {code in algorithm.TILES for code in codes}
    codes.clear()
    assert len(kinds) == 1
    return kinds.pop()


def test_argument_context_environment(codes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    functional.arme(X, W, [4])
    assert is_winograd(codes)
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "direct")
    functional.arme(X, W, [4])
    assert not is_winograd(codes)
    with use_algorithm("winograd"):
        functional.arme(X, W, [4])
        assert is_winograd(codes)
        functional.arme(X, W, [4], algorithm="direct")
        assert not is_winograd(codes)
        with use_algorithm("auto"):
            functional.arme(X[:, :, :1], W, [4])
            assert not is_winograd(codes)
    functional.arme(X, W, [4])
    assert not is_winograd(codes)
    functional.arme(X, W, [4], algorithm="winograd")
    assert is_winograd(codes)


def test_context_ends_with_an_exception_and_belongs_to_its_thread() -> None:
    seen = []
    with contextlib.suppress(KeyError), use_algorithm("direct"):
        thread = threading.Thread(target=lambda: seen.append(_dispatch.ALGORITHM.value()))
        thread.start()
        thread.join()
        raise KeyError
    assert [*seen, _dispatch.ALGORITHM.value()] == ["auto", "auto"]


def test_unknown_names(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"algorithm must be .* got 'winnograd'; did you mean 'winograd'"):
        functional.arme(X, W, [4], algorithm="winnograd")
    with pytest.raises(ValueError, match="got 'fft'"), use_algorithm("fft"):
        pass
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "xyz")
    with pytest.raises(ValueError, match="HSTL_FAST_ALGORITHM must be one of auto, winograd, direct, got 'xyz'"):
        functional.arme(X, W, [4])


def test_what_winograd_cannot_run(native: str) -> None:
    with pytest.raises(RuntimeError, match=r"algorithm 'winograd' cannot run arme: .* rounds too much for float64"):
        functional.arme(X.double(), W.double(), [4], algorithm="winograd")
    with pytest.raises(RuntimeError, match="cannot run arme: the reference backend has no Winograd convolution"):
        functional.arme(X, W, [4], algorithm="winograd", backend="reference")
    with use_algorithm("winograd"), pytest.raises(RuntimeError, match="algorithm 'winograd' cannot run arme"):
        functional.arme(X, W, [4], backend="reference")
    direct = functional.arme(X, W, [4], algorithm="direct", backend="reference")
    assert torch.equal(direct, functional.arme(X, W, [4], backend="reference"))


@pytest.mark.parametrize(
    ("case", "dtype", "winograd"),
    [
        (WIDE, torch.float32, True),
        (WIDE, torch.bfloat16, True),
        (WIDE, torch.float64, False),
        (WIDE._replace(c_in=1), torch.float32, False),
        (WIDE._replace(c_out=4), torch.float32, False),
        (WIDE._replace(lens=[1, 1]), torch.float32, False),
    ],
    ids=str,
)
def test_the_automatic_choice(case: Case, dtype: torch.dtype, winograd: bool, codes: list[int]) -> None:
    x, w = (value.to(dtype) for value in ARME.inputs(case))
    functional.arme(x, w, case.split)
    assert is_winograd(codes) == winograd


LAYERS = [*CASES[1:8], WIDE, Case(64, 32, [9, 7], 22, [10], False), Case(8, 16, [64], 44, [3], False)]


@pytest.mark.parametrize("tile", algorithm.TILES)
@pytest.mark.parametrize("case", LAYERS, ids=str)
def test_winograd_is_near_the_definition(case: Case, tile: int, native: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(algorithm, "tile_frames", lambda lens, tiles: tile)
    inputs = [value.float() for value in ARME.inputs(case)]
    options = {"seq_lens": case.lens if case.packed else None}

    def winograd(x: Tensor, w: Tensor) -> Tensor:
        return functional.arme(x, w, case.split, algorithm="winograd", **options)

    def definition(x: Tensor, w: Tensor) -> Tensor:
        return reference.arme(x, w, case.split, **options)

    exact = [value.double() for value in inputs]
    signs = definition(*exact)
    y, *gradients = _values(winograd, inputs, signs)
    expected_y, *expected_gradients = _values(definition, exact, signs)
    assert (y - expected_y).abs().max() <= 1e-5 * expected_y.abs().max()
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert (gradient - expected).norm() <= 1e-4 * expected.norm()


def _values(function: Callable[..., Tensor], inputs: list[Tensor], signs: Tensor | None = None) -> list[Tensor]:
    """The output and the gradients of a fixed direction of it, in float64; 0 where `signs`, if given, is near zero."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    y = function(*leaves)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(y.dtype)
    if signs is not None:
        direction = away_from_kink(direction, signs, 1e-4)
    return [value.detach().double() for value in (y, *torch.autograd.grad(y, leaves, direction))]


def test_packed_sequences_do_not_meet_in_the_winograd_domain(native: str) -> None:
    case = WIDE._replace(lens=[1, 9, 2, 5, 14], packed=True)
    x, w = (value.float() for value in ARME.inputs(case))
    with use_algorithm("winograd"):
        packed = functional.arme(x, w, case.split, seq_lens=case.lens)
        alone = torch.cat([functional.arme(s, w, case.split) for s in x.split(case.lens, 2)], 2)
    assert (packed - alone).abs().max() <= 1e-5 * alone.abs().max()
    changed = x.clone()
    changed[:, :, :1] += 1  # the first sequence
    again = functional.arme(changed, w, case.split, seq_lens=case.lens, algorithm="winograd")
    assert (again - packed)[:, :, 1:].abs().max() <= 1e-5 * packed.abs().max()
    assert (again - packed)[:, :, :1].abs().max() > 1e-2 * packed.abs().max()


def test_runs_repeat_bit_for_bit(native: str) -> None:
    inputs = [value.float() for value in ARME.inputs(WIDE)]
    runs = [_values(lambda x, w: functional.arme(x, w, WIDE.split, algorithm="winograd"), inputs) for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_a_not_finite_value_spreads_over_its_tiles_at_most(native: str) -> None:
    x = torch.zeros(1, 8, 12, 20, 24)
    x[0, 3, 6, 10, 12] = float("inf")
    y = functional.arme(x, torch.rand(1, 8, 8, 3, 3, 3), [20], algorithm="winograd")
    frames, rows, columns = (~y.isfinite()).any(1)[0].nonzero().unbind(1)
    assert ~y[0, :, 5:8, 9:12, 11:14].isfinite().any()
    for places, side in ((frames, 5), (rows, 4), (columns, 4)):
        assert places.max() - places.min() < 2 * side


def test_compiled_functions_keep_their_algorithm(codes: list[int]) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(lambda: functional.arme(X, W, [4]), fullgraph=True, backend="aot_eager")
    with use_algorithm("direct"):
        compiled()
    codes.clear()
    compiled()
    assert not is_winograd(codes)


def test_transforms(native: str) -> None:
    inputs = [value.float() for value in ARME.inputs(WIDE)]

    def total(x: Tensor, w: Tensor) -> Tensor:
        return functional.arme(x, w, WIDE.split, algorithm="winograd").sin().sum()

    leaves = [value.clone().requires_grad_() for value in inputs]
    expected = torch.autograd.grad(total(*leaves), leaves)
    torch.testing.assert_close(func.grad(total, (0, 1))(*inputs), expected, rtol=0, atol=0)


def test_autocast(codes: list[int]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = functional.arme(X, W, [4], algorithm="winograd")
    assert y.dtype == torch.bfloat16
    assert is_winograd(codes)
    exact = functional.arme(X.bfloat16().double(), W.double(), [4])
    assert (y.double() - exact).abs().max() <= 4e-3 * exact.abs().max()


class HoldsConv3d(nn.Module):
    """A convolution as OpenGait's models hold it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(8, 8, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


def test_accelerated_layers_take_the_algorithm_of_their_callers(
    codes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FastForward, "pays", lambda self, x: True)  # for a map as small as this, too
    model = nn.Sequential(HoldsConv3d(), nn.LeakyReLU(0.01))
    with use_algorithm("winograd"):
        assert len(hstl_fast.accelerate(model).replaced) == 1
        codes.clear()
        model(X)
    assert is_winograd(codes)
