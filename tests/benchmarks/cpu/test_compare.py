"""Only right answers are timed, and nothing that goes wrong stops the others."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.core import machine
from benchmarks.core.correctness import Bounds
from benchmarks.core.names import ONE_THREAD, OURS
from benchmarks.core.plain import frozen
from benchmarks.core.turns import in_turns
from benchmarks.cpu.compare import FULL, Prepared, Row, compare, float64_reference
from benchmarks.cpu.implementations import (
    Implementation,
    Unavailable,
    against_one_thread,
)
from tests.benchmarks.cpu.helpers import EAGER, OURSELVES, PROBES, Broken, compared, small_workload, spoilt


def test_an_implementation_with_inputs_of_its_own_has_a_reference_of_its_own() -> None:
    seen: list[float] = []

    def note(y: Tensor) -> Tensor:
        seen.append(float(y.norm()))
        return y

    workload, other = small_workload(EAGER), torch.randn(1, 4, 3, 8, 6)
    rows = compared(workload._replace(implementations=(EAGER, spoilt(note)._replace(inputs=(other,)))))
    assert [(row.fault, len(row.seconds)) for row in rows] == [(None, 2), (None, 2)]
    expected = float(float64_reference(workload._replace(inputs=[other])).outputs[0].norm())
    assert seen == pytest.approx([expected] * 4, rel=1e-4)


def test_one_thread_is_one_thread_of_the_same() -> None:
    threads: list[int] = []

    def note(y: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        return y

    all_, one = against_one_thread()
    assert (all_.name, one.name) == (OURS, ONE_THREAD)
    workload = small_workload(*(r._replace(prepare=spoilt(note).prepare) for r in (all_, one)))._replace(threads=2)
    before = torch.get_num_threads()
    assert [row.fault for row in compared(workload)] == [None, None]
    assert threads[:4] == [2, 1, 2, 1]
    assert sorted(threads[4:]) == [1, 1, 2, 2]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("training", [False, True])
def test_right_answers_are_timed(training: bool) -> None:
    rows = compared(small_workload(EAGER, OURSELVES, training=training))
    assert [(row.implementation, row.fault, len(row.seconds)) for row in rows] == [("eager", None, 2), (OURS, None, 2)]
    for row in rows:
        assert row.errors is not None
        assert 0 < row.errors.output < 1e-6
        assert (row.errors.gradient is not None) == training


@pytest.mark.parametrize(
    ("spoil", "training", "word"),
    [
        (lambda y: y + 1e-4 * y.abs().max(), False, "output"),
        (lambda y: y.where(y != y.max(), torch.nan), False, "output"),
        (lambda y: y[..., :-1], False, "output"),
        (lambda y: y.bfloat16().float(), False, "output"),
        (lambda y: 1.001 * y - 0.001 * y.detach(), True, "gradient"),
    ],
    ids=["off", "nan", "shape", "bfloat16", "gradient"],
)
def test_a_wrong_answer_is_not_timed(spoil: Callable[[Tensor], Tensor], training: bool, word: str) -> None:
    eager, wrong = compared(small_workload(EAGER, spoilt(spoil), training=training))
    assert len(eager.seconds) == 2
    assert wrong.seconds == ()
    assert wrong.fault is not None
    assert word in wrong.fault


@pytest.mark.parametrize("calls", [0, 1, 3], ids=["first", "second", "in a round"])
def test_an_implementation_that_raises_does_not_stop_the_others(calls: int) -> None:
    broken = Implementation("broken", lambda network, training: Broken(frozen(network, training), calls))
    rows = compared(small_workload(broken, OURSELVES))
    assert rows[0].fault == "raised RuntimeError: out of luck in place.py"
    assert rows[0].seconds == ()
    assert len(rows[1].seconds) == 2


def test_an_implementation_that_cannot_be_prepared_does_not_stop_the_others() -> None:
    def fail(network: nn.Module, training: bool) -> nn.Module:
        raise KeyError("nothing here")

    rows = compared(small_workload(Implementation("failing", fail), OURSELVES))
    assert rows[0].fault == "raised KeyError: 'nothing here'"
    assert len(rows[1].seconds) == 2


@pytest.mark.parametrize(
    "spoil",
    [lambda y: None, lambda y: (y, y), lambda y: y.to("meta"), lambda y: y.numpy()],
    ids=["None", "tuple", "device", "array"],
)
def test_an_answer_that_cannot_be_checked_does_not_stop_the_others(spoil: Callable[[Tensor], Any]) -> None:
    rows = compared(small_workload(spoilt(spoil), OURSELVES))
    assert rows[0].fault is not None
    assert rows[0].fault.startswith("raised ")
    assert rows[0].seconds == ()
    assert len(rows[1].seconds) == 2


def test_errors_are_checked_by_an_implementations_type() -> None:
    rounded = spoilt(lambda y: y.bfloat16().float())
    narrow, is_float32 = compared(small_workload(rounded._replace(name="narrow", dtype="bfloat16"), rounded))
    assert narrow.fault is None
    assert narrow.bounds == Bounds(1e-2)
    assert len(narrow.seconds) == 2
    assert is_float32.fault is not None


def test_a_network_is_prepared_once_for_workloads_that_share_it() -> None:
    made: list[int] = []

    def make(network: nn.Module, training: bool) -> nn.Module:
        made.append(torch.get_num_threads())
        return frozen(network, training)

    workload, prepared = small_workload(Implementation("counted", make)), Prepared()
    with machine.threads(2):
        for threads in (None, 2, 1, 1):
            compare(workload._replace(threads=threads), PROBES, in_turns, prepared)
        assert made == [2, 1]
        assert torch.get_num_threads() == 2
        compare(small_workload(*workload.implementations), PROBES, in_turns, prepared)
    assert made == [2, 1, 2]


def test_long_rounds_are_fewer() -> None:
    assert [FULL.rounds(seconds) for seconds in (0.001, 0.2, 2.0, 10.0, 100.0)] == [25, 10, 5, 3, 3]


def test_an_implementation_that_cannot_run_says_why() -> None:
    def refuse(network: nn.Module, training: bool) -> nn.Module:
        raise Unavailable("it is not installed")

    rows = compared(small_workload(Implementation("absent", refuse), OURSELVES))
    assert rows[0] == Row("absent", unavailable="it is not installed")
    assert len(rows[1].seconds) == 2
