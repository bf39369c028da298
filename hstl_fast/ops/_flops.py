"""FLOPs of the private operators, for `torch.utils.flop_counter.FlopCounterMode`.

Multiplications and additions are counted as torch counts its own: those of the dense operation, whatever is skipped.
The formulas are registered when torch's counter is imported, since importing it takes as long as it does to import
Triton.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import math
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_COUNTER = "torch.utils.flop_counter"
# Taps of a 3 x 3 x 3 convolution.
_TAPS = 27

Shape = Sequence[int]


def _convolution(grad_or_x: Shape, weights: Shape) -> int:
    """FLOPs of a convolution of all regions, forward or one of its gradients; both maps have n t h w positions."""
    n, _, t, h, w = grad_or_x
    _, c_out, c_in = weights[:3]
    return 2 * _TAPS * c_in * c_out * n * t * h * w


def _arme_forward(x: Shape, weights: Shape, *others: Any, out_shape: Any = None) -> int:
    return _convolution(x, weights)


def _arme_dgrad(grad: Shape, y: Shape | None, weights: Shape, *others: Any, out_shape: Any = None) -> int:
    return _convolution(grad, weights)


def _arme_dgrad_fused(grad: Shape, weights: Shape, *others: Any, out_shape: Any = None) -> int:
    return _convolution(grad, weights)


def _arme_wgrad(grad: Shape, y: Shape | None, x: Shape, weights: Shape, *others: Any, out_shape: Any = None) -> int:
    return _convolution(x, weights)


def _projection(positions: int, proj: Shape | None) -> int:
    return 0 if proj is None else 2 * positions * math.prod(proj)


def _astp_forward(x: Shape, proj: Shape | None, p: Shape, *others: Any, out_shape: Any = None) -> int:
    return _projection(math.prod(out_shape[1][:3]), proj)  # the frame maximum is n h w c


def _astp_inference(x: Shape, proj: Shape | None, p: Shape, *others: Any, out_shape: Any = None) -> int:
    return _projection(out_shape[0] * x[3] * x[4], proj)


def _astp_backward(
    grad: Shape, pooled: Shape, maximum: Shape, index: Shape, by_power: Shape, proj: Shape | None, *others: Any,
    out_shape: Any = None,
) -> int:  # fmt: skip
    return 2 * _projection(math.prod(maximum[:3]), proj)


def _gates(means: Shape) -> int:
    windows, regions, c = means
    return 2 * 2 * c * c * regions * windows


def _fta_forward(x: Shape, *others: Any, out_shape: Any = None) -> int:
    return _gates(out_shape[1])


def _fta_backward(grad: Shape, x: Shape, means: Shape, *others: Any, out_shape: Any = None) -> int:
    return 2 * _gates(means)


_FORMULAS = {
    "arme_forward": _arme_forward,
    "arme_dgrad": _arme_dgrad,
    "arme_dgrad_fused": _arme_dgrad_fused,
    "arme_wgrad": _arme_wgrad,
    "astp_forward": _astp_forward,
    "astp_inference": _astp_inference,
    "astp_backward": _astp_backward,
    "fta_forward": _fta_forward,
    "fta_backward": _fta_backward,
}


def _register(counter: ModuleType) -> None:
    for name, formula in _FORMULAS.items():
        operator = getattr(torch.ops.hstl_fast, name)
        if operator not in counter.flop_registry:
            counter.register_flop_formula(operator)(formula)


class _RegisteringLoader(importlib.abc.Loader):
    """Loads the counter as its own loader does, then registers the formulas."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _register(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the counter as the finders after it do, with a loader that registers the formulas."""

    _is_searching = False

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _COUNTER or self._is_searching:
            return None
        self._is_searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader)
        return spec


def register_with_counter() -> None:
    """Register the formulas with torch's counter: now if it is imported already, and whenever it is imported."""
    counter = sys.modules.get(_COUNTER)
    if counter is not None:
        _register(counter)
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
