"""Hooks, forwards and parametrizations that were attached to a module are noticed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_full_backward_pre_hook
from torch.nn.utils import parametrizations, prune

from hstl_fast._torch_private import has_global_hooks
from hstl_fast._untouched import (
    has_hooks,
    has_own_forward,
    inherits_forward,
    is_untouched,
    known_class,
    remember_forwards,
)


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


class Renamed(nn.Linear):
    """A subclass that computes as its base does."""


def unknown() -> type[nn.Module]:
    """A new class that nothing is known about."""

    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    return Unknown


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda m: m.register_forward_hook(lambda *_: None),
    "forward, with keywords": lambda m: m.register_forward_hook(lambda *_: None, with_kwargs=True),
    "forward, always": lambda m: m.register_forward_hook(lambda *_: None, always_call=True),
    "before forward": lambda m: m.register_forward_pre_hook(lambda *_: None),
    "backward": lambda m: m.register_full_backward_hook(lambda *_: None),
    "before backward": lambda m: m.register_full_backward_pre_hook(lambda *_: None),
}
REPARAMETRIZED: dict[str, Callable[[nn.Module], Any]] = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm by hooks": nn.utils.spectral_norm,
    "pruning": lambda m: prune.l1_unstructured(m, "weight", 0.5),
}


@pytest.mark.parametrize("kind", [None, nn.Linear], ids=["any class", "a class"])
class TestUntouched:
    def test_a_new_module_is(self, kind: type[nn.Module] | None) -> None:
        assert is_untouched(nn.Linear(2, 2), kind)

    @pytest.mark.parametrize("hook", HOOKS)
    def test_a_module_with_hooks_is_not_until_they_are_removed(self, hook: str, kind: type[nn.Module] | None) -> None:
        module = nn.Linear(2, 2)
        handle = HOOKS[hook](module)
        assert has_hooks(module)
        assert not is_untouched(module, kind)
        handle.remove()
        assert not has_hooks(module)
        assert is_untouched(module, kind)

    @pytest.mark.parametrize("way", REPARAMETRIZED)
    def test_a_module_with_computed_weights_is_not(self, way: str, kind: type[nn.Module] | None) -> None:
        module = nn.Linear(2, 2)
        REPARAMETRIZED[way](module)
        assert not is_untouched(module, kind)

    def test_a_module_with_a_forward_of_its_own_is_not(self, kind: type[nn.Module] | None) -> None:
        module = nn.Linear(2, 2)
        module.forward = abs
        assert has_own_forward(module)
        assert not is_untouched(module, kind)
        assert inherits_forward(module, nn.Linear)
        del module.forward
        assert not has_own_forward(module)
        assert is_untouched(module, kind)

    def test_a_module_whose_class_was_changed_is_not(
        self, kind: type[nn.Module] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        module = nn.Linear(2, 2)
        monkeypatch.setattr(nn.Linear, "forward", lambda self, x: x)
        assert not is_untouched(module, kind)
        assert not inherits_forward(module, nn.Linear)
        monkeypatch.undo()
        assert is_untouched(module, kind)

    def test_a_subclass_with_another_forward_is_not(self, kind: type[nn.Module] | None) -> None:
        assert not is_untouched(Doubled(2, 2), kind)
        assert not inherits_forward(Doubled(2, 2), nn.Linear)


def test_a_subclass_without_a_forward_counts_where_no_class_is_asked_for() -> None:
    assert is_untouched(Renamed(2, 2))
    assert inherits_forward(Renamed(2, 2), nn.Linear)
    assert not is_untouched(Renamed(2, 2), nn.Linear)
    assert known_class(Renamed(2, 2)) is nn.Linear


def test_another_class_is_not_the_one_asked_for() -> None:
    assert is_untouched(nn.Linear(2, 2), nn.Linear)
    assert not is_untouched(nn.Linear(2, 2), nn.Conv3d)


def test_modules_inside_do_not_count() -> None:
    parts = nn.Sequential(nn.Linear(2, 2))
    parts[0].register_forward_hook(lambda *_: None)
    assert is_untouched(parts, nn.Sequential)


def test_nothing_is_said_for_a_class_before_it_is_known() -> None:
    kind = unknown()
    module = kind()
    assert known_class(module) is None
    assert not inherits_forward(module, kind)
    assert not is_untouched(module)
    assert not is_untouched(module, kind)
    remember_forwards(kind)
    assert inherits_forward(module, kind)
    assert is_untouched(module)
    assert is_untouched(module, kind)


def test_a_class_is_remembered_as_it_was_first(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = unknown()
    remember_forwards(kind)
    monkeypatch.setattr(kind, "forward", lambda self, x: 2 * x)
    remember_forwards(kind)
    assert not is_untouched(kind(), kind)


def test_every_class_of_torch_is_known() -> None:
    kinds = [kind for kind in vars(nn).values() if isinstance(kind, type) and issubclass(kind, nn.Module)]
    assert len(kinds) > 100
    for kind in set(kinds) - {nn.Module}:
        assert inherits_forward(nn.Module.__new__(kind), kind), kind


@pytest.mark.parametrize("register", [register_module_forward_hook, register_module_full_backward_pre_hook])
def test_global_hooks(register: Callable[..., Any]) -> None:
    assert not has_global_hooks()
    handle = register(lambda *_: None)
    try:
        assert has_global_hooks()
        assert not has_hooks(nn.Linear(2, 2))
    finally:
        handle.remove()
    assert not has_global_hooks()


def test_the_compiler_agrees() -> None:
    module = nn.Linear(2, 2)

    def scaled(x: Tensor) -> Tensor:
        return x * 2 if is_untouched(module, nn.Linear) else x * 3

    compiled = torch.compile(scaled, backend="eager")
    torch.compiler.reset()
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
    module.register_forward_hook(lambda *_: None)
    torch.compiler.reset()
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 3.0))
