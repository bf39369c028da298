"""The long run of a live recognition: its camera, its figures and its line through memory."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2")

import cv2

from benchmarks.recognition.watching import Camera, Sample, Sampler, growth, report, resident_mb, summarised
from hstl_fast.recognition.live.events import Frame, Seen, Update
from hstl_fast.recognition.live.statistics import Statistics


def sample(seconds: float, memory: float) -> Sample:
    return Sample(seconds, 25.0, 0.03, 0.1, 0.2, 3, memory, 2)


def test_the_video_is_played_in_another_size_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for value in range(6):
        writer.write(np.full((48, 64, 3), 60 + 20 * value, np.uint8))
    writer.release()
    camera = Camera(path, (32, 24), 200.0)
    frames = []
    for frame in camera:
        frames.append(frame)
        if frame.number > 9:
            camera.close()
    assert frames[-1].image.shape == (24, 32, 3)
    assert [frame.seconds for frame in frames] == pytest.approx([frame.number / 200 for frame in frames])
    assert len(frames) + camera.dropped >= 11


def test_a_line_through_memory_after_the_warm_up() -> None:
    found = growth([sample(t, 500 + 2 * t / 3600 if t >= 120 else 100) for t in range(1, 1200)])
    assert found["mb_per_hour"] == pytest.approx(2.0)
    assert (found["after_seconds"], found["least_mb"], found["most_mb"]) == (120, 500.1, 500.7)


def test_a_sample_is_made_of_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 100, 0.25))
    monkeypatch.setattr("benchmarks.recognition.watching.time.monotonic", lambda: next(clock))
    sampler, statistics = Sampler(), Statistics()
    frame = Frame(0, 0.0, 0.0, np.zeros((1, 1, 3), np.uint8))
    for number in range(13):
        seen = tuple(Seen(track, (0, 0, 1, 1), 1, None) for track in range(number % 3))
        update = Update(frame._replace(number=number), seen, (), 4.0, number / 100, number // 4)
        sampler.add(update)
    assert [s.seconds for s in sampler.samples] == [1.0, 2.0, 3.0]
    assert [s.fps for s in sampler.samples] == [5.0, 4.0, 4.0]
    assert [s.delay_worst for s in sampler.samples] == [0.04, 0.08, 0.12]
    assert [s.delay_median for s in sampler.samples] == [0.02, 0.065, 0.105]
    assert [(s.dropped, s.in_sight) for s in sampler.samples] == [(1, 2), (2, 2), (3, 2)]
    assert 10 < resident_mb() < 100_000
    for number in range(100):
        statistics.add(Update(frame._replace(number=number), (), (), 4.0, 0.04, 1 + number // 99))
    result = {"people": 3, **summarised(statistics, sampler.samples)}
    assert (result["frames"], result["dropped"], result["real_time"]) == (100, 2, False)
    assert "real time: no" in report(result)
    statistics.dropped = 1
    assert summarised(statistics, sampler.samples)["real_time"]
