"""Where the operator would not be faster, a call is left to the layer's own forward."""

import copy
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from hstl_fast import accelerate, functional
from hstl_fast.drop_in import search
from hstl_fast.drop_in.costs import Convolution, Expected, Situation
from hstl_fast.drop_in.forward import FastForward
from hstl_fast.drop_in.kept import _kept, one_region
from hstl_fast.drop_in.measure import Timing
from tests.conftest import skip_without_binary
from tests.helpers.drop_in import layer, stage
from tests.helpers.gaitgl import GlobalLocal
from tests.helpers.opengait import BareConv3d, PowerPool

pytestmark = pytest.mark.usefixtures("one_thread", "as_decided")

EVALUATION, STEP = Situation(), Situation(training=True)
SMALL, MIDDLE, LARGE = (3, 4, 3), (10, 16, 11), (10, 64, 44)

# Measured: torch 0.09 to 0.18 ms, ours 0.11 to 0.13 ms; 2.2 and 4.9; 5.2 and 7.1; 0.23 and 0.44; then ours is faster.
CASES = [
    (SMALL, 16, 16, EVALUATION, False),
    (SMALL, 64, 64, STEP, False),
    ((3, 8, 6), 128, 128, STEP, False),
    ((3, 8, 6), 4, 4, STEP, False),
    (SMALL, 1, 32, EVALUATION, False),
    (MIDDLE, 32, 32, EVALUATION, True),
    (MIDDLE, 128, 128, STEP, True),
    (LARGE, 1, 32, EVALUATION, True),
    (LARGE, 64, 64, EVALUATION, True),
    (LARGE, 64, 64, STEP, True),
]


@pytest.mark.parametrize(("sizes", "c_in", "c_out", "situation", "pays"), CASES)
def test_convolutions(sizes: tuple[int, int, int], c_in: int, c_out: int, situation: Situation, pays: bool) -> None:
    convolution = Convolution(1, c_in, c_out, *sizes)
    assert Expected(convolution.by_torch(situation), convolution.by_us(situation)).pays == pays


def test_strips_of_few_rows_leave_tiles_empty() -> None:
    """Measured for these strips in bfloat16, beside the whole map: torch 0.78 ms, ours 0.90."""
    strips = Convolution(8, 48, 32, 10, 2, 6)
    assert strips.tiled_products == 8 * 10 * 4 * 8 * strips.weights
    filled = strips._replace(rows=4, columns=8)
    assert filled.tiled_products == filled.products
    shape = (2, 48, 10, 8, 6)
    expected = _forward(GlobalLocal(48, 32, 2)).expected(shape, Situation(narrow=True))
    assert expected is not None
    assert not expected.pays


def _forward(module: nn.Module, **options: Any) -> FastForward:
    (row,) = accelerate(module, **options).replaced
    assert row.forward is not None
    return row.forward


def test_copies_between_layouts_count() -> None:
    forward = _forward(layer("ASTP without projection")[0])
    shape = (1, 6, 30, 64, 44)
    last, first = (forward.expected(shape, Situation(channels_last=each)) for each in (True, False))
    assert last is not None
    assert first is not None
    assert first.copies > last.copies == 0
    assert first.ours == pytest.approx(last.ours + first.copies)
    assert last.pays
    large = (8, 64, 30, 64, 44)
    assert not _forward(PowerPool([4])).expected((1, 64, 16, 11), EVALUATION).pays  # type: ignore[union-attr]
    copied = forward.expected(large, Situation(channels_last=False))
    assert copied is not None
    assert copied.copies > 0.5 * copied.ours


def test_contiguous_outputs_count() -> None:
    shape = (1, 32, 10, 64, 44)
    last = _forward(GlobalLocal(32, 32, 1))
    contiguous = _forward(GlobalLocal(32, 32, 1), memory_format=torch.contiguous_format)
    x = torch.empty(shape).contiguous(memory_format=torch.channels_last_3d)
    costs = [each.expected(shape, each.situation(x)) for each in (last, contiguous)]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[0].copies == 0 < costs[1].copies


