"""Only right answers are timed, and nothing that goes wrong stops the others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.gpu import (
    compare,
    implementations,
    suite,
    workloads,
)
from benchmarks.gpu.implementations import Implementation
from tests.benchmarks.gpu.helpers import CPU, FLOAT32, Recorder, statuses


class Spoilt(Implementation):
    """Ours, its layer's output passed through a function."""

    def prepare(self, network: nn.Module, training: bool) -> nn.Module:
        layer = super().prepare(network, training)
        layer.register_forward_hook(lambda module, inputs, y: SPOIL[self.name](y))
        return layer


def _broken(y: Tensor) -> Tensor:
    raise RuntimeError("a kernel that does not start\nand says so at length")


SPOIL: dict[str, Callable[[Tensor], Tensor]] = {
    "wrong": lambda y: y * 1.5,
    "not a number": lambda y: y / 0,
    "broken": _broken,
}


def test_bytes_are_those_of_the_passes() -> None:
    found = {}
    for entry in suite.entries(tiny=True):
        if entry.group.split()[0] in ("arme", "astp", "strip_pool", "fta"):
            built = entry.build(CPU)
            assert isinstance(built, workloads.Operator)
            x = built.x.numel()
            moved = built.moved(2)
            found[entry.group] = moved if moved is None else moved / x
    assert found == {
        "arme forward": None,
        "arme forward and backward": None,
        "astp forward": 2,
        "astp forward and backward": 4,
        "strip_pool forward": 2,
        "strip_pool forward and backward": 4,
        "fta forward": pytest.approx(2 * (2 + 1 / 3)),
        "fta forward and backward": pytest.approx(2 * (5 + 1)),
    }


def test_embedding_from_the_host_is_the_same() -> None:
    workload = next(w for w in suite.entries(tiny=True) if w.name.startswith("embedding from the host"))
    reporter = Recorder()
    wanted = [Implementation("plain", FLOAT32), Implementation("ours", FLOAT32, torch.channels_last_3d, "auto")]
    compare.compare(workload, wanted, CPU, reporter, rounds=2)
    assert set(statuses(reporter.rows).values()) == {"ok"}


def test_wrong_and_broken_implementations_do_not_stop_the_others() -> None:
    workload = next(w for w in suite.entries(tiny=True) if w.group == "fta forward and backward")
    right = Implementation("right", FLOAT32, torch.channels_last_3d, "reference")
    spoilt = [Spoilt(name, FLOAT32, torch.channels_last_3d, "reference") for name in SPOIL]
    reporter = Recorder()
    compare.compare(workload, [*spoilt, right], CPU, reporter, rounds=2)
    found = {key.rsplit(" | ")[1]: row for key, row in reporter.rows.items()}
    assert {name: row["status"] for name, row in found.items()} == {
        "wrong": "wrong",
        "not a number": "wrong",
        "broken": "failed",
        "right": "ok",
    }
    assert found["broken"]["reason"] == "RuntimeError: a kernel that does not start and says so at length"
    assert found["wrong"]["errors"]["output"] == pytest.approx(0.5, rel=1e-3)
    assert "device" not in found["wrong"]
    assert found["right"]["wall"]["rounds"] == 2


def test_torch_compile_is_timed_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilation itself is left out: this is about who is measured with whom."""
    monkeypatch.setattr(nn.Module, "compile", lambda *arguments, **options: None)
    workload = next(w for w in suite.entries(tiny=True) if w.group == "strip_pool forward")
    reporter = Recorder()
    compare.compare(
        workload, [c for c in implementations.COMPILED if c.layout == torch.channels_last_3d], CPU, reporter, rounds=2
    )
    (row,) = reporter.rows.values()
    assert (row["status"], row["torch_compile"]) == ("ok", "max-autotune")
    assert row["beside hstl_fast auto, bfloat16 autocast"]["wall"]["rounds"] == 2
