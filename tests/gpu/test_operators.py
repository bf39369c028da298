"""Every operator on every backend of a device against float64: forward, all gradients, every arithmetic."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu.numerics import Numerics
from hstl_fast import functional
from tests.conftest import chosen_device
from tests.gpu import operators
from tests.gpu.operators import Case
from tests.gpu.rule import require

CPU = torch.device("cpu")
FLOAT32 = Numerics(torch.float32)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        device = chosen_device(metafunc.config)
        rows = [
            (key, case, mode, backend)
            for case in operators.cases(tiny=device.type == "cpu")
            for key, mode, backend in operators.keys(case, device)
        ]
        metafunc.parametrize(("case", "mode", "backend"), [row[1:] for row in rows], ids=[row[0] for row in rows])


def test_operator(
    case: Case, mode: Numerics, backend: str, device: torch.device, record_property: Callable[[str, Any], None]
) -> None:
    require(operators.measure(case, mode, backend, device), record_property)


def _case(operator: str, lengths: tuple[int, ...] = (), support: bool = False) -> Case:
    wanted = (operator, lengths, support)
    return next(c for c in operators.cases(tiny=True) if (c.operator, c.lengths, c.support) == wanted)


@pytest.mark.parametrize("spoilt", ["output", "gradient"])
def test_a_wrong_operator_fails(monkeypatch: pytest.MonkeyPatch, spoilt: str) -> None:
    class Off(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, y: Tensor) -> Tensor:
            return y * (1.01 if spoilt == "output" else 1)

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * (1.01 if spoilt == "gradient" else 1)

    right = functional.fta
    monkeypatch.setattr(functional, "fta", lambda *args, **options: Off.apply(right(*args, **options)))
    case = _case("fta", operators.ODD_LENGTHS, support=True)
    backends = operators.backends(case, CPU, torch.float32)
    assert backends
    recorded: dict[str, Any] = {}
    for backend in backends:
        found = operators.measure(case, FLOAT32, backend, CPU)
        with pytest.raises(AssertionError, match=rf"{spoilt} is off by 1\.0e-02"):
            require(found, recorded.__setitem__)
        assert recorded["errors"][spoilt] == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize("operator", operators.NAMES)
def test_inputs_have_no_ties_and_are_exact_in_every_type(operator: str) -> None:
    given = operators.operands(_case(operator, operators.ODD_LENGTHS), CPU)
    ordered = given.x.sort(2).values
    assert (ordered[:, :, 1:] != ordered[:, :, :-1]).all()
    assert given.x.amax(2).unique().numel() > 5
    for tensor in (given.x, *given.parameters.values()):
        if tensor is not None:
            assert torch.equal(tensor, tensor.bfloat16().double())
            assert torch.equal(tensor, tensor.half().double())


def test_every_width_of_the_published_networks_is_tested() -> None:
    published = operators.cases(tiny=False)
    widths = {(c.size.c_in, c.size.c_out) for c in published if c.operator == "arme" and c.size.rows >= 32}
    assert widths == {(1, 32), (32, 32), (32, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)}
    assert {case.operator for case in published} == set(operators.NAMES)
    keys = [key for case in published for key, _, _ in operators.keys(case, torch.device("cuda"))]
    assert len(keys) == len(set(keys))
