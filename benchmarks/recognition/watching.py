"""Live recognition over a long time: frame rate, delay and memory on a video that is played again and again.

    python -m benchmarks.recognition.watching VIDEO --minutes 20 --output FILE.json

The video is decoded, brought to 640 x 480 and played at 25 frames a second whatever its own rate, like a camera: a
frame that nobody takes in time is dropped. The gallery holds the video's own tracks, one person each; another process
makes it, so that its memory does not count. It is real time where at most 1 % of the frames are dropped and 95 % of
the others are answered within half a second.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from benchmarks.core import machine
from hstl_fast.recognition import Clip
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.live.events import Frame, Source, Update
from hstl_fast.recognition.live.files import FileSource
from hstl_fast.recognition.live.newest import Newest, wait_until
from hstl_fast.recognition.live.statistics import Statistics
from hstl_fast.recognition.live.watcher import Watcher
from hstl_fast.silhouettes.extras import opencv
from hstl_fast.silhouettes.video import extract

SIZE, FPS = (640, 480), 25.0
STATUS = Path("/proc/self/status")
# Memory of the first so many seconds, or of this share of a short run, is that of a program that is still starting.
WARM_UP, WARM_UP_SHARE = 120.0, 0.3
# The greatest share of dropped frames, and the greatest delay of 95 % of the others in seconds, in real time.
DROPPED, DELAY = 0.01, 0.5


class Camera:
    """A video as a camera of one size and rate, without end."""

    def __init__(self, path: Path, size: tuple[int, int] = SIZE, fps: float = FPS) -> None:
        self._file = FileSource(path, loop=True)
        self._size = size
        self.name, self.is_live, self.fps = path.name, True, fps
        self.dropped = self.reconnections = 0
        self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        newest = Newest()
        threading.Thread(target=self._play, args=(newest,), daemon=True).start()
        while not (self._closed or newest.ended):
            frame = newest.take()
            self.dropped = newest.dropped
            if frame is not None:
                yield frame
        if newest.error is not None:
            raise newest.error

    def close(self) -> None:
        """End the camera."""
        self._closed = True
        self._file.close()

    def _play(self, newest: Newest) -> None:
        cv2 = opencv()
        began = time.monotonic()
        try:
            for number, frame in enumerate(self._file):
                image = np.asarray(cv2.resize(frame.image, self._size, interpolation=cv2.INTER_AREA))
                wait_until(began + number / self.fps, lambda: self._closed)
                newest.put(Frame(number, number / self.fps, time.monotonic(), image))
            newest.end()
        except Exception as error:  # the one who takes the frames is to see it
            newest.end(error)


class Sample(NamedTuple):
    """The measurements of about a second.

    Attributes:
        seconds: The time of the measurement from the first frame.
        fps: Frames a second.
        delay_median: Of these frames, in seconds.
        delay_95: Of these frames, in seconds.
        delay_worst: Of these frames, in seconds.
        dropped: Frames dropped so far.
        memory: The resident memory in MB.
        in_sight: Most people in a frame.
    """

    seconds: float
    fps: float
    delay_median: float
    delay_95: float
    delay_worst: float
    dropped: int
    memory: float
    in_sight: int


class Sampler:
    """Makes a sample of the updates of each second."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._began: float | None = None
        self._last = 0.0
        self._delays: list[float] = []
        self._in_sight = 0

    def add(self, update: Update) -> None:
        """Take an update."""
        now = time.monotonic()
        if self._began is None:
            self._began = self._last = now
        self._delays.append(update.delay)
        self._in_sight = max(self._in_sight, len(update.seen))
        if now - self._last >= 1:
            delays = np.array(self._delays)
            middle, most = np.quantile(delays, [0.5, 0.95])
            rate, memory = len(delays) / (now - self._last), resident_mb()
            figures = [now - self._began, rate, middle, most, delays.max()]
            seconds, *others = (round(float(figure), 4) for figure in figures)
            self.samples.append(Sample(seconds, *others, update.dropped, memory, self._in_sight))
            self._last, self._delays, self._in_sight = now, [], 0


