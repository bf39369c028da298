"""The table of a training step: what was measured with fewer sequences is projected once."""

from benchmarks.training.step import OURS, PLAIN, STAGES, report


def loop(sequences: int, seconds: float) -> dict[str, object]:
    times = dict.fromkeys(STAGES, seconds)
    return {"sequences": sequences, "seconds": {**times, "step": 5 * seconds}, "memory_bytes": sequences * 2**28}


def test_a_smaller_batch_is_projected_in_proportion() -> None:
    loops = {OURS: loop(64, 2.0), PLAIN: loop(16, 3.0)}
    lines = report({"preset": "casia-b", "batch": "8 x 8 x 30", "rounds": 3, "loops": loops}).splitlines()
    assert lines[2].split() == [OURS, *["2.000"] * 5, "10.000", "16.000"]
    assert lines[3].split() == ["plain", "torch", "(from", "16)", *["12.000"] * 5, "60.000", "16.000"]
    assert lines[4] == f"{PLAIN} / {OURS}: 6.00 in time"
