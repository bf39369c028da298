"""What is measured: HSTL's layers on the feature maps that real silhouettes give them, and whole networks."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.core import flops
from benchmarks.core.correctness import Answer, Bounds
from benchmarks.core.flops import Layer
from benchmarks.core.names import PEOPLE, WALKERS
from benchmarks.core.plain import PlainHSTL, PlainLayer, frozen, plain
from benchmarks.cpu import baselines, executed
from benchmarks.cpu.baselines import NETWORKS, OPERATORS, Rival
from benchmarks.cpu.executed import Products
from hstl_fast import HSTL, PRESETS, losses, silhouettes
from hstl_fast.names import one_of
from hstl_fast.silhouettes import walkers

STREET = Path(__file__).parents[2] / "tests" / "data" / "street"
FRAMES = 30
RAGGED = (12, 30, 57)
"""Lengths of the clips in one batch."""
MANY = tuple(round(15 + 105 * (29 * i % 64) / 63) for i in range(64))
"""Lengths of a gallery's sequences: 15 to 120 frames in no order, as many in all as 144 clips of 30."""
JUDGED = 24
"""Of so many sequences of a gallery one is compared with float64."""
SOURCES = (PEOPLE, WALKERS)
OPERATOR_PRESETS = ("casia-b", "gait3d")
"""`grew` has the layers of `oumvlp`, and `oumvlp` those of `gait3d` in other regions."""
BoundsByType = Mapping[str, Bounds]
FORWARD_BOUNDS: BoundsByType = {"float32": Bounds(1e-5)}
BACKWARD_BOUNDS: BoundsByType = {"float32": Bounds(1e-5, 1e-4)}
EMBEDDING_BOUNDS: BoundsByType = {"float32": Bounds(5e-5), "bfloat16": Bounds(2e-2)}
TRAINING_BOUNDS: BoundsByType = {"float32": Bounds(5e-4, 2e-2), "bfloat16": Bounds(1e-2, 0.5)}
"""Of a whole network, where rounding moves maxima and slopes: torch's own float32 gradients are off by 1e-3 or more.
Operators by themselves are held to much less."""

Step = Callable[[nn.Module, Sequence[Tensor]], Answer]


class Scaling(NamedTuple):
    """The point of a series of workloads: "frames", "batch" or "threads", and how many."""

    axis: str
    value: int


class Workload(NamedTuple):
    """One row of the results: every rival makes its own form of `network` and runs `step` on it and `inputs`.

    bounds: the errors allowed, by the rival's dtype. products: of one step, dense and as our native code executes it.
    silhouettes: whose they are, one of `SOURCES`; None where feature maps are given. bytes: what it must move at least,
    where that is what limits it. clips, frames: sequences and all their frames. rivals: who runs. threads: None for
    torch's. memory: the arguments for `benchmarks.cpu.memory` that name this workload, None where it is not measured.
    divided: whether our time is divided among the layers. truth: what `network` should make of the inputs, in float64;
    None for the reference's step.
    """

    name: str
    group: str
    preset: str
    network: nn.Module
    inputs: Sequence[Tensor]
    step: Step
    training: bool
    bounds: BoundsByType
    products: Products
    silhouettes: str | None = None
    bytes: int | None = None
    clips: int = 1
    frames: int = FRAMES
    rivals: tuple[Rival, ...] = NETWORKS
    threads: int | None = None
    scaling: Scaling | None = None
    memory: tuple[str, ...] | None = None
    divided: bool = False
    truth: Step | None = None


def operator_layers() -> list[tuple[str, Layer]]:
    """Every layer of every preset (preset, layer) on a 30-frame clip, those of one shape once; the head left out."""
    seen: dict[tuple[object, ...], tuple[str, Layer]] = {}
    for preset in OPERATOR_PRESETS:
        for layer in flops.layers(PRESETS[preset], FRAMES):
            if layer.kind != "head":
                seen.setdefault(layer[1:], (preset, layer))
    return list(seen.values())


def operator_widths() -> list[tuple[str, Layer]]:
    """Of those, the first of each operator and pair of channel counts."""
    seen: dict[tuple[object, ...], tuple[str, Layer]] = {}
    for preset, layer in operator_layers():
        seen.setdefault(layer[1:4], (preset, layer))
    return list(seen.values())


