"""Networks and silhouettes that the tests share."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from hstl_fast import HSTL, PRESETS, HSTLConfig
from hstl_fast.models import Stage
from tests.golden import recipe


def narrow_config(preset: str, divisor: int = 4, num_classes: int = 6) -> HSTLConfig:
    """The preset's network with fewer channels: the same layers, regions, parts and lengths, quick to run."""
    config = PRESETS[preset]
    stages = tuple(Stage(s.split, tuple(c // divisor for c in s.channels)) for s in config.stages)
    return replace(config, stem=tuple(c // divisor for c in config.stem), stages=stages, num_classes=num_classes)


def narrow_model(preset: str, seed: int = 0, dtype: torch.dtype = torch.float32, divisor: int = 4) -> HSTL:
    """An untrained narrow network whose batch norm has seen something."""
    torch.manual_seed(seed)
    model = HSTL(narrow_config(preset, divisor)).to(dtype)
    torch.nn.init.normal_(model.norm.running_mean, std=0.05)
    torch.nn.init.uniform_(model.norm.running_var, 0.9, 1.1)
    for pool in model.pools:
        torch.nn.init.normal_(pool.p, 6.5, 0.1)
    return model


def walkers(frames: int, seed: int = 0) -> Tensor:
    """`frames` golden silhouettes `[frames, 64, 44]` uint8, from a random start in a random person's walk, looped."""
    clips = recipe.load("casia-b")["silhouettes"]
    random = np.random.default_rng(seed)
    start, clip = random.integers(clips.shape[1]), clips[random.integers(len(clips))]
    return torch.tensor(clip[(start + np.arange(frames)) % len(clip)])
