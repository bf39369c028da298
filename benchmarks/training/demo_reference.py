"""The demo's training by the native kernels and by the reference, with several seeds: rates and times.

    python -m benchmarks.training.demo_reference --seeds 2023 2024 2025 --keep /tmp/demo

The trainings follow one another, so that whatever else runs for a while slows one of them: run it on an idle machine. A
training that was interrupted goes on in the folder of `--keep`.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from hstl_fast.demo.training.plan import Plan
from hstl_fast.demo.training.running import train_again, train_demo

BACKENDS = ("auto", "reference")


def main() -> None:
    """Train with every seed on both ways, and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[2023, 2024, 2025])
    parser.add_argument("--steps", type=int, default=Plan.steps)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=BACKENDS)
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="folder of the trainings")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        trained = train_demo(replace(Plan(), steps=options.steps, seed=options.seeds[0]), folder)
        print(f"gait-energy image: {_rates(trained.energy.rates)}; guessing {trained.chance:.1f}", flush=True)
        rows = []
        for seed in options.seeds:
            for backend in options.backends:
                is_first = (seed, backend) == (options.seeds[0], BACKENDS[0])
                found = trained if is_first else train_again(trained, folder, backend, seed)
                rows.append({"seed": seed, "backend": backend, "seconds": found.loop_seconds, **found.scores.rates})
                print(f"seed {seed}, {backend}: {_rates(found.scores.rates)}, {found.loop_seconds:.0f} s", flush=True)
    print(json.dumps(rows))


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{name} {rate:.1f}" for name, rate in rates.items())


if __name__ == "__main__":
    main()
