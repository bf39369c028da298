"""The report of `accelerate`: the layers it found, what became of each and why, and the way back."""

from dataclasses import dataclass, field

import torch
from torch import nn

from hstl_fast.drop_in.costs import Expected, Situation
from hstl_fast.drop_in.forward import FastForward, has_costs
from hstl_fast.drop_in.measure import Timing

REPLACED, ALREADY, LEFT = "replaced", "already accelerated", "left alone"


@dataclass(frozen=True)
class Layer:
    """One row of the report.

    Attributes:
        name: The name in `named_modules()`; a module with several names is listed under the first.
        kind: "plain stage", "ARME", "ASTP", "FTA", "strip pool", "global-local" or "temporal stage".
        outcome: "replaced", "already accelerated" or "left alone".
        reason: Why the layer was left alone; empty otherwise.
        module: The layer itself.
        forward: The forward that the layer was given; None for a layer that was left alone.
        takes_any_layout: Whether the forward of a layer that was left alone was found to compute the same for
            channels-last maps.
        timing: The seconds that were measured, where an example was given; None otherwise.
    """

    name: str
    kind: str
    outcome: str
    reason: str = ""
    module: nn.Module = field(repr=False, kw_only=True)
    forward: FastForward | None = field(default=None, repr=False, kw_only=True)
    takes_any_layout: bool = field(default=False, repr=False, kw_only=True)
    timing: Timing | None = field(default=None, repr=False, kw_only=True)

    def expected(self, shape: tuple[int, ...] | None = None, training: bool = False) -> Expected | None:
        """Return the seconds that the layer is expected to take on a CPU, by its own forward and by ours.

        Args:
            shape: The shape of its input; None for the one that was measured, or else for a usual one.
            training: Whether a step is asked for, the forward and the backward pass.

        Returns:
            The expected seconds; None for a layer that was left alone, or of a type or device without a model of costs.
        """
        forward = self.forward
        if forward is None or not has_costs(parameter := next(self.module.parameters())):
            return None
        if shape is None:
            shape = forward.usual_shape() if self.timing is None else self.timing.shape
        narrow = parameter.dtype != torch.float32
        return forward.expected(shape, Situation(training, True, not forward.channels_last, narrow))


@dataclass(frozen=True)
class Report:
    """The layers that `accelerate` found, and what it did; `print(report)` shows a table.

    Attributes:
        model: The name of the model's class.
        layers: One row for every layer found, in the order of `named_modules()`.
        notes: Sentences on what the table does not show.
    """

    model: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def replaced(self) -> list[Layer]:
        """The layers that this call gave another forward."""
        return self._with_outcome(REPLACED)

    @property
    def already_accelerated(self) -> list[Layer]:
        """The layers that an earlier call had given another forward."""
        return self._with_outcome(ALREADY)

    @property
    def left_alone(self) -> list[Layer]:
        """The layers that look like HSTL's but keep their own forward; each has a `reason`."""
        return self._with_outcome(LEFT)

    def undo(self) -> None:
        """Give every replaced or already accelerated layer its own forward back; calling it again changes nothing.

        A copied or loaded model is undone by a report of its own: `accelerate(copied).undo()`. Forwards that a later
        call of `accelerate` has put in place stay.

        Raises:
            RuntimeError: Another forward has been put over one of ours since. Nothing is undone.
        """
        in_place = [layer for layer in self.layers if layer.forward is not None and "forward" in vars(layer.module)]
        covered = [layer.name for layer in in_place if not isinstance(vars(layer.module)["forward"], FastForward)]
        if covered:
            raise RuntimeError(
                f"undo needs hstl_fast's forward in place, got another one over it in {', '.join(covered)}; take that "
                "away first"
            )
        for layer in in_place:
            if vars(layer.module)["forward"] is layer.forward:
                del vars(layer.module)["forward"]

    def _with_outcome(self, outcome: str) -> list[Layer]:
        return [layer for layer in self.layers if layer.outcome == outcome]

    def __str__(self) -> str:
        notes = [f"note: {note}" for note in self.notes]
        return "\n".join([f"{self.model}: {self._counts()}", *self._table(), *notes])

    def _counts(self) -> str:
        numbers = {outcome: len(self._with_outcome(outcome)) for outcome in (REPLACED, ALREADY, LEFT)}
        counts = [f"{number} {outcome}" for outcome, number in numbers.items() if number]
        return ", ".join(counts) or "no HSTL layer found, nothing changed"

    def _table(self) -> list[str]:
        if not self.layers:
            return []
        rows = [("layer", "kind", "outcome", "gain", "reason")]
        rows += [
            (layer.name or "(itself)", layer.kind, layer.outcome, _gain(layer), layer.reason) for layer in self.layers
        ]
        rows = rows if any(row[3] for row in rows[1:]) else [(*row[:3], "", row[4]) for row in rows]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        return ["  ".join(cell.ljust(w) for cell, w in zip(row, [*widths, 0]) if w or cell).rstrip() for row in rows]


def _gain(layer: Layer) -> str:
    """Return how many times as fast the layer is expected to be, and was measured to be."""
    expected = [layer.expected(training=training) for training in (False, True)]
    said = [f"{name} {_times(each)}" for name, each in zip(("evaluation", "step"), expected) if each is not None]
    if layer.timing is not None:
        mode = "step" if layer.timing.training else "evaluation"
        milliseconds = f"{1e3 * layer.timing.own:.3g} to {1e3 * layer.timing.ours:.3g} ms"
        said.append(f"measured {mode} {layer.timing.gain:.1f} ({milliseconds})")
    return ", ".join(said)


def _times(expected: Expected) -> str:
    """Return a gain; a layer that does not pay keeps its own forward in that call, and gains nothing."""
    return f"{expected.gain:.1f}" if expected.pays else "1"
