"""The modules: initialisation, and that each hands its own parameters to its function."""

import math

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import functional
from hstl_fast.nn import ARME, ASTP, FTA, SeparateFCs, StripPool

LENS = [3, 5]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(1, 4, 8, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def support() -> Tensor:
    return torch.rand(1, 8, 6, 5, generator=torch.Generator().manual_seed(1)) > 0.3


def test_forward_is_the_function(x: Tensor, support: Tensor, backend: str) -> None:
    arme, astp, bare = ARME(4, 3, [2, 4], 0.2), ASTP(4, 7, [2, 4]), ASTP(4, None, [2, 4])
    strips, fta = StripPool(3), FTA(4, [2, 4])
    nn.init.normal_(fta.bias)
    options = {"seq_lens": LENS, "support": support}
    pairs = [
        (arme, functional.arme(x, arme.weight, [2, 4], negative_slope=0.2, **options)),
        (astp, functional.astp(x, astp.proj, astp.p, [2, 4], **options)),
        (bare, functional.astp(x, None, bare.p, [2, 4], **options)),
        (strips, functional.strip_pool(x, strips.p, 3, **options)),
        (fta, functional.fta(x, fta.weight, fta.bias, [2, 4], **options)),
    ]
    for module, expected in pairs:
        assert torch.equal(module(x, LENS, support), expected)


def test_separate_maps() -> None:
    maps = SeparateFCs(3, 4, 5)
    x = torch.randn(2, 3, 4)
    y = maps(x)
    for part in range(3):
        torch.testing.assert_close(y[:, part], x[:, part] @ maps.weight[part])
    assert maps.bfloat16()(x.bfloat16()).dtype == torch.float32
    assert maps.double()(x.double()).dtype == torch.float64


def assert_uniform(values: Tensor, bound: float) -> None:
    """Fills [-bound, bound], and not more."""
    assert values.abs().max() <= bound
    assert values.abs().max() > 0.97 * bound
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_initialisation_is_xavier_uniform() -> None:
    torch.manual_seed(0)
    for weight in ARME(8, 24, [3, 3]).weight:
        assert_uniform(weight, math.sqrt(6 / (27 * (8 + 24))))
    assert_uniform(ASTP(40, 24, [3]).proj, math.sqrt(6 / (40 + 24)))
    fta = FTA(32, [2, 2])
    for weight in fta.weight.flatten(0, 1):
        assert_uniform(weight, math.sqrt(6 / 64))
    assert fta.bias.count_nonzero() == 0
    assert_uniform(SeparateFCs(7, 16, 20).weight, math.sqrt(6 / (20 * (16 + 7))))
    assert ASTP(4, None, [1, 2]).p.tolist() == [6.5, 6.5]
    assert StripPool(4).p.tolist() == [6.5]


def test_repr_names_the_sizes() -> None:
    assert repr(ARME(4, 3, (2, 4))) == "ARME(4, 3, split=[2, 4], negative_slope=0.01)"
    assert repr(ASTP(4, 7, (2, 4))) == "ASTP(4, 7, split=[2, 4])"
    assert repr(ASTP(4, None, (6,))) == "ASTP(4, no projection, split=[6])"
    assert repr(StripPool(3)) == "StripPool(bins=3)"
    assert repr(FTA(4, (2, 4))) == "FTA(4, split=[2, 4])"
    assert repr(SeparateFCs(3, 4, 5)) == "SeparateFCs(4, 5, parts=3)"
