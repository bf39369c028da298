"""A small data set of two training people and four test people, and a network that is quick to compute."""

import json
from pathlib import Path

import numpy as np
import torch

from hstl_fast import HSTL, HSTLConfig
from hstl_fast.models import Stage
from tests.cli.helpers import walker

TYPES, VIEWS = ("nm-01", "nm-05", "bg-01", "cl-01"), ("000", "090")
TRAINING, TEST = ("001", "002", "003"), ("075", "076", "077", "078")


def write_data(root: Path) -> tuple[Path, Path]:
    """Write the sequences, in OpenGait's layout, and their partition."""
    data, partition = root / "data", root / "partition.json"
    for number, person in enumerate((*TRAINING, *TEST)):
        for t, type_ in enumerate(TYPES):
            for v, view in enumerate(VIEWS):
                folder = data / person / type_ / view
                folder.mkdir(parents=True)
                np.save(folder / f"{view}.npy", walker(number % 6, 4 + (number + v) % 3, start=5 * t + 2 * v + number))
    partition.write_text(json.dumps({"TRAIN_SET": TRAINING, "TEST_SET": TEST}), encoding="utf-8")
    return data, partition


def small_network(num_classes: int = len(TRAINING)) -> HSTL:
    torch.manual_seed(0)
    stages = (Stage((20, 12), (4,)), Stage((4, 16, 8, 4), (8,)))
    model = HSTL(HSTLConfig((4,), stages, pool=True, strips=8, num_classes=num_classes))
    torch.nn.init.uniform_(model.norm.running_var, 0.1, 2)
    return model
