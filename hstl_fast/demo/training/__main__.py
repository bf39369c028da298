"""`python -m hstl_fast.demo.training FILE.pt`: make the checkpoint that the package brings along anew.

It is the training of `hstl-fast demo --train`. Another processor rounds otherwise and comes to other weights, whose
rates differ a little.
"""

import argparse
import json
import tempfile
from pathlib import Path

from hstl_fast.demo.training.plan import Plan
from hstl_fast.demo.training.running import train_demo
from hstl_fast.demo.training.shipping import describe, save_trained
from hstl_fast.training import Status, Watcher


class _Printed(Watcher):
    def on_step(self, status: Status) -> None:
        if status.step % 10 == 0:
            print(f"step {status.step} of {status.steps}, loss {status.loss:.3f}, {status.seconds_left:.0f} s left")


def main() -> None:
    """Train by the demo's plan, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", metavar="FILE.pt", type=Path, help="checkpoint to write")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="folder of the training, to go on with it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        trained = train_demo(Plan(), options.keep or Path(temporary), watcher=_Printed())
        save_trained(trained, options.output)
    print(json.dumps(describe(trained), indent=2))


if __name__ == "__main__":
    main()