class TestCalls:
    def test_small_ones_are_left_to_the_own_forward(self) -> None:
        skip_without_binary("cpu")
        for name in ("plain stage", "ARME", "global-local", "strip pool"):
            module, (x,) = layer(name)
            expected = module(x)
            accelerate(module)
            assert torch.equal(module(x), expected), name

    def test_large_ones_are_ours(self) -> None:
        skip_without_binary("cpu")
        module = GlobalLocal(32, 32, 1)
        x = torch.randn(1, 32, 5, 32, 22)
        accelerate(module)
        with torch.no_grad(), mock.patch.object(functional, "arme", wraps=functional.arme) as arme:
            small, large = module(x[:, :, :1, :2, :2]), module(x)
        assert arme.call_count == 2
        assert torch.equal(small, GlobalLocal.forward(module, x[:, :, :1, :2, :2]))
        torch.testing.assert_close(large, GlobalLocal.forward(module, x), rtol=1e-4, atol=1e-4)

    def test_the_number_of_threads_decides_nothing(self) -> None:
        module = GlobalLocal(16, 16, 1)
        forward, x = _forward(module), torch.randn(1, 16, 3, 8, 6)
        decisions = set()
        for threads in (1, 2):
            torch.set_num_threads(threads)
            decisions.add((forward.pays(x), forward.expected(tuple(x.shape), forward.situation(x))))
        assert len(decisions) == 1

    def test_threads_may_forget_decisions(self) -> None:
        skip_without_binary("cpu")
        forward = _forward(GlobalLocal(4, 4, 1))

        class Forgotten(dict[Any, bool]):
            def __setitem__(self, key: Any, value: bool) -> None:
                pass

        forward.decisions = Forgotten()
        assert forward.pays(torch.rand(1, 4, 3, 4, 3)) is False

    def test_what_has_no_model_is_ours(self) -> None:
        module, (x,) = layer("ARME")
        forward = _forward(module)
        assert forward.pays(x.double())
        assert forward.pays(x.to("meta"))

    def test_transforms_take_the_operator(self) -> None:
        module, (x,) = layer("global-local")
        forward, maps = _forward(module), torch.stack([x, 2 * x])
        with mock.patch.object(forward, "compute", wraps=forward.compute) as compute, torch.no_grad():
            got = torch.func.vmap(module)(maps)
        assert compute.call_count == 1
        torch.testing.assert_close(got, torch.stack([GlobalLocal.forward(module, each) for each in maps]))

    def test_maps_of_the_other_layout_reach_the_own_forward_as_they_are(self) -> None:
        skip_without_binary("cpu")
        module, (x,) = layer("global-local")
        accelerate(module)
        y = module(x.contiguous(memory_format=torch.channels_last_3d))
        assert y.is_contiguous(memory_format=torch.channels_last_3d)


