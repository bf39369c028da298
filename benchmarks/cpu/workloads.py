"""The workloads: HSTL's layers on the feature maps that real silhouettes give them, and whole networks."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core import flops, silhouettes
from benchmarks.core.correctness import Answer, Bounds, output_gradient
from benchmarks.core.flops import Layer
from benchmarks.core.names import PEOPLE, WALKERS
from benchmarks.core.plain import feature_maps, frozen, plain
from benchmarks.cpu import executed, implementations
from benchmarks.cpu.executed import Products
from benchmarks.cpu.implementations import NETWORKS, OPERATORS, TRAINING, Implementation
from benchmarks.cpu.ranks import Search
from hstl_fast import HSTL, PRESETS, losses
from hstl_fast.names import one_of
from hstl_fast.silhouettes import walkers

FRAMES = 30
# Lengths of the clips in one ragged batch.
RAGGED = (12, 30, 57)
# Lengths of a gallery's sequences: 15 to 120 frames in no order, in total as many as in 144 clips of 30.
MANY = tuple(round(15 + 105 * (29 * i % 64) / 63) for i in range(64))
# One of so many sequences of a gallery is compared with float64.
SAMPLED = 24
SOURCES = (PEOPLE, WALKERS)
# So many walks of the street are used, and no more, so that results of different versions stay comparable.
WALKS = 4
# The layers of `oumvlp` and `grew` are those of `gait3d` in other regions.
OPERATOR_PRESETS = ("casia-b", "gait3d")
# People in the gallery of a search, each recorded once more as a probe.
SEARCHED = 24
BoundsByType = Mapping[str, Bounds]
FORWARD_BOUNDS: BoundsByType = {"float32": Bounds(1e-5)}
BACKWARD_BOUNDS: BoundsByType = {"float32": Bounds(1e-5, 1e-4)}
# Rounding moves the maxima and slopes of a whole network: torch's own float32 gradients are off by 1e-3 or more.
# int8 is an answer up to a quarter of the largest value. Embeddings of different people differ by less than that,
# and so a search has to find what float64 finds for half of its probes as well.
EMBEDDING_BOUNDS: BoundsByType = {"float32": Bounds(5e-5), "bfloat16": Bounds(2e-2), "int8": Bounds(0.25)}
TRAINING_BOUNDS: BoundsByType = {"float32": Bounds(5e-4, 2e-2), "bfloat16": Bounds(1e-2, 0.5)}

Step = Callable[[nn.Module, Sequence[Tensor]], Answer]


class Scaling(NamedTuple):
    """A point in a series of workloads: the axis "frames", "batch" or "threads", and the value on it."""

    axis: str
    value: int


class Workload(NamedTuple):
    """One row of the results: every implementation makes its own form of `network` and runs `step` on it and `inputs`.

    bounds: the errors allowed, by the implementation's dtype. products: those of one step, dense and as our native code
    executes it. silhouettes: one of `SOURCES`; None where feature maps are given. bytes: the least that must be moved,
    None where memory does not limit the workload. clips, frames: the number of sequences, and of all their frames.
    threads: None for torch's. memory: arguments of `benchmarks.cpu.memory` that name this workload, None where memory
    is not measured. divided: whether our time is divided among the layers. float64_reference: computes the expected
    answer; None for `step` on the plain network in float64. search: whose rank changes are counted, None for no one's.
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
    implementations: tuple[Implementation, ...] = NETWORKS
    threads: int | None = None
    scaling: Scaling | None = None
    memory: tuple[str, ...] | None = None
    divided: bool = False
    float64_reference: Step | None = None
    search: Search | None = None


def operator_layers() -> list[tuple[str, Layer]]:
    """Every layer (preset, layer) on a 30-frame clip, those of one shape once, without the head."""
    seen: dict[tuple[object, ...], tuple[str, Layer]] = {}
    for preset in OPERATOR_PRESETS:
        for layer in flops.layers(PRESETS[preset], FRAMES):
            if layer.kind != "head":
                seen.setdefault(layer[1:], (preset, layer))
    return list(seen.values())


