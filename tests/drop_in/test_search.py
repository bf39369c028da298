"""`accelerate` finds every layer once, and refuses what it cannot look into."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hstl_fast
from hstl_fast import accelerate
from tests.helpers.drop_in import each_preset, layer, network, results, stage, worst
from tests.helpers.networks import narrow_config
from tests.helpers.opengait import OpenGaitHSTL, RegionConv

pytestmark = pytest.mark.usefixtures("one_thread")  # on networks so narrow, threads only wait for each other


@each_preset
def test_every_layer_is_found(preset: str) -> None:
    levels = 3 if preset == "casia-b" else 4
    report = accelerate(network(preset))
    expected = [("arme1", "plain stage"), ("astp1", "ASTP")]
    for level in range(2, levels + 1):
        expected += [(f"arme{level}.0", "ARME"), (f"arme{level}.1", "ARME"), (f"astp{level}", "ASTP")]
        expected += [("fta", "FTA"), ("astp2_fta", "ASTP")] if level == 2 else []
    expected += [("HPP", "strip pool")]
    assert [(layer.name, layer.kind) for layer in report.replaced] == expected
    assert len(expected) >= 8
    assert report.layers == tuple(report.replaced)
    assert str(report).startswith(f"OpenGaitHSTL: {len(expected)} replaced\n")
    assert "arme2.0" in str(report)
    assert "packed along time leak into one another" in str(report)


def test_twice_is_once(model: OpenGaitHSTL, sils: Tensor) -> None:
    first = accelerate(model)
    forwards = [m.forward for m in model.modules()]
    once = results(model, sils)
    second = accelerate(model)
    assert (len(second.replaced), len(second.already_accelerated)) == (0, len(first.replaced))
    assert f"{len(first.replaced)} already accelerated" in str(second)
    assert [vars(m).get("forward") for m in model.modules() if "forward" in vars(m)] == [
        f for f in forwards if not hasattr(f, "__func__")
    ]
    assert all(torch.equal(a, b) for a, b in zip(results(model, sils), once))


def test_a_part_first_then_the_whole(model: OpenGaitHSTL, sils: Tensor) -> None:
    expected = results(model, sils)
    accelerate(model.arme3)
    report = accelerate(model)
    assert [layer.name for layer in report.already_accelerated] == ["arme3.0", "arme3.1"]
    assert len(report.replaced) == 12
    assert worst(results(model, sils), expected) < 1e-9


def test_a_module_with_two_names_is_handled_once() -> None:
    shared = RegionConv(4, 4, [3, 3])
    both = nn.ModuleDict({"first": shared, "again": nn.Sequential(shared)}).double()
    x = torch.randn(1, 4, 3, 6, 5).double()
    expected = shared(x)
    report = accelerate(both)
    assert [layer.name for layer in report.layers] == ["first"]
    torch.testing.assert_close(both["again"](x), expected)
    report.undo()
    assert torch.equal(both["again"](x), expected)


def test_pools_inside_an_astp_that_is_left_alone_are_replaced() -> None:
    module, (x, seqL) = layer("ASTP")
    module, x = module.double(), x.double()
    module.proj.conv = nn.Conv2d(6, 9, 1).double()
    expected = module(x, seqL)
    report = accelerate(module)
    assert [layer.name for layer in report.replaced] == ["hpp.0", "hpp.1", "hpp.2"]
    torch.testing.assert_close(module(x, seqL), expected)


class TestRefused:
    @pytest.mark.parametrize("module", [None, "model.pt", {"model": nn.Linear(2, 2)}, OpenGaitHSTL])
    def test_no_module(self, module: Any) -> None:
        with pytest.raises(TypeError, match=r"module must be a torch\.nn\.Module, got (NoneType|str|dict|type)"):
            accelerate(module)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_scripted(self) -> None:
        scripted = torch.jit.trace(stage(1, 2), torch.randn(1, 1, 3, 4, 4))
        with pytest.raises(TypeError, match=r"got a scripted one .*; accelerate the model that was scripted"):
            accelerate(scripted)
        parts = nn.ModuleDict({"old": scripted, "new": stage(1, 2)})
        report = accelerate(parts)
        assert [layer.name for layer in report.replaced] == ["new"]
        assert "old is scripted: not looked into" in report.notes

    @pytest.mark.parametrize("in_place", [False, True])
    def test_compiled(self, in_place: bool) -> None:
        module = stage(1, 2)
        compiled = module if in_place else torch.compile(module, backend="eager")
        if in_place:
            module.compile(backend="eager")
        with pytest.raises(TypeError, match=r"got a compiled one; accelerate first, then torch\.compile"):
            accelerate(compiled)
        report = accelerate(nn.ModuleDict({"old": compiled, "new": stage(1, 2)}))
        assert [layer.name for layer in report.replaced] == ["new"]
        assert report.notes[0].startswith("old is compiled: not looked into")
        assert "forward" not in vars(module)

    def test_ours(self) -> None:
        ours = hstl_fast.HSTL(narrow_config("casia-b", 16))
        report = accelerate(ours)
        assert report.layers == ()
        assert str(report) == (
            "HSTL: no HSTL layer found, nothing changed\nnote: an hstl_fast.HSTL is made of these layers already"
        )
        assert not any("forward" in vars(m) for m in ours.modules())

    def test_nothing_to_find(self) -> None:
        other = nn.Sequential(nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(3, 4))
        report = accelerate(other)
        assert report.layers == report.notes == ()
        assert str(report) == "Sequential: no HSTL layer found, nothing changed"
        report.undo()


def test_a_property_that_raises_is_noted(model: OpenGaitHSTL) -> None:
    class Faulty(nn.Module):
        @property
        def split_param(self) -> list[int]:
            raise OSError("the configuration is gone")

    model.Head1 = Faulty()
    report = accelerate(model)
    assert len(report.replaced) == 14
    assert "Head1 cannot be looked at (the configuration is gone)" in report.notes


def test_a_device_chosen_by_the_caller_counts_for_nothing(model: OpenGaitHSTL) -> None:
    with torch.device("meta"):
        assert not accelerate(model).left_alone


def test_inference_mode_is_no_obstacle(model: OpenGaitHSTL) -> None:
    with torch.inference_mode():
        assert not accelerate(model).left_alone
        assert not accelerate(network()).left_alone


def test_without_a_native_backend_the_report_says_that_nothing_is_gained(model: OpenGaitHSTL) -> None:
    with hstl_fast.use_backend("reference"):
        report = accelerate(model)
    gain = "on cpu in torch.float64 the replaced layers run on the reference backend, in plain torch, and gain nothing"
    assert gain in report.notes


def test_a_backend_that_cannot_run_leaves_the_layers_alone(model: OpenGaitHSTL) -> None:
    with hstl_fast.use_backend("triton"):
        report = accelerate(model)
    assert not report.replaced
    assert "hstl_fast cannot compute it (backend 'triton' cannot run arme" in report.left_alone[0].reason
