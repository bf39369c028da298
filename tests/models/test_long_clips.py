"""A clip in windows gives what the whole clip gives, in memory that does not grow with it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import hstl_fast
from hstl_fast import HSTL, PRESETS, clear_caches
from hstl_fast.models import hstl as module
from hstl_fast.models.cpu_plan import Plan
from hstl_fast.models.long_clips import ClipMaxima, PlannedWindowMaps, WindowMaps, windows
from tests.golden import recipe
from tests.helpers.networks import narrow_model, walkers

FRAMES, WINDOW = 80, 48


WAYS = [("cpu", torch.float64, 1e-12), ("cpu", torch.float32, 1e-6), ("reference", torch.float64, 1e-12)]
CASES = [(preset, *way) for preset in recipe.PRESETS for way in WAYS]


@pytest.mark.parametrize(
    ("preset", "backend", "dtype", "bound"),
    [pytest.param(*c, marks=[pytest.mark.slow] * (c[1] == "reference" and c[0] != "casia-b")) for c in CASES],
    ids=str,
    indirect=["backend"],
)
def test_windows_equal_the_whole_clip(
    preset: str, backend: str, dtype: torch.dtype, bound: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = narrow_model(preset, dtype=dtype, divisor=32)
    clip = walkers(FRAMES, 1)
    with hstl_fast.use_backend(backend):
        whole = model.embed([clip])
        monkeypatch.setattr(module, "FRAMES_OF_A_WINDOW", WINDOW)
        monkeypatch.setattr(HSTL, "_embeddings", None)  # the way of whole clips
        cut = model.embed([clip], max_frames=WINDOW)
    assert whole.shape == cut.shape
    assert (whole - cut).abs().max() <= bound * whole.abs().max()


@pytest.mark.parametrize("frames", [48, 49, 50, 51, 60, 61, 95, 96, 200])
def test_every_length_is_covered(frames: int) -> None:
    cut = list(windows(PRESETS["oumvlp"], frames, WINDOW))
    assert cut[0].start == 0
    assert cut[-1].stop == frames
    assert all(window.stop - window.start <= WINDOW and window.start % 3 == 0 for window in cut)
    assert (len(cut) == 1) == (frames <= WINDOW)


def test_every_frame_counts_wherever_it_lies() -> None:
    """The person is seen in one frame only."""
    model = narrow_model("oumvlp", dtype=torch.float64, divisor=32)
    one = walkers(1)
    for frame in (0, 13, 27, 30, 37, 44, 59, 62):
        clip = torch.zeros(63, 64, 44, dtype=torch.uint8)
        clip[frame] = one[0]
        whole = model.embed([clip])
        with torch.no_grad():
            cut = model._in_windows(clip, WINDOW)
        assert (whole - cut).abs().max() <= 1e-12 * whole.abs().max()


def test_a_network_with_other_layers_sees_the_whole_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows how far another layer, or a hook, looks."""
    model = narrow_model("casia-b", divisor=32)
    clip = walkers(60)
    expected = model.embed([clip])
    monkeypatch.setattr(module, "FRAMES_OF_A_WINDOW", 30)
    seen: list[int] = []
    handle = model.stem[0].register_forward_hook(lambda *args: seen.append(args[2].shape[2]))
    assert torch.allclose(model.embed([clip], max_frames=30), expected, atol=1e-5)
    assert seen == [60]
    handle.remove()
    monkeypatch.setattr(model.stem[0], "forward", lambda *args: type(model.stem[0]).forward(model.stem[0], *args))
    monkeypatch.setattr(HSTL, "_in_windows", None)
    assert torch.allclose(model.embed([clip], max_frames=30), expected, atol=1e-5)


def test_short_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="receptive field of the network; got 15"):
        list(windows(PRESETS["oumvlp"], 100, 17))


