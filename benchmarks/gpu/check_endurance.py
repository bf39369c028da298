"""Many steps of training in float16: do losses stay finite, and how many steps does the scaler skip?"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.core.plain import frozen
from benchmarks.gpu import baselines, clips
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.supervise import Row
from hstl_fast import losses, use_backend

MODE = Numerics(torch.float16, autocast=True)
STEPS, MOST_SKIPPED = 1000, 20
TINY_STEPS = 25
PEOPLE, FRAMES = (4, 2), 15


class Case(NamedTuple):
    """The silhouettes of every step."""

    silhouettes: str

    @property
    def name(self) -> str:
        return f"{STEPS} steps on {self.silhouettes}"


CASES = (Case("people"), Case("background"))


def keys(case: Case, device: torch.device) -> Iterator[tuple[str, str]]:
    """Key and backend of each row: those with kernels, and what "auto" picks."""
    for backend in ("auto", *baselines.backends(device, MODE.dtype)):
        if backend != "reference":
            yield f"{case.name} | {MODE} | {backend}", backend


def measure(case: Case, backend: str, device: torch.device, tiny: bool) -> Row:
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
    return verdict(torch.stack(found).tolist(), skipped, steps)


def verdict(found: list[float], skipped: int, steps: int) -> Row:
    """Whether every loss is finite and few steps were skipped."""
    wrong = next((i for i, loss in enumerate(found) if not abs(loss) < float("inf")), None)
    row: Row = {"steps": steps, "skipped": skipped, "first_loss": found[0], "last_loss": found[-1]}
    if wrong is not None:
        return {**row, "status": "fail", "reason": f"the loss of step {wrong} of {steps} is {found[wrong]}"}
    if skipped > MOST_SKIPPED:
        return {**row, "status": "fail", "reason": f"{skipped} of {steps} steps were skipped, {MOST_SKIPPED} may be"}
    return {**row, "status": "pass"}
