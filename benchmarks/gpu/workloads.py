"""Workloads on the device: their float64 reference, and how an implementation computes them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from benchmarks.core import flops
from benchmarks.core.correctness import Answer, Bounds, output_gradient
from benchmarks.core.flops import Layer
from benchmarks.core.plain import feature_maps, frozen, plain
from benchmarks.gpu import clips
from benchmarks.gpu.implementations import Implementation
from benchmarks.gpu.numerics import double
from hstl_fast import HSTL, losses

# Clips that are embedded together in float64.
REFERENCE_CLIPS = 4

# Largest error of an output that counts as right: about ten times what rounding to such a type leaves.
OUTPUT_BOUNDS = {"float64": 1e-9, "float32": 5e-5, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2, "int8": 8e-2}
# The same for a whole network's gradients, where rounding moves maxima and slopes: plain torch on a CPU is off by 2e-5
# in float32, 0.04 in float16 and 0.07 in bfloat16.
NETWORK_GRADIENT_BOUNDS = {"float64": 1e-6, "float32": 1e-2, "tf32": 0.2, "float16": 0.2, "bfloat16": 0.4}


class Runner(NamedTuple):
    """A way to compute a workload.

    step: the computation that is timed. answer: its outputs and gradients for the correctness check.
    """

    step: Callable[[], object]
    answer: Callable[[], Answer]


class Workload(Protocol):
    """One workload.

    sequences: clips in one step. flop: dense arithmetic of one step, two for a product and a sum.
    """

    training: bool
    sequences: int
    flop: int

    def moved(self, itemsize: int) -> int | None:
        """Bytes that the passes of the best known algorithm read and write in elements of this size; None where
        arithmetic is the limit, not memory."""

    @property
    def network(self) -> nn.Module:
        """The network or layer from which implementations prepare theirs."""

    def float64_reference(self) -> Answer:
        """The answer in float64."""

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        """The computation by `module`, which the implementation has prepared from `network`."""

    def bounds(self, implementation: Implementation) -> Bounds:
        """The errors that the implementation's answer may have."""


class _Network:
    """A whole network; arithmetic is its limit."""

    def moved(self, itemsize: int) -> int | None:
        return None