def resident_mb() -> float:
    """The resident memory of this process in MB."""
    found = re.search(r"^VmRSS:\s+(\d+) kB", STATUS.read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def growth(samples: Sequence[Sample]) -> dict[str, float]:
    """The line through memory after the warm-up: MB an hour, and the least and the most memory in MB."""
    warm = min(WARM_UP, WARM_UP_SHARE * samples[-1].seconds)
    steady = [sample for sample in samples if sample.seconds >= warm]
    seconds, memory = np.array([s.seconds for s in steady]), np.array([s.memory for s in steady])
    slope = np.polyfit(seconds, memory, 1)[0] if len(steady) > 1 else 0.0
    return {
        "after_seconds": round(warm, 1),
        "mb_per_hour": round(float(slope) * 3600, 3),
        "least_mb": round(float(memory.min()), 1),
        "most_mb": round(float(memory.max()), 1),
    }


def make_gallery(video: Path, gallery: str) -> None:
    """Enrol each track of the video as a person of its own."""
    tracks = extract(video)
    with Gallery(gallery) as known:
        for track in tracks:
            known.enroll(track.name, [Clip(track.name, track.silhouettes)])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Watch the video for some minutes."""
    statistics, sampler = Statistics(), Sampler()
    with Gallery(options.gallery, create=False) as gallery, closing(Camera(options.video)) as camera:
        source: Source = camera
        people = len(gallery.people())
        timer = threading.Timer(60 * options.minutes, camera.close)
        timer.daemon = True
        for update in Watcher(gallery).updates(source):
            before = statistics.frames
            statistics.add(update)
            if not before:
                timer.start()
            if statistics.frames > before:  # not one that only says how tracks ended
                sampler.add(update)
        timer.cancel()
    return {"people": people, **summarised(statistics, sampler.samples)}


def summarised(statistics: Statistics, samples: Sequence[Sample]) -> dict[str, Any]:
    """The figures of the whole run beside its samples."""
    came = statistics.frames + statistics.dropped
    most = statistics.delay(0.95)
    assert most is not None
    return {
        "frames": statistics.frames,
        "seconds": round(statistics.seconds, 2),
        "fps": round(statistics.fps or 0.0, 3),
        "dropped": statistics.dropped,
        "delay_median": statistics.delay(0.5),
        "delay_95": most,
        "delay_worst": round(statistics.worst_delay, 4),
        "in_sight_median": median(sample.in_sight for sample in samples),
        "in_sight_most": max(sample.in_sight for sample in samples),
        "sightings": statistics.sightings,
        "memory": growth(samples),
        "real_time": statistics.dropped <= DROPPED * came and most <= DELAY,
        "samples": {name: [getattr(s, name) for s in samples] for name in Sample._fields},
    }


def report(result: dict[str, Any]) -> str:
    """The figures of a run as text."""
    memory = result["memory"]
    return "\n".join(
        [
            f"{result['frames']} frames in {result['seconds']:.0f} s: {result['fps']:.2f} a second, "
            f"{result['dropped']} dropped",
            f"delay: {result['delay_median']:.3f} s (median), {result['delay_95']:.3f} s (95 %), "
            f"{result['delay_worst']:.3f} s (longest)",
            f"people in sight: {result['in_sight_median']:g} (median), {result['in_sight_most']} (most); "
            f"{result['people']} in the gallery; {result['sightings']} sightings",
            f"memory after {memory['after_seconds']:.0f} s: {memory['least_mb']:.0f} to {memory['most_mb']:.0f} MB, "
            f"{memory['mb_per_hour']:+.1f} MB an hour",
            f"real time: {'yes' if result['real_time'] else 'no'}",
        ]
    )


def main() -> None:
    """Make the gallery, measure, print, and write a JSON file if one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--gallery", help="gallery to use; made where there is none, and kept")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.gallery = options.gallery or str(Path(folder) / "people.db")
        if not Path(options.gallery).exists():
            making = multiprocessing.get_context("spawn").Process(
                target=make_gallery, args=(options.video, options.gallery)
            )
            making.start()
            making.join()
            if making.exitcode:
                raise SystemExit("the gallery could not be made")
        result = measure(options)
    print(report(result))
    if options.output:
        size = f"{SIZE[0]} x {SIZE[1]}"
        result = {"video": options.video.name, "size": size, "played_fps": FPS, **result}
        result["machine"] = machine.description()
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
