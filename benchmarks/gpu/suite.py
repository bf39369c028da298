"""The list of workloads that are measured, most important first."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from benchmarks.core import flops
from benchmarks.core.flops import Layer
from benchmarks.gpu import clips
from benchmarks.gpu.workloads import Embedding, HostEmbedding, Operator, RaggedEmbedding, Training, Workload

LENGTHS = (12, 30, 57)
# Clips in the largest batch: with twice as many, casia-b's second stage has more than 2^31 numbers, which cuDNN does
# not index.
LARGEST = 256
# Clips that an operator is measured with: its maps are then larger than any cache.
OPERATOR_BATCH = 16


class Entry(NamedTuple):
    """A workload that is built in the working process.

    seconds: for all rounds of all implementations. compiled: whether torch.compile takes part. layer: the layer whose
    operator it is; None for a whole network.
    """

    name: str
    group: str
    build: Callable[[torch.device], Workload]
    seconds: float = 8.0
    compiled: bool = True
    layer: Layer | None = None

    @property
    def operator(self) -> str | None:
        """The operator as backends name it; None for a whole network."""
        return None if self.layer is None else "astp" if self.layer.kind == "strip_pool" else self.layer.kind


def entries(tiny: bool) -> list[Entry]:
    """All entries, in the published sizes or in tiny ones."""
    return [_training(tiny), *_networks(tiny), *_operators(tiny)]


def find(name: str, tiny: bool) -> Entry:
    """The entry of this name."""
    return next(entry for entry in entries(tiny) if entry.name == name)


def profiled(tiny: bool) -> list[Entry]:
    """The entries whose kernels are listed: a training step, and a large batch of embeddings."""
    return [entry for entry in entries(tiny) if entry.name in (_training(tiny).name, _batch(tiny, 64).name)]


def _training(tiny: bool, optimise: bool = False) -> Entry:
    people, frames = ((2, 2), 3) if tiny else ((8, 8), 30)
    name = f"casia-b, {people[0]} x {people[1]} clips x {frames} frames"
    return Entry(
        f"training step{' and Adam' if optimise else ''}: {name}",
        "training step",
        lambda device: Training("casia-b", people, frames, optimise, tiny, device),
        compiled=not optimise,
    )


def _batch(tiny: bool, batch: int, preset: str = "casia-b") -> Entry:
    frames = 3 if tiny else 30
    if tiny:
        batch = min(batch, 2)
    return Entry(
        f"embedding: {preset}, {batch} x {frames} frames",
        "embedding",
        lambda device: Embedding(preset, batch, frames, tiny, device),
    )


def _from_host(tiny: bool, batch: int) -> Entry:
    batch, frames = (2, 3) if tiny else (batch, 30)
    return Entry(
        f"embedding from the host: casia-b, {batch} x {frames} frames",
        "embedding",
        lambda device: HostEmbedding("casia-b", batch, frames, tiny, device),
        compiled=False,
    )


def _networks(tiny: bool) -> list[Entry]:
    batches = (64, 1) if tiny else (64, 1, 8, LARGEST)
    lengths = (3, 5) if tiny else LENGTHS
    frames = " + ".join(map(str, lengths))
    ragged = Entry(
        f"embedding: casia-b, ragged, {frames} frames",
        "embedding",
        lambda device: RaggedEmbedding("casia-b", lengths, tiny, device),
    )
    return [
        *(_batch(tiny, batch) for batch in batches),
        *(_from_host(tiny, batch) for batch in ((64,) if tiny else (64, 1))),
        _training(tiny, optimise=True),
        ragged,
        *(_batch(tiny, 64, preset) for preset in ("gait3d", "oumvlp")),
    ]


def _operators(tiny: bool) -> list[Entry]:
    """Every operator and pair of channel counts, the largest convolutions first, forward and with backward."""
    found: dict[tuple[str, int, int, bool], tuple[str, Layer]] = {}
    for preset in ("casia-b", "gait3d", "oumvlp"):
        for layer in flops.layers(clips.config(preset, tiny), 9 if tiny else 30):
            if layer.kind != "head":
                projected = layer.kind == "astp" and layer.macs > 0
                found.setdefault((layer.kind, layer.c_in, layer.c_out, projected), (preset, layer))
    largest_first = sorted(found.values(), key=lambda pair: -pair[1].macs)
    return [_operator(preset, layer, backward, tiny) for preset, layer in largest_first for backward in (False, True)]


def _operator(preset: str, layer: Layer, backward: bool, tiny: bool) -> Entry:
    batch = 1 if tiny else OPERATOR_BATCH
    direction = "forward and backward" if backward else "forward"
    return Entry(
        f"{direction}: {layer}, {batch} clips ({preset})",
        f"{layer.kind} {direction}",
        lambda device: Operator(preset, layer, batch, backward, tiny, device),
        seconds=1.5,
        compiled=False,
        layer=layer,
    )
