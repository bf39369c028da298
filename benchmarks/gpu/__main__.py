"""`python -m benchmarks.gpu --out DIR [--stage STAGE ...] [--minutes M]`: check and measure on one GPU."""

import argparse
import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.gpu import environment, implementations, measured, micro, stages, table, tune
from benchmarks.gpu.stages import OWN, SHARES, STAGES, Setup
from benchmarks.gpu.store import LOG, Store, Unusable
from benchmarks.gpu.supervise import NOT_REACHED, CannotStart, Job, Row, supervise

MINUTES = 9.0
# Seconds at the end of a run that are kept for its table.
RESERVE = 5.0
RIGHT = {"pass", "noted", "ok", "unavailable"}
# Exit codes.
PASSED, NOT_PASSED, NOTHING_RUN, INCOMPLETE = range(4)
# The jobs that were asked for, by stage.
Plan = Mapping[str, Sequence[Job]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages asked for.

    Returns:
        0: every row was reached and every check passed. 1: some check did not pass. 2: nothing could be run, or the run
        had to end. 3: nothing is wrong so far, but some rows were not reached.
    """
    options = _parser().parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes - RESERVE
    try:
        setup = _setup(options)
        plan = _plan(setup, options)
        device = torch.device(setup.device)
        rehearsal = {"rehearsal": True} if setup.rehearse else {}
        identity = {**environment.identity(device, setup.tiny), **rehearsal}
        machine = {**environment.describe(device), **rehearsal}
        store = Store(options.out, identity, machine, options.fresh)
        for stage, jobs in plan.items():
            _use_tiles(options.out / tune.FILE)
            _run(stage, jobs, setup, store, options, deadline(stage, list(plan), time.monotonic(), end))
            _write_measured(store, setup)
        store.write_table(table.render(store.data))
    except (Unusable, CannotStart) as error:
        print(f"benchmarks.gpu: {error}", file=sys.stderr)
        return NOTHING_RUN
    print(table.render(store.data), end="")
    return _verdict(plan, store)


def deadline(stage: str, planned: Sequence[str], now: float, end: float) -> float:
    """The time by which a stage has to end, for those behind it to have their shares of what is left."""
    behind = planned[planned.index(stage) :]
    return now + max(end - now, 0.0) * SHARES[stage] / sum(SHARES[name] for name in behind)


def _plan(setup: Setup, options: argparse.Namespace) -> Plan:
    """The stages' jobs, with only those rows whose key contains the text of --only."""
    chosen = [stage for stage in STAGES if stage in (options.stage or STAGES)]
    everything = {stage: stages.jobs(stage, setup) for stage in chosen}
    plan = {stage: [_matching(job, options.only) for job in jobs] for stage, jobs in everything.items()}
    if not any(job.keys for jobs in plan.values() for job in jobs):
        example = next((key for jobs in everything.values() for job in jobs for key in job.keys), None)
        if example is None:
            raise Unusable(f"there is nothing to {', '.join(chosen)} on this device: no backend has kernels for it")
        raise Unusable(f"--only {options.only!r} is in no row's name of {', '.join(chosen)}; one is {example!r}")
    return plan


def _matching(job: Job, text: str) -> Job:
    return job._replace(keys=tuple(key for key in job.keys if text.lower() in key.lower()))


def _verdict(plan: Plan, store: Store) -> int:
    """The exit code, and a line that says why if it is not 0. A baseline's fault does not count."""
    wrong = 0
    missing: Counter[str] = Counter()
    for stage, jobs in plan.items():
        rows = store.rows(stage)
        for key in (key for job in jobs for key in job.keys):
            status = rows.get(key, {"status": NOT_REACHED})["status"]
            if status == NOT_REACHED:
                missing[stage] += 1
            elif stage == "check" or implementations.is_ours(key):
                wrong += status not in RIGHT
    if wrong:
        print(f"benchmarks.gpu: {wrong} rows that must be right are not", file=sys.stderr)
    if missing:
        left = ", ".join(f"{count} of {stage}" for stage, count in missing.items())
        print(
            f"benchmarks.gpu: {missing.total()} rows were NOT REACHED ({left}); run the same command again to go on",
            file=sys.stderr,
        )
    return NOT_PASSED if wrong else INCOMPLETE if missing else PASSED


def _run(
    stage: str, planned: Sequence[Job], setup: Setup, store: Store, options: argparse.Namespace, end: float
) -> None:
    """One stage within its time; what is in the results already is left as it is."""
    sources = environment.sources(stage)
    left = (job._replace(keys=tuple(store.open(stage, job.keys, sources))) for job in planned)
    jobs = [job for job in left if job.keys]

    def record(key: str, row: Row) -> None:
        ours = {"sources": sources} if stage in OWN or implementations.is_ours(key) else {}
        store.put(stage, key, {**row, **ours})
        if row["status"] != NOT_REACHED:
            print(f"{stage}: {key}: {_short(row)}", flush=True)

    supervise(jobs, functools.partial(stages.execute, setup=setup), record, end, options.out / LOG)
    if stage == "tune":
        tune.write(options.out, store.rows(stage))
    store.write_table(table.render(store.data))


def _write_measured(store: Store, setup: Setup) -> None:
    """The table of the fastest backends so far, beside the results; a rehearsal's is of the generation "cpu"."""
    found = measured.table(store.data["rows"], store.data["machine"].get("generation", "cpu"), setup.tiny)
    if found:
        measured.merge(store.folder / measured.FILE, found)


def _use_tiles(file: Path) -> None:
    """Let the working processes take the tiles that were measured before, unless HSTL_FAST_TILES names others."""
    if file.exists():
        os.environ.setdefault("HSTL_FAST_TILES", str(file.resolve()))


def _short(row: Row) -> str:
    if "device" in row:
        return f"{row['device']['median'] * 1e3:.3f} ms"
    if "rate" in row and row["status"] == "ok":
        return f"{micro.rate(row['rate'], row['unit'])}, {row['rate_over_predicted']:.0%} of the model's"
    return f"{row['status']}, {row['reason']}" if "reason" in row else str(row["status"])


def _setup(options: argparse.Namespace) -> Setup:
    if options.rehearse:
        options.device, options.tiny = "cpu", True
    if options.device == "cuda" and not torch.cuda.is_available():
        raise Unusable("--device cuda needs a GPU that torch can use; there is none (--rehearse tries the kit)")
    if not options.minutes > 0:
        raise Unusable(f"--minutes must be positive, got {options.minutes:g}")
    traces = options.out / "traces" if options.traces else None
    return Setup(options.device, options.tiny, traces, options.rehearse)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="results.json and table.md go here")
    parser.add_argument("--stage", choices=STAGES, nargs="+", help="these stages; without it, all in order")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="M", help="minutes the command may take (9)")
    parser.add_argument(
        "--rehearse", action="store_true", help="everything on the CPU, small, with stand-ins for tools"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose key contains TEXT")
    parser.add_argument("--fresh", action="store_true", help="throw away the results in DIR")
    parser.add_argument("--traces", action="store_true", help="keep the profiles' chrome traces (large)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and few frames, to try the kit itself")
    return parser


if __name__ == "__main__":
    sys.exit(main())
