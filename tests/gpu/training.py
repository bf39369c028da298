"""Many training steps in float16, whose losses must stay finite and of which the scaler may skip few."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.core.plain import frozen
from benchmarks.gpu import clips, implementations
from benchmarks.gpu.numerics import Numerics
from hstl_fast import losses, use_backend

MODE = Numerics(torch.float16, autocast=True)
STEPS, MOST_SKIPPED = 1000, 20
TINY_STEPS = 25
PEOPLE, FRAMES = (4, 2), 15


class Case(NamedTuple):
    """Steps on silhouettes of people, or on nothing but background."""

    silhouettes: str

    @property
    def name(self) -> str:
        return f"many steps on {self.silhouettes}"


class Steps(NamedTuple):
    """The losses of all steps, and how many steps the scaler skipped."""

    losses: list[float]
    skipped: int


CASES = (Case("people"), Case("background"))


def keys(case: Case, device: torch.device) -> Iterator[tuple[str, str]]:
    """Key and backend of each of the case's tests: the backends with kernels, and "auto"."""
    for backend in ("auto", *implementations.backends(device, MODE.dtype)):
        if backend != "reference":
            yield f"{case.name} | {MODE} | {backend}", backend


def measure(case: Case, backend: str, device: torch.device, tiny: bool) -> Steps:
    """Forward, both losses, backward, GradScaler and Adam, again and again on one batch."""
    steps = TINY_STEPS if tiny else STEPS
    network = frozen(clips.model("casia-b", tiny).to(device), training=True)
    identities, takes = PEOPLE
    batch = clips.clips(identities * takes, 3 if tiny else FRAMES).to(device)
    if case.silhouettes == "background":
        batch = torch.zeros_like(batch)
    labels = torch.arange(identities, device=device).repeat_interleave(takes)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4, weight_decay=5e-4)
    scaler = torch.amp.GradScaler(device.type)
    found: list[Tensor] = []
    skipped = 0
    with use_backend(backend):
        for _ in range(steps):
            optimiser.zero_grad(set_to_none=True)
            with MODE.on(device):
                embeddings, logits = network(batch)
                loss = losses.triplet_loss(embeddings, labels) + losses.cross_entropy(logits, labels)
            scaler.scale(loss).backward()
            scaler.step(optimiser)
            before = scaler.get_scale()
            scaler.update()
            skipped += scaler.get_scale() < before
            found.append(loss.detach())
    return Steps(torch.stack(found).tolist(), skipped)


def fault(found: Steps) -> str | None:
    """The fault of the steps, a loss that is not finite or too many that were skipped, or None."""
    count = len(found.losses)
    wrong = next((i for i, loss in enumerate(found.losses) if not abs(loss) < float("inf")), None)
    if wrong is not None:
        return f"the loss of step {wrong} of {count} is {found.losses[wrong]}"
    if found.skipped > MOST_SKIPPED:
        return f"{found.skipped} of {count} steps were skipped, {MOST_SKIPPED} may be"
    return None