class TestReport:
    def test_says_what_is_expected(self) -> None:
        skip_without_binary("cpu")
        over_time = nn.Sequential(BareConv3d(3, 4, kernel_size=(3, 1, 1), stride=(3, 1, 1), padding=0), nn.LeakyReLU())
        report = accelerate(nn.ModuleList([GlobalLocal(32, 64, 1), PowerPool([4]), over_time]))
        both, pool = report.replaced
        expected = both.expected()
        assert expected is not None
        assert expected.gain > 3
        assert f"replaced    evaluation {expected.gain:.1f}, step" in str(report)
        assert pool.expected((1, 8, 16, 11)).pays is False  # type: ignore[union-attr]
        assert report.left_alone[0].expected() is None
        assert any(note.startswith("gains are how many times as fast") for note in report.notes)

    def test_says_nothing_of_types_without_a_model(self) -> None:
        report = accelerate(nn.ModuleList([stage(1, 2), PowerPool([4])]).double())
        assert all(row.expected() is None for row in report.layers)
        assert "gain" not in str(report)

    @pytest.mark.parametrize("training", [False, True])
    def test_says_what_was_measured(self, training: bool) -> None:
        model = nn.Sequential(stage(1, 2), nn.BatchNorm3d(2), nn.Dropout()).train(training)
        assert isinstance(model[1], nn.BatchNorm3d)
        x = torch.rand(2, 1, 3, 4, 5)
        before, random = copy.deepcopy(model[1].state_dict()), torch.get_rng_state()
        report = accelerate(model, example=(x,))
        assert all(torch.equal(value, before[name]) for name, value in model[1].state_dict().items())
        assert torch.equal(torch.get_rng_state(), random)
        assert not any(m._forward_pre_hooks for m in model.modules())
        (row,) = report.replaced
        assert row.timing is not None
        assert row.timing[:2] == (tuple(x.shape), training)
        assert not row.timing.by_operator
        assert f"measured {'step' if training else 'evaluation'} {row.timing.gain:.1f} (" in str(report)
        assert all(p.grad is None for p in model.parameters())

    def test_leaves_alone_what_was_measured_to_be_slower(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = stage(1, 4).eval()
        x = torch.rand(1, 1, 3, 8, 6)
        shape = tuple(x.shape)
        for ours, by_operator, left in ((0.002, True, True), (0.002, False, False), (0.001, True, False)):
            found = Timing(shape, False, 0.001, ours, by_operator)
            monkeypatch.setattr(search, "timing", lambda *_, found=found: found)
            report = accelerate(module, example=(x,))
            assert len(report.left_alone) == left
            assert ("forward" in vars(module)) == (not left)
            if left:
                assert report.left_alone[0].reason == "the forward pass took 2 ms in ours, 1 ms in its own way"
            report.undo()

    def test_maps_are_contiguous_for_what_is_slower_and_needs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        skip_without_binary("cpu")
        x = torch.rand(1, 32, 5, 32, 22)
        for second, memory_format in ((Flat, torch.contiguous_format), (GlobalLocal, torch.channels_last_3d)):
            model = nn.Sequential(GlobalLocal(32, 32, 1), second(32, 4, 1)).eval()
            slower = model[1]
            monkeypatch.setattr(
                search, "timing", lambda f, _, m=slower: Timing(tuple(x.shape), False, 1.0, 1.0 + (f.module is m), True)
            )
            expected = model(x)
            assert [row.module for row in accelerate(model, example=(x,)).left_alone] == [slower]
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
            assert model[0](x).is_contiguous(memory_format=memory_format)

    def test_changes_nothing_where_the_example_fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = stage(1, 4)
        with pytest.raises(RuntimeError):
            accelerate(model, example=(torch.rand(2, 3),))
        assert not any("forward" in vars(m) for m in model.modules())
        monkeypatch.setattr(search, "timing", mock.Mock(side_effect=RuntimeError("no memory")))
        with pytest.raises(RuntimeError, match="no memory"):
            accelerate(model, example=(torch.rand(1, 1, 3, 8, 6),))
        assert not any("forward" in vars(m) for m in model.modules())

    def test_maps_are_contiguous_for_code_that_needs_it(self) -> None:
        skip_without_binary("cpu")
        model, x = Viewing().eval(), torch.rand(2, 32, 5, 32, 22)
        with torch.no_grad():
            expected = model(x)
            report = accelerate(model, example=(x,))
            assert len(report.replaced) == 1
            torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
            assert any("leave the layers replaced here contiguous" in note for note in report.notes)
            report.undo()
            accelerate(model)
            with pytest.raises(RuntimeError, match="view"):
                model(x)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_times_layers_that_are_frozen(self, channels: int) -> None:
        module = stage(channels, 4).requires_grad_(False)
        report = accelerate(module, example=(torch.rand(1, channels, 3, 8, 6),))
        assert all(row.timing is not None for row in report.layers)

    def test_times_layers_that_change_their_input_or_buffers(self) -> None:
        model, x = Counting(Halving(3, 4, 1)), torch.rand(1, 3, 3, 8, 6)
        buffer = model.count
        report = accelerate(model, example=(x,))
        assert report.layers[0].timing is not None
        assert model.count is buffer
        assert buffer == 0


class Viewing(nn.Module):
    """A model whose own code flattens the maps of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = GlobalLocal(32, 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y.view(len(y), -1)


class Flat(GlobalLocal):
    """A layer whose own code flattens its input."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.view(-1).view(x.shape))


class Halving(GlobalLocal):
    """A layer that halves its input in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(0.5) * 2)


class Counting(nn.Sequential):
    """A model that counts its calls in a buffer that is another tensor after each."""

    count: Tensor

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        y: Tensor = super().forward(x * 1)
        return y


class TestKeptWeights:
    def test_are_one_object_until_the_weights_are_others(self) -> None:
        weight = nn.Parameter(torch.randn(2, 3, 3, 3, 3))
        assert one_region(weight).requires_grad
        with torch.no_grad():
            first = one_region(weight)
            assert one_region(weight) is first
            assert torch.equal(first[0], weight)
            weight.data = torch.zeros_like(weight)
            assert torch.equal(one_region(weight)[0], weight)
        key = id(weight)
        assert key in _kept
        del weight, first
        assert key not in _kept

    def test_show_every_change(self) -> None:
        module, x = GlobalLocal(32, 32, 1), torch.randn(1, 32, 5, 32, 22)
        accelerate(module)
        with torch.no_grad():
            for _ in range(2):
                module.local_conv3d.conv3d.weight.data.mul_(0.5)
                torch.testing.assert_close(module(x), GlobalLocal.forward(module, x), rtol=1e-4, atol=1e-4)
            module.global_conv3d.conv3d.weight.data = torch.randn(32, 32, 3, 3, 3) / 30
            torch.testing.assert_close(module(x), GlobalLocal.forward(module, x), rtol=1e-4, atol=1e-4)
