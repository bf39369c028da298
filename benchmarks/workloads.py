"""What is measured: HSTL's layers on the feature maps that real silhouettes give them, and whole networks."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import flops
from benchmarks.flops import Layer
from benchmarks.gate import Answer, Bounds
from benchmarks.plain import PlainHSTL, PlainLayer, plain
from hstl_fast import HSTL, PRESETS, losses, silhouettes

STREET = Path(__file__).parent.parent / "tests" / "data" / "street"
FRAMES = 30
LENGTHS = (12, 30, 57)
"""The clips of the ragged batch."""
OPERATOR_PRESETS = ("casia-b", "oumvlp", "gait3d")
"""`grew` has the layers of `oumvlp`."""
TRAINING_BOUNDS = Bounds(1e-4, 2e-2)
"""Of a whole network in float32, where rounding moves maxima and slopes: torch's own gradients are off by 1e-3 or more.
Operators by themselves are held to much less."""

Step = Callable[[nn.Module, Sequence[Tensor]], Answer]


class Workload(NamedTuple):
    """One row of the results: every rival makes its own form of `network` and runs `step` on it and `inputs`.

    macs: dense products of one step. bytes: what it must move at least, where that is what limits it.
    """

    name: str
    group: str
    preset: str
    network: nn.Module
    inputs: Sequence[Tensor]
    step: Step
    training: bool
    bounds: Bounds
    macs: int
    bytes: int | None = None


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
        bounds=Bounds(1e-5),
        macs=layer.macs,
        bytes=layer.bytes,
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
        bounds=Bounds(1e-5, 2e-5),
        macs=flops.training_macs(layer),
        bytes=2 * layer.bytes,
    )


def embedding(preset: str, lengths: Sequence[int] = (FRAMES,)) -> Workload:
    """Embeddings of clips of these lengths, from uint8 silhouettes."""
    config = PRESETS[preset]
    frames = " + ".join(map(str, lengths))
    return Workload(
        name=f"{preset}, {frames} frames",
        group="embedding",
        preset=preset,
        network=_model(preset),
        inputs=[_clip(i, t) for i, t in enumerate(lengths)],
        step=_embed,
        training=False,
        bounds=Bounds(5e-5),
        macs=flops.macs(config, lengths),
    )


def training_step(preset: str, identities: int = 2, sequences: int = 2) -> Workload:
    """Forward, both losses and backward on `identities` x `sequences` clips."""
    config, n = PRESETS[preset], identities * sequences
    layers = flops.layers(config, FRAMES)
    clips = torch.stack([_clip(i, FRAMES) for i in range(n)])
    labels = torch.arange(identities).repeat_interleave(sequences)
    return Workload(
        name=f"{preset}, {n} x {FRAMES} frames",
        group="training step",
        preset=preset,
        network=_model(preset),
        inputs=[clips, labels],
        step=_train,
        training=True,
        bounds=TRAINING_BOUNDS,
        macs=n * (sum(map(flops.training_macs, layers)) + 3 * flops.classifier_macs(config)),
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
    """A random gradient of `y`, zero where `y` is so near to zero that rounding may turn LeakyReLU's slope."""
    gradient = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    return gradient.where((y == 0) | (y.abs() > 1e-5 * y.abs().max()), 0)


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
    """HSTL takes clips of any lengths together; another network takes them one by one."""
    if isinstance(network, HSTL):
        return Answer([network.embed(inputs)])
    with torch.no_grad():
        return Answer([torch.cat([network(clip[None])[0] for clip in inputs])])


def _train(network: nn.Module, inputs: Sequence[Tensor]) -> Answer:
    clips, labels = inputs
    embeddings, logits = network(clips)
    triplet, entropy = losses.triplet_loss(embeddings, labels), losses.cross_entropy(logits, labels)
    return Answer([triplet, entropy], torch.autograd.grad(triplet + entropy, list(network.parameters())))


@functools.lru_cache
def _model(preset: str) -> HSTL:
    torch.manual_seed(0)
    return HSTL.from_preset(preset)


@functools.lru_cache
def _walks() -> list[np.ndarray]:
    """Real people's silhouettes `[t, 64, 44]`; the second half of a walk follows its first."""
    walks = []
    for first in sorted(STREET.glob("gallery/*.npz")):
        halves = [silhouettes.read(path) for path in (first, STREET / "probe" / first.name)]
        walks.append(np.concatenate(halves)[:, :, 10:-10])
    return walks


def _clip(index: int, frames: int) -> Tensor:
    """`frames` frames `[frames, 64, 44]` of a walk; every second clip of the same walk starts where the first ends."""
    walks = _walks()
    walk = walks[index // 2 % len(walks)]
    start = index % 2 * FRAMES
    return torch.tensor(walk[(start + np.arange(frames)) % len(walk)])


@functools.lru_cache(maxsize=1)
def _preset_maps(preset: str) -> dict[str, Tensor]:
    return feature_maps(_model(preset).eval(), _clip(0, FRAMES))


def _layer_and_input(preset: str, name: str) -> tuple[nn.Module, Tensor]:
    return _model(preset).get_submodule(name), _preset_maps(preset)[name]
