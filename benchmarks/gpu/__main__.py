"""`python -m benchmarks.gpu --out DIR [--stage check|bench|profile]`: everything to be known about one GPU."""

import argparse
import functools
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu import contestants, environment, stages, table
from benchmarks.gpu.stages import STAGES, Setup
from benchmarks.gpu.store import LOG, Store, Unusable
from benchmarks.gpu.supervise import CannotStart, Job, Row, supervise

BUDGET = 480.0
WRONG = {"fail", "failed", "died", "stopped"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for; 0 if every check passed, 1 if not, 2 if nothing could be run."""
    options = _parser().parse_args(arguments)
    try:
        setup = _setup(options)
        device = torch.device(setup.device)
        store = Store(
            options.out, environment.identity(device, setup.tiny), environment.describe(device), options.fresh
        )
        for stage in [options.stage] if options.stage else STAGES:
            _run(stage, setup, store, options)
    except (Unusable, CannotStart) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return 2
    store.write_table(table.render(store.data))
    print(table.render(store.data), end="")
    wrong = sum(row["status"] in WRONG for row in store.rows("check").values())
    if wrong:
        print(f"benchmarks.gpu: {wrong} checks did not pass", file=sys.stderr)
    return 1 if wrong else 0


def _run(stage: str, setup: Setup, store: Store, options: argparse.Namespace) -> None:
    """One stage within its time; what is in the results already is left as it is."""
    sources = environment.sources()
    left = functools.partial(_left, store, options.only, sources)
    jobs = [job for job in map(left, stages.jobs(stage, setup)) if job.keys]

    def record(key: str, row: Row) -> None:
        ours = {"sources": sources} if stage == "check" or contestants.is_ours(key) else {}
        store.put(stage, key, {**row, **ours})
        if row["status"] != "not reached":
            print(f"{stage}: {key}: {_short(row)}", flush=True)

    deadline = time.monotonic() + options.budget
    supervise(jobs, functools.partial(stages.execute, setup=setup), record, deadline, options.out / LOG)
    store.write_table(table.render(store.data))


def _left(store: Store, only: str, sources: str, job: Job) -> Job:
    keys = store.open(job.stage, job.keys, sources)
    return job._replace(keys=tuple(key for key in keys if only.lower() in key.lower()))


def _short(row: Row) -> str:
    if "device" in row:
        return f"{row['device']['median'] * 1e3:.3f} ms"
    return f"{row['status']}, {row['reason']}" if "reason" in row else str(row["status"])


def _setup(options: argparse.Namespace) -> Setup:
    if options.device == "cuda" and not torch.cuda.is_available():
        raise Unusable(
            "--device cuda needs a GPU that torch can use; there is none (--device cpu --tiny tries the kit)"
        )
    if not options.budget > 0:
        raise Unusable(f"--budget must be positive seconds, got {options.budget:g}")
    return Setup(options.device, options.tiny, options.out / "traces" if options.traces else None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results.json and table.md go here")
    parser.add_argument("--stage", choices=STAGES, help="one stage; without it, all in order")
    parser.add_argument("--budget", type=float, default=BUDGET, metavar="S", help="seconds a stage may take (480)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose key contains TEXT")
    parser.add_argument("--fresh", action="store_true", help="throw away the results in DIR")
    parser.add_argument("--traces", action="store_true", help="keep the profiles' chrome traces (large)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and few frames, to try the kit itself")
    return parser


if __name__ == "__main__":
    sys.exit(main())
