"""The golden data, outputs of the released model definitions, and the recipe for the weights behind them.

`evaluation.npz` is not about models: it holds what the field's evaluator gives for random embeddings with recordings
missing. Under `<protocol>/` stand the arguments of `evaluate` and the results, with every cell of a table rounded to
0.01 before it was averaged; under `distance/` a probe and a gallery set, their distances, and distances re-ranked with
k1 = 6, k2 = 6 and weight 0.3, computed in float16.
"""

import functools
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hstl_fast import HSTL

FOLDER = Path(__file__).parent
SEED = 2023
CLASSES = 20
PRESETS = ("casia-b", "oumvlp", "gait3d")
# Scale and label smoothing of each preset's cross entropy.
CE = {"casia-b": (1.0, 0.0), "oumvlp": (1.0, 0.1), "gait3d": (16.0, 0.1)}


def load(name: str) -> dict[str, np.ndarray]:
    """The arrays of `<name>.npz`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def keys(preset: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released state_dict, in its order."""
    lines = (FOLDER / f"{preset}.keys.txt").read_text().splitlines()
    pairs = (line.split(" ", 1) for line in lines)
    return {key: tuple(int(size) for size in shape.strip("[]").split(",") if size) for key, shape in pairs}


def weights(preset: str, seed: int = SEED, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """A released state_dict drawn by the recipe."""
    drawn = {key: torch.tensor(value, dtype=dtype) for key, value in _drawn(preset, seed).items()}
    drawn["Bn.num_batches_tracked"] = torch.tensor(0)
    return drawn


def model(preset: str, seed: int = SEED, dtype: torch.dtype = torch.float64) -> HSTL:
    """The preset with 20 identities and the recipe's weights, in training mode."""
    built = HSTL.from_preset(preset, num_classes=CLASSES).to(dtype)
    built.load_official_state_dict(weights(preset, seed, dtype))
    return built


def probe(key: str, shape: tuple[int, ...], seed: int = SEED) -> Tensor:
    """The fixed random tensor whose inner product with a gradient is stored as `grad_probe`."""
    return torch.tensor(np.random.default_rng([seed, 99, zlib.crc32(key.encode())]).standard_normal(shape))


@functools.lru_cache(maxsize=1)
def _drawn(preset: str, seed: int) -> dict[str, np.ndarray]:
    """All of a preset's weights; tests of one preset mostly follow each other, and the largest take 185 MB."""
    return {key: _draw(key, shape, seed) for key, shape in keys(preset).items()}


def _draw(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    n = np.random.default_rng([seed, zlib.crc32(key.encode())]).standard_normal(shape)
    last = key.rsplit(".", 1)[-1]
    if key == "Bn.weight":
        return 1 + 0.02 * n
    if last == "p":
        return 6.5 + 0.1 * n
    if last == "fc_bin":
        return n / np.sqrt(shape[1])
    if last == "running_mean":
        return 0.05 * n
    if last == "running_var":
        return 1 + 0.1 * np.abs(n)
    if last == "bias":
        return 0.02 * n
    return n * np.sqrt(2 / np.prod(shape[1:]))
