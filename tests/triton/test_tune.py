"""The GPU kit's measurement of tiles, with Triton's kernels."""

import pytest
import torch

from benchmarks.gpu import tune
from benchmarks.gpu.tune import Product

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("kind", ["convolve", "weigh"])
def test_a_measurement_names_the_fastest_of_what_it_tried(
    kind: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "REPEATS", 1)
    monkeypatch.setattr(tune, "DTYPE", torch.float16)  # the interpreter cannot multiply bfloat16
    row = tune.measure(Product(kind, 16, 16, (2, 1), 2, 3, 5), DEVICE, tiny=True)
    assert row["status"] == "ok"
    assert row["seconds"] == min(seconds for _, seconds in row["tried"]) <= row["seconds_by_rule"]
    assert list(row["tile"].values()) in [tile for tile, _ in row["tried"]]
