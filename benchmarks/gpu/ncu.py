"""Stage ncu: what Nsight Compute says about the kernels of casia-b's convolutions; without it, torch's profiler."""

import csv
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import drive, implementations, programs
from benchmarks.gpu.supervise import Job, Reporter, Row

STAGE = "ncu"
# Seconds for the kernels of one layer.
LONGEST = 120.0
# The metrics that are read where the GPU has them; the names of the tensor cores' differ between generations.
METRICS = (
    "gpu__time_duration.sum",
    "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_op_hmma_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__pipe_tensor_op_gmma_cycles_active.avg.pct_of_peak_sustained_active",
    "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_active",
    "sm__warps_active.avg.pct_of_peak_sustained_active",
    "lts__t_sectors.avg.pct_of_peak_sustained_elapsed",
    "lts__t_bytes.sum.per_second",
    "dram__bytes.sum.per_second",
    "l1tex__data_pipe_lsu_wavefronts_mem_shared.avg.pct_of_peak_sustained_elapsed",
    "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
)
# Those of a launch belong to every GPU and are in no list.
LAUNCH = (
    *("launch__registers_per_thread", "launch__shared_mem_per_block_dynamic", "launch__grid_size"),
    *("launch__block_size", "launch__waves_per_multiprocessor"),
)
# What torch's profiler says of a kernel.
PROFILER = (
    *("registers per thread", "shared memory", "est. achieved occupancy %", "blocks per SM", "warps per SM"),
    *("grid", "block"),
)


def jobs(device: torch.device, tiny: bool) -> list[Job]:
    """A job for each backend and layer."""
    layers = drive.layers(published=device.type == "cuda")
    names = implementations.with_kernels(device)
    return [Job(STAGE, layer, (f"{layer} | hstl_fast {name}",), 2 * LONGEST + 20) for name in names for layer in layers]


def execute(job: Job, reporter: Reporter, device: torch.device, rehearse: bool) -> None:
    """Read the metrics of one layer's kernels on one backend."""
    (key,) = job.keys
    reporter.started(key)
    options = ["--device", device.type, "--only", job.name, *(["--published"] if device.type == "cuda" else [])]
    target = programs.module("drive", key.removeprefix(f"{job.name} | hstl_fast "), *options)
    try:
        tool = programs.module("stand_ins", "ncu") if rehearse else [programs.find("ncu")]
        row = _by_ncu(tool, target)
    except programs.MissingProgram as error:
        row = {"status": "unavailable", "reason": str(error)}
    except subprocess.TimeoutExpired:
        row = {"status": "stopped", "reason": f"ncu was stopped after {LONGEST:.0f} seconds"}
    if row["status"] != "ok":
        row = {**_by_profiler(target), "ncu": row["reason"]}
    reporter.finished(key, row)


def _by_ncu(tool: list[str], target: list[str]) -> Row:
    known = programs.run([*tool, "--query-metrics"], LONGEST)
    bases = {line.split()[0] for line in known.stdout.splitlines() if line.split()}
    wanted = [name for name in METRICS if name.split(".")[0] in bases]
    options = ["--csv", "--page", "raw", "--clock-control", "none", "--profile-from-start", "off"]
    options += ["--metrics", ",".join([*wanted, *LAUNCH])]
    done = programs.run([*tool, *options, *target], LONGEST)
    kernels = read(done.stdout.splitlines())
    if not kernels:
        return {"status": "failed", "reason": programs.last_line(done.stdout + done.stderr) or "ncu said nothing"}
    return {"status": "ok", "source": "ncu", "kernels": kernels}


def read(lines: Iterable[str]) -> list[dict[str, Any]]:
    """The kernels in the order of their launches, from the comma-separated lines that begin with "ID"."""
    table = iter(lines)
    header = next((line for line in table if line.startswith('"ID"')), None)
    if header is None:
        return []
    names = next(csv.reader([header]))
    rows = list(csv.reader(line for line in table if line.startswith('"')))
    units = dict(zip(names, rows[0], strict=True)) if rows else {}
    found = []
    for row in (dict(zip(names, row, strict=True)) for row in rows[1:]):
        metrics = {f"{name} {units[name]}".strip(): _number(row[name]) for name in (*METRICS, *LAUNCH) if name in row}
        found.append({"name": row["Kernel Name"][:160], **metrics})
    return found


def _number(text: str) -> float | str:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text


def _by_profiler(target: list[str]) -> Row:
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder, "trace.json")
        done = programs.run([*target, "--trace", str(trace)], LONGEST)
        if done.returncode or not trace.exists():
            return {"status": "failed", "reason": programs.last_line(done.stderr) or f"exit code {done.returncode}"}
        kernels = of_trace(json.loads(trace.read_text(encoding="utf-8")))
    if not kernels:
        return {"status": "unavailable", "reason": "torch's profiler recorded no kernel"}
    return {"status": "ok", "source": "torch.profiler", "kernels": kernels}


def of_trace(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """The kernels of a chrome trace that torch's profiler wrote."""
    return [
        {
            "name": event["name"][:160],
            "microseconds": event["dur"],
            **{name: event["args"][name] for name in PROFILER if name in event.get("args", {})},
        }
        for event in trace["traceEvents"]
        if event.get("cat") == "kernel"
    ]