class Embedding(_Network):
    """Embeddings of clips of one length, in one batch."""

    training = False

    def __init__(self, preset: str, batch: int, frames: int, tiny: bool, device: torch.device) -> None:
        self.network = clips.model(preset, tiny).to(device)
        self.batch = clips.clips(batch, frames).to(device)
        self.sequences = batch
        self.flop = 2 * flops.macs(clips.config(preset, tiny), [frames] * batch)
        self.device = device

    def float64_reference(self) -> Answer:
        distinct = self.batch[: clips.DISTINCT].split(REFERENCE_CLIPS)
        network = plain(frozen(self.network, False).double())
        with torch.no_grad(), double().on(self.device):
            embeddings = torch.cat([network(part)[0] for part in distinct])
        repeats = -(-self.sequences // len(embeddings))
        return Answer([embeddings.repeat(repeats, 1, 1)[: self.sequences]])

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        def step() -> Tensor:
            with torch.no_grad():
                embeddings: Tensor = module(self.batch)[0]
            return embeddings

        return Runner(step, lambda: Answer([step()]))

    def bounds(self, implementation: Implementation) -> Bounds:
        return Bounds(OUTPUT_BOUNDS[implementation.precision])


class HostEmbedding(Embedding):
    """Embeddings of clips in the CPU's memory: by `embed` where the network can, else from a pinned batch."""

    def __init__(self, preset: str, batch: int, frames: int, tiny: bool, device: torch.device) -> None:
        super().__init__(preset, batch, frames, tiny, device)
        self.clips = [clip.clone() for clip in self.batch.cpu()]
        self.pinned = self.batch.cpu().pin_memory() if device.type == "cuda" else self.batch

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        def step() -> Tensor:
            if isinstance(module, HSTL):
                return module.embed(self.clips, max_frames=max(2048, sum(map(len, self.clips))))
            with torch.no_grad():
                embeddings: Tensor = module(self.pinned.to(self.device, non_blocking=True))[0]
            return embeddings

        return Runner(step, lambda: Answer([step()]))


class RaggedEmbedding(_Network):
    """Embeddings of clips of different lengths: together where the network can, else one by one."""

    training = False

    def __init__(self, preset: str, lengths: Sequence[int], tiny: bool, device: torch.device) -> None:
        self.network = clips.model(preset, tiny).to(device)
        self.clips = [clip.to(device) for clip in clips.ragged(lengths)]
        self.sequences = len(lengths)
        self.flop = 2 * flops.macs(clips.config(preset, tiny), lengths)
        self.device = device

    def float64_reference(self) -> Answer:
        with double().on(self.device):
            return Answer([self._embeddings(plain(frozen(self.network, False).double()))])

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        return Runner(lambda: self._embeddings(module), lambda: Answer([self._embeddings(module)]))

    def bounds(self, implementation: Implementation) -> Bounds:
        return Bounds(OUTPUT_BOUNDS[implementation.precision])

    def _embeddings(self, network: nn.Module) -> Tensor:
        if isinstance(network, HSTL):
            return network.embed(self.clips, max_frames=max(256, sum(map(len, self.clips))))
        with torch.no_grad():
            return torch.cat([network(clip[None])[0] for clip in self.clips])


class Training(_Network):
    """A step of training: forward, both losses, backward; with `optimise`, Adam's step as well.

    float16 is trained with a GradScaler. The correctness check compares the losses and all gradients as one vector,
    because narrow types cannot hold the gradients of single small parameters. Where float64 needs more memory than
    there is, every second clip is compared, or every fourth.
    """

    training = True

    def __init__(
        self, preset: str, people: tuple[int, int], frames: int, optimise: bool, tiny: bool, device: torch.device
    ) -> None:
        identities, takes = people
        self.network = clips.model(preset, tiny).to(device)
        self.sequences = identities * takes
        self.batch = clips.clips(self.sequences, frames).to(device)
        self.labels = (torch.arange(identities) % clips.config(preset, tiny).num_classes).repeat_interleave(takes)
        self.labels = self.labels.to(device)
        self.stride = 1
        self.optimise = optimise
        config = clips.config(preset, tiny)
        macs = sum(map(flops.training_macs, flops.layers(config, frames))) + 3 * flops.classifier_macs(config)
        self.flop = 2 * self.sequences * macs
        self.device = device

    def float64_reference(self) -> Answer:
        while True:
            try:
                return self._float64_reference()
            except torch.OutOfMemoryError:
                if self.stride == 4:
                    raise
                self.stride *= 2
                torch.cuda.empty_cache()

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        narrow = implementation.numerics.dtype == torch.float16
        scaler = torch.amp.GradScaler(self.device.type, enabled=narrow)
        optimiser = torch.optim.Adam(module.parameters(), lr=1e-4, weight_decay=5e-4)

        def backward(stride: int = 1) -> list[Tensor]:
            optimiser.zero_grad(set_to_none=True)
            both = self._losses(module, stride)
            scaler.scale(both[0] + both[1]).backward()
            return both

        def step() -> object:
            both = backward()
            if self.optimise:
                scaler.step(optimiser)
                scaler.update()
            return both

        def answer() -> Answer:
            """Losses and gradients at the largest scale that leaves the gradients finite; the scaler finds it."""
            for _ in range(24):
                outputs = [loss.detach().clone() for loss in backward(self.stride)]
                gradients = _all_gradients(module) / scaler.get_scale()
                if not narrow or bool(gradients.isfinite().all()):
                    break
                scaler.update(scaler.get_scale() / 2)
            return Answer(outputs, [gradients])

        return Runner(step, answer)

    def bounds(self, implementation: Implementation) -> Bounds:
        precision = implementation.precision
        return Bounds(OUTPUT_BOUNDS[precision], NETWORK_GRADIENT_BOUNDS[precision])

    def _float64_reference(self) -> Answer:
        network = plain(frozen(self.network, True).double())
        with double().on(self.device):
            both = self._losses(network, self.stride)
            (both[0] + both[1]).backward()
        return Answer([loss.detach() for loss in both], [_all_gradients(network)])

    def _losses(self, network: nn.Module, stride: int) -> list[Tensor]:
        labels = self.labels[::stride]
        embeddings, logits = network(self.batch[::stride])
        return [losses.triplet_loss(embeddings, labels), losses.cross_entropy(logits, labels)]


class Operator:
    """One layer on the feature maps that real silhouettes give it; with `backward`, all its gradients too.

    The maps are rounded to bfloat16 first: every implementation is given exactly the same numbers.
    """

    def __init__(self, preset: str, layer: Layer, batch: int, backward: bool, tiny: bool, device: torch.device) -> None:
        model = clips.model(preset, tiny).to(device).eval()
        self.network = model.get_submodule(layer.name)
        x = feature_maps(model, clips.clip(0, layer.frames * _stretch(layer)).to(device))[layer.name]
        self.x = x.bfloat16().float().expand(batch, -1, -1, -1, -1)
        self.training = self.backward = backward
        self.with_input = layer.differentiable_input
        self.sequences = batch
        self.flop = 2 * batch * (flops.training_macs(layer) if backward else layer.macs)
        self.layer = layer
        self.device = device
        self.direction: Tensor | None = None

    def moved(self, itemsize: int) -> int | None:
        """A pool reads its map, and writes the gradient; FTA reads its map once for means, once for the output, and in
        backward, beside the output's gradient, once for each of the two again."""
        layer = self.layer
        x = self.sequences * layer.frames * layer.rows * layer.columns * layer.c_in
        if layer.kind == "arme":
            return None
        if layer.kind == "fta":
            y = x * (layer.frames // 3) // layer.frames
            return itemsize * (2 * x + y + (3 * x + 2 * y if self.backward else 0))
        return itemsize * x * (2 if self.backward else 1)

    def float64_reference(self) -> Answer:
        layer = plain(frozen(self.network, self.backward).double())
        with double().on(self.device):
            with torch.no_grad():
                y = layer(self.x[:1].double())
            self.direction = output_gradient(y, margin=0.05).expand(self.sequences, *y.shape[1:])
            return self._answer(layer, self.x.double(), self.direction.double())

    def runner(self, implementation: Implementation, module: nn.Module) -> Runner:
        assert self.direction is not None, "the float64 reference comes first"
        x, direction = implementation.arranged(self.x), self.direction
        return Runner(lambda: self._answer(module, x, direction), lambda: self._answer(module, x, direction))

    def bounds(self, implementation: Implementation) -> Bounds:
        bound = OUTPUT_BOUNDS[implementation.precision]
        return Bounds(bound, 2 * bound if self.backward else None)

    def _answer(self, module: nn.Module, x: Tensor, direction: Tensor) -> Answer:
        if not self.backward:
            with torch.no_grad():
                return Answer([module(x)])
        x = x.detach().requires_grad_(self.with_input)
        leaves = [*([x] if self.with_input else []), *module.parameters()]
        y = module(x)
        return Answer([y.detach()], torch.autograd.grad(y, leaves, direction.to(y.dtype)))


def _stretch(layer: Layer) -> int:
    """Layers behind FTA see a third of the frames."""
    behind = layer.name not in ("fta", "pools.0", "pools.1") and not layer.name.startswith(("stem", "stages.0"))
    return 3 if behind else 1


def _all_gradients(network: nn.Module) -> Tensor:
    """Every parameter's gradient in one vector; zeros where there is none."""
    parameters = [*network.parameters()]
    return torch.cat(
        [(torch.zeros_like(p) if p.grad is None else p.grad).detach().double().flatten() for p in parameters]
    )
