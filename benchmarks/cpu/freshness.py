"""The cost of comparing weights with those that were prepacked: embeddings with and without, interleaved.

`python -m benchmarks.cpu.freshness --rounds 40` prints a line of JSON for each network. `--processor-time` takes the
time of the processor in place of that of the clock, which on a busy machine is of use with one thread.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median
from typing import Any
from unittest import mock

import torch

from benchmarks.core import silhouettes
from benchmarks.core.interleaving import interleaved
from hstl_fast import HSTL, nn
from hstl_fast.backends.cpu import weights
from hstl_fast.backends.cpu.checksum import checksums


def _unchecked(requests: list[weights.Request]) -> list[Any]:
    """The cached weights, whatever values they hold."""
    return [weights._entry_of(request) for request in requests]


def measure(preset: str, options: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds of a clip with and without the check, and of the checksums by themselves.

    The last ones are computed between clips, whose maps and prepacked weights have displaced the weights from the
    caches.
    """
    pages = mock.patch.object(nn, "prefer_huge_pages") if options.small_pages else nullcontext()
    with pages:
        model = HSTL.from_preset(preset).eval()
    clip = silhouettes.clip(0, 0, options.frames)
    convolutions = [parameter.detach() for parameter in model.parameters() if parameter.dim() == 6]
    clock = time.process_time if options.processor_time else time.perf_counter

    def milliseconds(call: Callable[[], object]) -> float:
        start = clock()
        call()
        return 1e3 * (clock() - start)

    def unchecked() -> float:
        with mock.patch.object(weights, "_fresh_entries", _unchecked):
            return milliseconds(lambda: model.embed([clip]))

    measures = {
        "checked": lambda: milliseconds(lambda: model.embed([clip])),
        "unchecked": unchecked,
        "checksums alone": lambda: milliseconds(lambda: checksums(convolutions)),
    }
    for call in measures.values():
        call()
    found = interleaved(measures, options.rounds)
    return {
        "preset": preset,
        "threads": options.threads,
        "megabytes": sum(weight.nbytes for weight in convolutions) / 1e6,
        "median_ms": {name: round(median(ms), 2) for name, ms in found.items()},
        "fastest_ms": {name: round(min(ms), 2) for name, ms in found.items()},
        "median_ratio": {
            name: round(median(a / b for a, b in zip(ms, found["unchecked"])), 4) for name, ms in found.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["casia-b", "oumvlp", "gait3d"])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small-pages", action="store_true", help="do not ask for huge pages under the weights")
    parser.add_argument("--processor-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for preset in options.presets:
        print(json.dumps(measure(preset, options)), flush=True)


if __name__ == "__main__":
    main()
