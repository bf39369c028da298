"""The machine is named, and its peaks are measured by multiply-adds that are really executed."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.core import machine
from benchmarks.core.names import IN_CLIPS, OURS
from benchmarks.cpu import peak
from benchmarks.cpu.peak import MultiplyAdds, Unavailable


@pytest.fixture
def native() -> MultiplyAdds:
    """The compiled multiply-adds."""
    try:
        return peak.multiply_adds()
    except Unavailable as why:
        pytest.skip(str(why))


@pytest.mark.parametrize("rounds", [0, 1, 2, 9])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_multiply_add_is_executed_and_counted(native: MultiplyAdds, threads: int, rounds: int) -> None:
    """Halves and small integers are exact, so that the last numbers tell how many multiply-adds there were."""
    starts = np.arange(native.numbers, dtype=np.float32)
    run = native.run("float32", threads, rounds, starts, 0.5, 3.0)
    expected = starts.copy()
    for _ in range(rounds):
        expected = expected * np.float32(0.5) + np.float32(3.0)
    assert run.ends.shape == (threads, native.numbers)
    assert (run.ends == expected).all()
    assert run.operations == 2 * rounds * run.ends.size


@pytest.mark.parametrize("rounds", [1, 9])
def test_every_bfloat16_product_is_executed_and_counted(native: MultiplyAdds, rounds: int) -> None:
    if not native.operations("bfloat16"):
        pytest.skip("this processor has no instructions for bfloat16")
    starts = np.arange(native.numbers, dtype=np.float32)
    run = native.run("bfloat16", 2, rounds, starts, 0.5, 3.0)
    assert (run.ends == starts + 2 * 1.5 * rounds).all()
    assert run.operations == 2 * 2 * rounds * run.ends.size


def test_other_numbers_than_the_registers_hold_are_refused(native: MultiplyAdds) -> None:
    with pytest.raises(ValueError, match=rf"starts must have the shape \({native.numbers},\), got \(3,\)"):
        native.run("float32", 1, 1, np.zeros(3), 0.5, 0.5)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is measured on little data."""
    monkeypatch.setattr(peak, "SIZE", 64)
    monkeypatch.setattr(peak, "COPIED", 1000)
    monkeypatch.setattr(peak, "LONG_ENOUGH", 1e-4)


KINDS = ("multiply_adds_gflop_per_second", "library_gflop_per_second", "library")
FIGURES = {f"{dtype}_{kind}" for dtype in peak.DTYPES for kind in KINDS}


def test_the_machine_is_named_and_its_peaks_measured(native: MultiplyAdds, small: None) -> None:
    description = json.loads(json.dumps(machine.description()))
    assert {"cpu", "cores", "threads", "torch", "native_cpu", "hstl_fast", "peers"} <= description.keys()
    figures = peak.measure(repeats=1)
    assert figures.keys() == {*FIGURES, "multiply_adds_missing", "copy_gbyte_per_second"}
    rates = [value for name, value in figures.items() if name.endswith("_per_second")]
    assert all(isinstance(rate, float) and rate > 0 for rate in rates if rate is not None)
    assert figures["float32_multiply_adds_gflop_per_second"] is not None
    assert figures["float32_library"] == "torch.mm of 64 x 64"
    assert figures["multiply_adds_missing"] is None


@pytest.mark.parametrize(
    ("compiler", "why"),
    [
        ("no-such-compiler", "CXX: expected a command that can be run, got 'no-such-compiler'"),
        ("false", "false does not compile peak.cpp"),
    ],
)
def test_without_a_compiler_the_libraries_are_left(
    small: None, monkeypatch: pytest.MonkeyPatch, compiler: str, why: str
) -> None:
    monkeypatch.setenv("CXX", compiler)
    peak.multiply_adds.cache_clear()
    try:
        figures = peak.measure(repeats=1)
    finally:
        peak.multiply_adds.cache_clear()
    assert figures["multiply_adds_missing"] == why
    assert figures["float32_multiply_adds_gflop_per_second"] is None
    assert peak.arithmetic(figures, "float32") == figures["float32_library_gflop_per_second"]


def test_of_two_measurements_the_higher_rates_count() -> None:
    before = {"a": 1.0, "b": None, "c": 5.0, "name": "mm"}
    assert peak.best(before, {"a": 2.0, "b": None, "c": 4.0, "name": "mm"}) == {"a": 2, "b": None, "c": 5, "name": "mm"}


def comparison(direct_flop: int, **fastest: float | None) -> dict[str, Any]:
    """A workload with implementations and their fastest rounds in seconds."""
    rows = {name: {"dtype": "float32", "fastest": seconds} for name, seconds in fastest.items()}
    rows["openvino bf16"] = {"dtype": "bfloat16", "fastest": 1e-3}
    rows["openvino int8"] = {"dtype": "int8", "fastest": 1e-6}
    return {"group": "embedding", "workload": "w", "direct_flop": direct_flop, "implementations": rows}


def test_the_best_product_of_any_library_counts() -> None:
    figures = {"float32_multiply_adds_gflop_per_second": 120.0, "float32_library_gflop_per_second": 99.0}
    figures |= {"float32_library": "torch.mm", "bfloat16_library_gflop_per_second": None}
    slower, faster = comparison(10**9, eager=0.02), comparison(10**9, eager=None, openvino=0.005, **{OURS: 1e-6})
    nothing = comparison(0, eager=1e-9)
    clips = comparison(10**9, **{IN_CLIPS: 1e-6})
    found = peak.with_libraries(figures, [slower, faster, nothing, clips])
    assert found["float32_library_gflop_per_second"] == pytest.approx(200)
    assert found["float32_library"] == "openvino, embedding: w"
    assert found["bfloat16_library_gflop_per_second"] == pytest.approx(1000)
    assert peak.arithmetic(found, "float32") == pytest.approx(200)
    assert not any(name.startswith("int8") for name in found)
    assert peak.arithmetic(peak.with_libraries(figures, [slower]), "float32") == 120
    assert peak.with_libraries(figures, [slower])["float32_library"] == "torch.mm"
    assert peak.arithmetic({}, "float32") is None
