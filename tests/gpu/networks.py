"""Published networks with several draws of weights: embeddings, losses and gradients against float64."""

import functools
from collections.abc import Iterator, Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import nn

from benchmarks.core.correctness import Answer, Bounds, Errors, errors
from benchmarks.core.plain import frozen, plain
from benchmarks.gpu import clips, implementations, numerics
from benchmarks.gpu.numerics import Numerics, double
from benchmarks.gpu.workloads import NETWORK_GRADIENT_BOUNDS, OUTPUT_BOUNDS
from hstl_fast import HSTL, PRESETS, losses, use_backend
from tests.gpu.rule import Verdict, verdict

TASKS = ("embedding", "ragged embedding", "training step")
LENGTHS = (3, 12, 25)
FRAMES = 12
# The loss in float16 is multiplied by this, or small gradients would be lost.
SCALE = 1024.0
# Draws of weights and clips; the median of their errors counts.
SEEDS = 5


class Case(NamedTuple):
    """One task of one network."""

    preset: str
    task: str

    @property
    def name(self) -> str:
        return f"{self.preset} {self.task}"


def cases(tiny: bool) -> list[Case]:
    """All tasks of all networks; `grew` is `oumvlp` with another classifier, which has a part in training only."""
    presets = ["casia-b"] if tiny else [preset for preset in PRESETS if preset != "grew"]
    found = [Case(preset, task) for preset in presets for task in TASKS]
    return found if tiny else [*found, Case("grew", "training step")]


def keys(case: Case, device: torch.device) -> Iterator[tuple[str, Numerics, str]]:
    """Key, arithmetic and backend of each of the case's rows; only autocast trains in narrow types."""
    for mode in numerics.checked(device):
        if case.task == "training step" and mode.parameters != torch.float32:
            continue
        for backend in ("auto", *implementations.backends(device, mode.dtype)):
            yield f"{case.name} | {mode} | {backend}", mode, backend


class Seed:
    """One draw of weights with its clips, and the float64 reference."""

    def __init__(self, case: Case, seed: int, device: torch.device, tiny: bool) -> None:
        self.case, self.device = case, device
        self.training = case.task == "training step"
        self.model = clips.model(case.preset, tiny, seed).to(device)
        lengths = LENGTHS if case.task == "ragged embedding" else (3 if tiny else FRAMES,) * 4
        self.clips = [clips.clip(i + seed, t).to(device) for i, t in enumerate(lengths)]
        self.labels = torch.tensor([0, 0, 1, 1], device=device)
        with double().on(device):
            self.expected = self._answer(plain(frozen(self.model, self.training).double()), 1.0)
        self._torch: dict[Numerics, Errors] = {}

    def errors(self, mode: Numerics, backend: str) -> Errors:
        """Errors of this package: of the worst output, and of all gradients as one vector."""
        with use_backend(backend), mode.on(self.device):
            return self._distance(frozen(self.model, self.training).to(mode.parameters), mode)

    def torch_errors(self, mode: Numerics) -> Errors:
        """Errors of plain torch in the same arithmetic; autocast takes the place of narrow parameters."""
        mode = mode._replace(autocast=mode.dtype != torch.float32)
        if mode not in self._torch:
            with mode.on(self.device):
                network = plain(frozen(self.model, self.training).to(mode.parameters))
                self._torch[mode] = self._distance(network, mode)
        return self._torch[mode]

    def _distance(self, network: nn.Module, mode: Numerics) -> Errors:
        return errors(self._answer(network, SCALE if mode.dtype == torch.float16 else 1.0), self.expected)

    def _answer(self, network: nn.Module, scale: float) -> Answer:
        if self.training:
            return self._train(network, scale)
        with torch.no_grad():
            if self.case.task == "embedding":
                return Answer([network(torch.stack(self.clips))[0]])
            if isinstance(network, HSTL):
                return Answer([network.embed(self.clips)])
            return Answer([torch.cat([network(clip[None])[0] for clip in self.clips])])

    def _train(self, network: nn.Module, scale: float) -> Answer:
        embeddings, logits = network(torch.stack(self.clips))
        outputs = [losses.triplet_loss(embeddings, self.labels), losses.cross_entropy(logits, self.labels)]
        gradients = torch.autograd.grad(scale * (outputs[0] + outputs[1]), list(network.parameters()))
        joined = torch.cat([gradient.double().flatten() for gradient in gradients]) / scale
        return Answer([loss.detach() for loss in outputs], [joined])


def measure(case: Case, mode: Numerics, backend: str, device: torch.device, tiny: bool) -> Verdict:
    """Median errors of the network and of plain torch in this arithmetic, both against float64."""
    seeds = _seeds(case, device, tiny)
    torchs = medians([seed.torch_errors(mode) for seed in seeds])
    found = medians([seed.errors(mode, backend) for seed in seeds])
    gradient = None if found.gradient is None else NETWORK_GRADIENT_BOUNDS[mode.precision]
    return verdict(found, torchs, mode.precision, Bounds(OUTPUT_BOUNDS[mode.precision], gradient))


def medians(found: Sequence[Errors]) -> Errors:
    """The median of each error over the seeds."""
    gradients = [error.gradient for error in found if error.gradient is not None]
    return Errors(median(error.output for error in found), median(gradients) if gradients else None)


@functools.lru_cache(maxsize=1)
def _seeds(case: Case, device: torch.device, tiny: bool) -> list[Seed]:
    return [Seed(case, seed, device, tiny) for seed in range(1 if tiny else SEEDS)]