def operator_forward(preset: str, layer: Layer) -> Workload:
    """A layer without gradients."""
    network, x = _layer_and_input(preset, layer.name)
    return Workload(
        name=str(layer),
        group=f"{layer.kind} forward",
        preset=preset,
        network=network,
        inputs=[x],
        step=forward,
        training=False,
        bounds=FORWARD_BOUNDS,
        products=executed.of_layer(layer),
        bytes=layer.bytes,
        frames=layer.frames,
        rivals=OPERATORS,
    )


def operator_training(preset: str, layer: Layer) -> Workload:
    """A layer forward and backward: the gradients of its parameters and, but for the first layer, its input."""
    network, x = _layer_and_input(preset, layer.name)
    with torch.no_grad():
        direction = _direction(plain(network)(x))
    return Workload(
        name=str(layer),
        group=f"{layer.kind} forward and backward",
        preset=preset,
        network=network,
        inputs=[x, direction],
        step=functools.partial(forward_and_backward, with_input=layer.differentiable_input),
        training=True,
        bounds=BACKWARD_BOUNDS,
        products=executed.of_training(layer),
        bytes=2 * layer.bytes,
        frames=layer.frames,
        rivals=OPERATORS,
    )


def embedding(preset: str, lengths: Sequence[int] = (FRAMES,), source: str = PEOPLE) -> Workload:
    """Embeddings of clips of these lengths, from uint8 silhouettes."""
    clips = [_clip(i, t, source) for i, t in enumerate(lengths)]
    return Workload(
        name=f"{preset}, {_listed(lengths)} frames, {source}",
        group="embedding" if len(lengths) == 1 else "throughput",
        preset=preset,
        network=_model(preset),
        inputs=clips,
        step=_embed,
        training=False,
        bounds=EMBEDDING_BOUNDS,
        products=executed.embedding(PRESETS[preset], clips),
        silhouettes=source,
        clips=len(lengths),
        frames=sum(lengths),
        truth=_true_embeddings,
    )


