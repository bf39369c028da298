"""The gradient of ARME's weights by products of warpgroups, run on the CPU against the reference in float64."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch

from tests.csrc.cuda import build, convolutions
from tests.csrc.cuda.convolutions import KINDS, Case, Kind
from tests.csrc.cuda.test_arme_wgrad import ORDERS, is_right, maps_of, run

CAPABILITY = 90
# Sizes that choose this kernel: more than 32 outputs and more than 16 channels.
CASES = {
    "one frame": Case(32, 64, (3,), (1,), 5),
    "one-row regions, two frames": Case(24, 40, (1, 1, 2), (2,), 7),
    "ragged, prime sizes": Case(19, 41, (7, 3), (4, 1, 3), 11, 2, 0.1),
    "a block's second warpgroup without channels": Case(72, 40, (5,), (3,), 7, 30, 0.2),
    "outputs of half a block": Case(64, 96, (2, 1), (2,), 5, 30, 0.3),
    "one column": Case(24, 40, (9,), (3,), 1),
    "tiles of columns that fill their box": Case(24, 40, (150,), (2,), 1),
    "runs that end with their row": Case(24, 40, (3,), (2,), 16),
    "a tile full of positions and a second one": Case(24, 40, (13,), (3,), 23, 2),
    "several chunks": Case(40, 40, (9, 4), (4, 2), 30, 3, 0.05),
    "two panels": Case(24, 40, (3, 2), (2,), 67, 30, 0.02),
    "no active site": Case(24, 40, (3, 2), (2, 1), 5, 30, 0.0),
    "more items than splits": Case(24, 40, (2, 1), (6, 5, 1), 9, 1, 0.2),
}
KINDS_16 = {name: KINDS[name] for name in ("float16", "bfloat16")}

each_kind = pytest.mark.parametrize("kind", KINDS_16.values(), ids=KINDS_16)


@pytest.fixture(params=ORDERS.values(), ids=ORDERS)
def ordered(module: ModuleType, request: pytest.FixtureRequest) -> ModuleType:
    """The module with copies and threads in some order, on a GPU of compute capability 9.0."""
    module.shim.options(capability=CAPABILITY, **request.param)
    return module


@each_kind
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_wgrad(ordered: ModuleType, case: Case, kind: Kind) -> None:
    given = convolutions.inputs_of(case, kind)
    ordered.shim.report()
    assert is_right(run(ordered, case, kind, maps_of(given)), case, given)
    assert "arme_wgrad_sm90" in ordered.shim.report()
