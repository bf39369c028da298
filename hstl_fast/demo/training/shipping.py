"""The checkpoint of a trained demo as the package brings it along: weights, and what they were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hstl_fast
from hstl_fast.checkpoints import save_checkpoint
from hstl_fast.demo.training.running import Trained
from hstl_fast.silhouettes.walkers import CASIA_B_TAKES

KNOWS = "rendered walkers alone; no person was filmed, and results on people mean nothing"


def save_trained(trained: Trained, path: Path) -> None:
    """Write the network without the state of its training, but with a description of it.

    Args:
        trained: The results of the demo's training.
        path: The file; `Network.from_checkpoint` and `load_checkpoint` read it.

    Raises:
        OSError: The file cannot be written.
    """
    model = trained.network.model
    save_checkpoint(path, model, iteration=trained.plan.steps, training=describe(trained))


def describe(trained: Trained) -> dict[str, Any]:
    """Say what a network was trained on, and how well it does.

    Args:
        trained: The results of the demo's training.

    Returns:
        Plain values by name.
    """
    plan, hierarchy = trained.plan, trained.hierarchy
    return {
        "knows": KNOWS,
        "command": f"hstl-fast demo --train --people {plan.train + plan.test} --steps {plan.steps} --seed {plan.seed}",
        "hstl_fast": hstl_fast.__version__,
        "people": plan.train,
        "views": list(plan.views),
        "takes": list(CASIA_B_TAKES),
        "frames": plan.frames,
        "population": plan.population,
        "steps": plan.steps,
        "seed": plan.seed,
        "batch": [plan.people, plan.sequences, plan.window],
        "splits": hierarchy.splits(),
        "splits_from": f"{hierarchy.features} features of {hierarchy.strips} strips, {hierarchy.linkage} linkage, "
        f"{hierarchy.sequences} sequences of the people in training",
        "classes": sorted(set(trained.data.labels))[: plan.train],
        "test": {
            "protocol": "casia-b, Euclidean distance, rank-1 in percent, identical views excluded",
            **trained.scores.counts,
            "network": dict(trained.scores.rates),
            "gait_energy_image": dict(trained.energy.rates),
            "guessing": trained.chance,
        },
    }
