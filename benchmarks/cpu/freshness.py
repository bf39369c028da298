"""What it costs to compare the weights with those that were prepacked: embeddings with and without, interleaved.

`python -m benchmarks.cpu.freshness --rounds 40` prints a line for each network, and with `--json` an object.
"""

import argparse
import functools
import json
from statistics import median
from typing import Any
from unittest import mock

import torch

from benchmarks.core import silhouettes
from benchmarks.core.interleaving import interleaved, timed
from hstl_fast import HSTL
from hstl_fast.backends.cpu import weights
from hstl_fast.backends.cpu.checksum import checksums


def measure(preset: str, frames: int, rounds: int, threads: int) -> dict[str, Any]:
    """Milliseconds of a clip as it is, of one whose weights are not looked at, and of the checksums by themselves.

    The last ones are computed between clips, whose maps and prepacked weights have displaced the weights from the
    caches.
    """
    torch.set_num_threads(threads)
    model = HSTL.from_preset(preset).eval()
    clip = silhouettes.clip(0, 0, frames)
    convolutions = [parameter.detach() for parameter in model.parameters() if parameter.dim() == 6]

    def unchecked() -> float:
        entries = lambda requests: [weights._entry_of(request) for request in requests]  # noqa: E731
        with mock.patch.object(weights, "_fresh_entries", entries):
            return timed(functools.partial(model.embed, [clip]))

    measures = {
        "checked": lambda: timed(functools.partial(model.embed, [clip])),
        "unchecked": unchecked,
        "checksums": lambda: timed(functools.partial(checksums, convolutions)),
    }
    for call in measures.values():
        call()
    found = interleaved(measures, rounds)
    ms = {name: 1e3 * median(seconds) for name, seconds in found.items()}
    ratio = median(a / b for a, b in zip(found["checked"], found["unchecked"]))
    fastest = {name: 1e3 * min(seconds) for name, seconds in found.items()}
    size = sum(weight.nbytes for weight in convolutions)
    return {"preset": preset, "threads": threads, "bytes": size, "ms": ms, "fastest_ms": fastest, "ratio": ratio}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["casia-b", "oumvlp", "gait3d"])
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for preset in options.presets:
        found = measure(preset, options.frames, options.rounds, options.threads)
        if options.json:
            print(json.dumps(found))
            continue
        ms, fastest = found["ms"], found["fastest_ms"]
        print(
            f"{preset}, {options.threads} threads, {found['bytes'] / 1e6:.1f} MB of weights: {ms['checked']:.2f} ms, "
            f"unchecked {ms['unchecked']:.2f} ms (ratio {found['ratio']:.4f}; fastest {fastest['checked']:.2f} and "
            f"{fastest['unchecked']:.2f}), checksums alone {ms['checksums']:.2f} (fastest {fastest['checksums']:.2f}) ms"
        )


if __name__ == "__main__":
    main()