def gallery(preset: str, source: str) -> Workload:
    """Embeddings of many sequences of many lengths, by ours alone; beside it, as many frames in clips of 30."""
    clips = [_clip(i, FRAMES, source) for i in range(sum(MANY) // FRAMES)]
    return embedding(preset, MANY, source)._replace(
        group="variations",
        step=_embed_and_show_some,
        rivals=baselines.against_clips(clips),
        truth=lambda network, inputs: _true_embeddings(network, inputs[::JUDGED]),
    )


def two_threads(preset: str, source: str) -> Workload:
    """The embedding of one clip on two threads, by ours alone; beside it, on one."""
    workload = embedding(preset, source=source)
    return workload._replace(
        name=f"{workload.name}, threads: 2", group="variations", rivals=baselines.against_one_thread(), threads=2
    )


def training_step(preset: str, source: str = PEOPLE, identities: int = 2, sequences: int = 2) -> Workload:
    """Forward, both losses and backward on `identities` x `sequences` clips."""
    n = identities * sequences
    clips, labels = [_clip(i, FRAMES, source) for i in range(n)], torch.arange(identities)
    return Workload(
        name=f"{preset}, {n} x {FRAMES} frames, {source}",
        group="training step",
        preset=preset,
        network=_model(preset),
        inputs=[torch.stack(clips), labels.repeat_interleave(sequences)],
        step=_train,
        training=True,
        bounds=TRAINING_BOUNDS,
        products=executed.training(PRESETS[preset], clips),
        silhouettes=source,
        clips=n,
        frames=n * FRAMES,
    )


def feature_maps(model: HSTL, clip: Tensor) -> dict[str, Tensor]:
    """What every layer of `model` is given for the clip `[t, 64, 44]`: module name -> `[1, c, t, h, w]`."""
    network = PlainHSTL(model)
    maps: dict[str, Tensor] = {}
    names = {id(module): name for name, module in model.named_modules()}

    def keep(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        maps[names[id(module.layer)]] = arguments[0]

    for module in network.modules():
        if isinstance(module, PlainLayer):
            module.register_forward_pre_hook(keep)
    with torch.no_grad():
        network(clip[None])
    return maps


def _direction(y: Tensor) -> Tensor:
    """A random gradient of `y`, zero where `y` is zero or so near that rounding may turn LeakyReLU's slope."""
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return gradient.where(y.abs() > 1e-5 * y.abs().max(), 0)


def forward(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    with torch.no_grad():
        return Answer([network(*inputs)])


def forward_and_backward(network: nn.Module, inputs: Sequence[Tensor], with_input: bool = True) -> Answer:
    x, direction = inputs
    x = x.detach().requires_grad_(with_input)
    leaves = [x, *network.parameters()] if with_input else list(network.parameters())
    y = network(x)
    return Answer([y], torch.autograd.grad(y, leaves, direction))


def _embed(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    """HSTL takes clips of any lengths together; another network takes those of one length together."""
    if isinstance(network, HSTL):
        return Answer([network.embed(inputs)])
    embeddings: list[Tensor] = [torch.empty(0)] * len(inputs)
    with torch.no_grad():
        for t in dict.fromkeys(map(len, inputs)):
            places = [i for i, clip in enumerate(inputs) if len(clip) == t]
            for i, embedding in zip(places, network(torch.stack([inputs[i] for i in places]))[0], strict=True):
                embeddings[i] = embedding
    return Answer([torch.stack(embeddings)])


def _embed_and_show_some(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    return Answer([_embed(network, inputs).outputs[0][::JUDGED]])


def _train(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    clips, labels = inputs
    embeddings, logits = network(clips)
    triplet, entropy = losses.triplet_loss(embeddings, labels), losses.cross_entropy(logits, labels)
    return Answer([triplet, entropy], torch.autograd.grad(triplet + entropy, list(network.parameters())))


@functools.lru_cache
def _model(preset: str) -> HSTL:
    torch.manual_seed(0)
    return HSTL.from_preset(preset)


def _true_embeddings(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    """The reference's embeddings in float64, one clip at a time; a clip of several workloads is computed once."""
    return Answer([torch.cat([_true_embedding(network, clip) for clip in inputs])])


@functools.lru_cache(maxsize=32)
def _true_embedding(network: nn.Module, clip: Tensor) -> Tensor:
    with torch.no_grad():
        return _wide(network)(clip[None])[0]


@functools.lru_cache(maxsize=1)
def _wide(network: nn.Module) -> nn.Module:
    return plain(frozen(network, False)).double()


@functools.lru_cache
def _walks() -> list[np.ndarray]:
    """Real people's silhouettes `[t, 64, 44]`; the second half of a walk follows its first."""
    walks = []
    for first in sorted(STREET.glob("gallery/*.npz")):
        halves = [silhouettes.read(path) for path in (first, STREET / "probe" / first.name)]
        walks.append(np.concatenate(halves)[:, :, 10:-10])
    return walks


@functools.lru_cache(maxsize=512)
def _clip(index: int, frames: int, source: str) -> Tensor:
    """`frames` frames `[frames, 64, 44]` of a walk; every second clip is of the same person as the one before.

    People's walks come round again: the second clip starts where the first of 30 frames ends. Walkers walk on; the
    second clip is another recording.
    """
    if one_of(source, SOURCES, "silhouettes") == WALKERS:
        return torch.tensor(walkers.render(index // 2, take=1 + index % 2, frames=frames)[:, :, 10:-10].copy())
    walks = _walks()
    walk = walks[index // 2 % len(walks)]
    start = index % 2 * FRAMES
    return torch.tensor(walk[(start + np.arange(frames)) % len(walk)])


@functools.lru_cache(maxsize=1)
def _preset_maps(preset: str) -> dict[str, Tensor]:
    return feature_maps(_model(preset).eval(), _clip(0, FRAMES, PEOPLE))


def _layer_and_input(preset: str, name: str) -> tuple[nn.Module, Tensor]:
    return _model(preset).get_submodule(name), _preset_maps(preset)[name]


def _listed(lengths: Sequence[int]) -> str:
    """ "8 x 30", "12 + 30 + 57" or "64 of 15 to 120"."""
    if len(lengths) > 1 and len(set(lengths)) == 1:
        return f"{len(lengths)} x {lengths[0]}"
    if len(lengths) > 8:
        return f"{len(lengths)} of {min(lengths)} to {max(lengths)}"
    return " + ".join(map(str, lengths))
