"""A report gives every layer its own forward back."""

import pytest
import torch

from hstl_fast import accelerate
from tests.helpers.drop_in import network, results, silhouettes
from tests.helpers.opengait import OpenGaitHSTL

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


class TestUndo:
    def test_is_exact(self) -> None:
        model, sils = network(), silhouettes()
        before, members = results(model, sils), [dict(vars(m)) for m in model.modules()]
        report = accelerate(model)
        assert not all(torch.equal(a, b) for a, b in zip(results(model, sils), before))
        for _ in range(2):
            report.undo()
            assert all(torch.equal(a, b) for a, b in zip(results(model, sils), before))
            assert [list(vars(m)) for m in model.modules()] == [list(names) for names in members]
        assert len(accelerate(model).replaced) == len(report.replaced)

    def test_a_second_report_undoes_all(self, model: OpenGaitHSTL) -> None:
        accelerate(model.arme2)
        accelerate(model).undo()
        assert not any("forward" in vars(m) for m in model.modules())

    def test_refuses_while_another_forward_lies_over_ours(self, model: OpenGaitHSTL) -> None:
        report = accelerate(model)
        ours = model.fta.forward
        model.fta.forward = lambda x: ours(x) * 2
        with pytest.raises(RuntimeError, match=r"got another one over it in fta; take that away first"):
            report.undo()
        assert "forward" in vars(model.arme1)
        model.fta.forward = ours
        report.undo()
        assert not any("forward" in vars(m) for m in model.modules())

    def test_takes_away_only_what_its_own_call_knew(self, model: OpenGaitHSTL) -> None:
        first = accelerate(model)
        first.undo()
        second = accelerate(model)
        first.undo()
        assert all("forward" in vars(layer.module) for layer in second.replaced)
        second.undo()
        assert not any("forward" in vars(m) for m in model.modules())