def operator_widths() -> list[tuple[str, Layer]]:
    """The first layer (preset, layer) of each operator and pair of channel counts."""
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
        implementations=OPERATORS,
    )


def operator_training(preset: str, layer: Layer) -> Workload:
    """A layer forward and backward: the gradients of its parameters and, but for the first layer, its input."""
    network, x = _layer_and_input(preset, layer.name)
    with torch.no_grad():
        direction = output_gradient(plain(network)(x), margin=1e-5)
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
        implementations=OPERATORS,
    )


def embedding(preset: str, lengths: Sequence[int] = (FRAMES,), source: str = PEOPLE) -> Workload:
    """Embedding clips of these lengths, from uint8 silhouettes."""
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
        float64_reference=_float64_embeddings,
    )


def search() -> Search:
    """Rendered walkers, each recorded twice."""
    clips = [_clip(i, FRAMES, WALKERS) for i in range(2 * SEARCHED)]
    return Search(tuple(clips[::2]), tuple(clips[1::2]))


def gallery(preset: str, source: str) -> Workload:
    """Embedding many sequences of many lengths by our own implementation, beside it as many frames in clips of 30."""
    clips = [_clip(i, FRAMES, source) for i in range(sum(MANY) // FRAMES)]
    return embedding(preset, MANY, source)._replace(
        group="variations",
        step=_embed_and_sample,
        implementations=implementations.against_clips(clips),
        float64_reference=lambda network, inputs: _float64_embeddings(network, inputs[::SAMPLED]),
    )


def two_threads(preset: str, source: str) -> Workload:
    """Embedding one clip by our own implementation on two threads, beside it on one."""
    workload = embedding(preset, source=source)
    return workload._replace(
        name=f"{workload.name}, threads: 2",
        group="variations",
        implementations=implementations.against_one_thread(),
        threads=2,
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


def for_goals(workload: Workload) -> Workload:
    """The workload without what no goal asks for: the memory of an embedding, and training in less than float32."""
    if workload.group == "training step":
        return workload._replace(implementations=TRAINING)
    return workload._replace(memory=None, divided=False)


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


def _embed_and_sample(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    return Answer([_embed(network, inputs).outputs[0][::SAMPLED]])


def _train(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    clips, labels = inputs
    embeddings, logits = network(clips)
    triplet, entropy = losses.triplet_loss(embeddings, labels), losses.cross_entropy(logits, labels)
    return Answer([triplet, entropy], torch.autograd.grad(triplet + entropy, list(network.parameters())))


@functools.lru_cache
def _model(preset: str) -> HSTL:
    torch.manual_seed(0)
    return HSTL.from_preset(preset)


def _float64_embeddings(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    """Embeddings in float64, one clip at a time; a clip of several workloads is computed once."""
    return Answer([torch.cat([_float64_embedding(network, clip) for clip in inputs])])


@functools.lru_cache(maxsize=32)
def _float64_embedding(network: nn.Module, clip: Tensor) -> Tensor:
    with torch.no_grad():
        return _in_float64(network)(clip[None])[0]


@functools.lru_cache(maxsize=1)
def _in_float64(network: nn.Module) -> nn.Module:
    return plain(frozen(network, False)).double()


@functools.lru_cache(maxsize=512)
def _clip(index: int, frames: int, source: str) -> Tensor:
    """`frames` frames `[frames, 64, 44]` of a walk; every second clip is of the same person as the one before.

    People's walks come round again: the second clip starts where the first of 30 frames ends. Walkers walk on: the
    second clip is another recording.
    """
    if one_of(source, SOURCES, "silhouettes") == WALKERS:
        return torch.tensor(walkers.render(index // 2, take=1 + index % 2, frames=frames)[:, :, 10:-10].copy())
    return silhouettes.clip(index // 2 % WALKS, index % 2 * FRAMES, frames)


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
