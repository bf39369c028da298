"""Faults that are looked for in every step: values that are not finite, a triplet loss that sits at its margin."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hstl_fast.training.module import TrainingModule

# A triplet loss so near to its margin, in so many steps one after another, means that all embeddings are alike.
_NEAR, _STEPS_NEAR = 0.01, 100
# The scaler of float16 begins high and halves itself; after so many steps without one that was made, it will not stop.
MOST_SKIPPED = 30


class Watch:
    """Counters over steps; they are a part of a checkpoint.

    Args:
        margin: The margin of the triplet loss.
    """

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._near, self._told, self._skipped = 0, False, 0

    def state(self) -> dict[str, Any]:
        """Describe the counters by plain values.

        Returns:
            The counters by name; `restore` reads them.
        """
        return {"near": self._near, "told": self._told, "skipped": self._skipped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Set the counters.

        Args:
            state: What `state` returned.
        """
        self._near, self._told, self._skipped = state["near"], state["told"], state["skipped"]

    def collapse(self, triplet: float | None) -> str | None:
        """Count steps whose triplet loss sits at the margin.

        Args:
            triplet: The loss of a step; None if it takes no part.

        Returns:
            A sentence when there are many of them one after another, once; else None.
        """
        is_near = triplet is not None and self._margin > 0 and abs(triplet - self._margin) <= _NEAR * self._margin
        self._near = self._near + 1 if is_near else 0
        if self._told or self._near < _STEPS_NEAR:
            return None
        self._told = True
        return (
            f"the triplet loss has been at its margin, {self._margin:g}, for {_STEPS_NEAR} steps: the embeddings of "
            "all sequences may have become alike; try a lower optimizer.lr, a longer schedule.warmup, more batch.people"
        )

    def fault(self, losses: Mapping[str, float], norm: float, has_scaler: bool) -> str | None:
        """Look for values that are not finite.

        Args:
            losses: The losses of a step by name.
            norm: The norm of its gradient.
            has_scaler: Whether a scaler skips a step whose gradient is not finite, and tries again with a lower scale.

        Returns:
            What is wrong, in words, or None.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                return f"the {name.replace('_', ' ')} is {value}" if name == "loss" else f"the loss {name} is {value}"
        if math.isfinite(norm):
            self._skipped = 0
            return None
        self._skipped += 1
        if has_scaler and self._skipped < MOST_SKIPPED:
            return None
        return f"the norm of the gradient is {norm}" + (f", {self._skipped} times" if has_scaler else "")


def first_fault(module: TrainingModule, compute: Callable[[], None]) -> str:
    """Compute a step again, and find the first layer whose output or gradient is not finite.

    Args:
        module: The network and its losses.
        compute: Forward and backward of the step.

    Returns:
        The layer, in words.
    """
    outputs: list[str] = []
    gradients: list[str] = []
    layers = [(name, layer) for name, layer in module.model.named_modules() if _is_layer(layer)]
    handles = [layer.register_forward_hook(partial(_look, name, outputs, gradients)) for name, layer in layers]
    module.zero_grad(set_to_none=True)
    try:
        with torch.compiler.set_stance("force_eager"):
            compute()
    finally:
        for handle in handles:
            handle.remove()
    if outputs:
        return f"the first layer whose output is not finite is {outputs[0]}"
    if gradients:
        return f"all outputs are finite; the first gradient that is not is that of the output of {gradients[0]}"
    for name, parameter in module.model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradients of all outputs are finite; that of the parameter {name} is not"
    return "computed again layer by layer, all outputs and gradients are finite"


def gradient_norm(parameters: list[nn.Parameter]) -> Tensor:
    """Compute the norm of the gradient.

    Args:
        parameters: The parameters; those without gradients are left out.

    Returns:
        A scalar, not finite if an element of a gradient is not.
    """
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def fault_of_weights(model: nn.Module) -> str | None:
    """Look for weights and statistics that are not finite: a training's loss does not depend on running statistics.

    Args:
        model: The network.

    Returns:
        The first tensor that is not finite, in words, or None.
    """
    for name, value in model.state_dict().items():
        if not value.isfinite().all():
            return f"{name} holds values that are not finite"
    return None


def _is_layer(layer: nn.Module) -> bool:
    return not any(True for _ in layer.children()) and any(True for _ in layer.parameters())


def _look(name: str, outputs: list[str], gradients: list[str], layer: nn.Module, _: Any, output: Tensor) -> None:
    described = f"{name} ({type(layer).__name__})"
    if not output.isfinite().all():
        outputs.append(described)
    if output.requires_grad:
        output.register_hook(partial(_look_at_gradient, described, gradients))


def _look_at_gradient(described: str, gradients: list[str], gradient: Tensor) -> None:
    if not gradient.isfinite().all():
        gradients.append(described)