def test_no_layer_sees_more_than_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FRAMES_OF_A_WINDOW", WINDOW)
    model = narrow_model("casia-b", divisor=32)
    seen: list[int] = []
    convolve = WindowMaps.convolve

    def noting(self: WindowMaps, layer: torch.nn.Module) -> None:
        seen.append(self._x.shape[2])
        convolve(self, layer)

    monkeypatch.setattr(WindowMaps, "convolve", noting)
    with hstl_fast.use_backend("reference"):
        monkeypatch.setattr(HSTL, "_embeddings", None)
        monkeypatch.setattr(module, "is_made_of_own_layers", lambda _: True)
        model.embed([walkers(200)], max_frames=WINDOW)
    assert max(seen) == WINDOW
    assert len(seen) == 5 * len(list(windows(model.config, 200, WINDOW)))


@pytest.fixture
def planned(native: str) -> Iterator[list[PlannedWindowMaps]]:
    """The plans of windows that are made."""
    found: list[PlannedWindowMaps] = []
    plan = PlannedWindowMaps.plan

    def noting(maps: PlannedWindowMaps, network: HSTL) -> Plan:
        found.append(maps)
        return plan(maps, network)

    clear_caches()
    with mock.patch.object(PlannedWindowMaps, "plan", noting):
        yield found
    clear_caches()


@pytest.mark.parametrize("preset", ["casia-b", "gait3d"])
def test_windows_share_three_plans(preset: str, planned: list[PlannedWindowMaps]) -> None:
    """The first window, those in the middle, and the last one."""
    model = narrow_model(preset, divisor=32)
    with torch.no_grad():
        first = model._in_windows(walkers(300), WINDOW)
        assert len(planned) == 3
        assert torch.equal(model._in_windows(walkers(300), WINDOW), first)
        assert not torch.equal(model._in_windows(walkers(300, 1), WINDOW), first)
        assert len(planned) == 3


def test_maps_of_a_window_take_as_much_memory_as_its_frames(planned: list[PlannedWindowMaps]) -> None:
    model = narrow_model("casia-b", divisor=8)
    with torch.no_grad():
        model._in_windows(walkers(90), WINDOW)
    frame = 64 * 44 * 4
    assert {area.size for area in planned[0]._maps} == {WINDOW * frame * 8, WINDOW // 3 * frame * 16}


def test_a_hook_between_two_windows_is_not_passed_over(planned: list[PlannedWindowMaps]) -> None:
    """The windows before it count, and those after it are computed layer by layer."""
    model, clip = narrow_model("casia-b", dtype=torch.float64, divisor=32), walkers(120)
    with torch.no_grad():
        expected = model._in_windows(clip, WINDOW)
    seen: list[int] = []
    add = ClipMaxima.add

    def adding(self: ClipMaxima, *arguments: Any) -> None:
        add(self, *arguments)
        if not seen:
            model.fta.register_forward_hook(lambda *_: seen.append(1))
            seen.append(0)

    with mock.patch.object(ClipMaxima, "add", adding), torch.no_grad():
        answer = model._in_windows(clip, WINDOW)
    assert sum(seen) == len(list(windows(model.config, 120, WINDOW))) - 1 > 1
    assert (answer - expected).abs().max() <= 1e-12 * expected.abs().max()


# Linux counts the memory of the process that starts another one among `ru_maxrss` of that one, but not in `VmHWM`.
MEMORY = r"""
import re, sys
import torch
from hstl_fast import HSTL
from tests.helpers.networks import walkers
torch.set_num_threads(1)
model, clip = HSTL.from_preset("casia-b"), walkers(30).repeat(int(sys.argv[1]) // 30, 1, 1)
before = model.embed([clip[:30]])
model.embed([clip])
print(int(re.search(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_long_clip_takes_less_than_a_gibibyte(native: str, environment: dict[str, str]) -> None:
    """The whole process, with torch."""
    command = [sys.executable, "-c", MEMORY, "1200"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout) < 1024
