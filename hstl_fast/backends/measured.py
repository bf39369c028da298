"""The backends that were measured on GPUs: measured.json beside this file, which the automatic choice follows.

Its keys are `generation | operator | type | widths`, such as `sm_90 | arme | bfloat16 | 64-128`: the compute
capability, and the layer's input and output channels, each rounded up to a power of two from 16 to 256 (one number
where an operator has as many of both). A value has the seconds of a training step of the layer for each backend that
was measured and gave the right results, the reference among them. Without an entry nothing was measured, and the
automatic choice takes no kernels that have never run on a GPU.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

import torch

FILE = Path(__file__).with_name("measured.json")
NARROWEST, WIDEST = 16, 256


def key(generation: str, operator: str, dtype: torch.dtype, widths: tuple[int, ...]) -> str:
    """The key of a measurement.

    Args:
        generation: As :func:`generation` names it.
        operator: "arme", "astp" or "fta".
        dtype: The input's type.
        widths: The layer's input and output channels, or one number for both.

    Returns:
        The key, whose parts are separated by " | ".
    """
    rounded = (min(max(1 << (width - 1).bit_length(), NARROWEST), WIDEST) for width in widths)
    return " | ".join([generation, operator, str(dtype).removeprefix("torch."), "-".join(map(str, rounded))])


def generation(device: torch.device) -> str:
    """Name the generation of a GPU: sm_90 for compute capability 9.0, gfx942 for one of AMD's."""
    if torch.version.hip is not None:
        return str(torch.cuda.get_device_properties(device).gcnArchName).split(":", maxsplit=1)[0]
    return "sm_{}{}".format(*torch.cuda.get_device_capability(device))


def fastest_first(
    operator: str, device: torch.device, dtype: torch.dtype, widths: tuple[int, ...] = ()
) -> tuple[str, ...]:
    """List the backends that were measured for a layer.

    Args:
        operator: "arme", "astp" or "fta".
        device: A GPU.
        dtype: The input's type.
        widths: As for :func:`key`; without any, those of all layers count together.

    Returns:
        Names of backends, the fastest one first; empty if nothing was measured.
    """
    table = read()
    if not table or not torch.cuda.is_available():
        return ()
    name = key(generation(device), operator, dtype, widths)
    rows = [table[name]] if name in table else []
    if not widths:
        rows = [row for other, row in table.items() if other.startswith(name)]
    if not rows:
        return ()
    common = set.intersection(*(set(row) for row in rows))
    return tuple(sorted(common, key=lambda backend: (sum(row[backend] for row in rows), backend)))


@functools.cache
def read() -> dict[str, dict[str, float]]:
    """Read the table: seconds by backend, by key."""
    table: dict[str, dict[str, float]] = json.loads(FILE.read_text(encoding="utf-8"))
    return table
