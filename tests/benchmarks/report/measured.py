"""Results as the benchmarks write them, with round numbers in place of measured ones."""

import copy
import json
from pathlib import Path
from typing import Any

from benchmarks.core.names import IN_CLIPS, ONE_THREAD, OURS


def outcome(milliseconds: float, error: float = 2e-7, **more: Any) -> dict[str, Any]:
    """An implementation that was timed; its quartiles are 10 % below and 20 % above."""
    seconds = milliseconds / 1e3
    return {
        "dtype": "float32",
        "errors": {"output": error, "gradient": None},
        "fault": None,
        "unavailable": None,
        "median": seconds,
        "low": 0.9 * seconds,
        "high": 1.2 * seconds,
        "rounds": 5,
        "peak_bytes": None,
        **more,
    }


def untimed(**why: str) -> dict[str, Any]:
    """An implementation without a time: `fault` or `unavailable` says why."""
    return {"dtype": "float32", "errors": None, "fault": None, "unavailable": None, "peak_bytes": None, **why}


def workload(name: str, group: str, implementations: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One entry of the file: 50 GFLOP dense, 40 of a direct convolution, 8 by Winograd; 30 inside the support, 6
    executed; 30 frames of one clip of people, unless `more` says otherwise."""
    info = {
        "workload": name,
        "group": group,
        "preset": name.split(",")[0],
        "training": False,
        "dense_flop": 50_000_000_000,
        "direct_flop": 40_000_000_000,
        "winograd_flop": 8_000_000_000,
        "inside_flop": 30_000_000_000,
        "executed_flop": 6_000_000_000,
        "silhouettes": "people",
        "least_bytes": None,
        "clips": 1,
        "frames": 30,
        "threads": 2,
        "scaling": None,
        "bounds": {"output": 5e-5, "gradient": None},
        "implementations": implementations,
    }
    return {"extra_info": {**info, **more}}


def results() -> dict[str, Any]:
    """A small run of every group; presets are out of order, as in a real run."""
    narrow = {"dtype": "bfloat16"}
    backward = {"errors": {"output": 1e-5, "gradient": 4e-4}}
    implementations = {
        "eager": outcome(600, peak_bytes=300 * 2**20),
        "eager bf16 autocast": outcome(125, 3e-3, **narrow),
        "onnxruntime": untimed(unavailable="onnxruntime is not installed"),
        "openvino": outcome(240, peak_bytes=150 * 2**20),
        "openvino bf16": untimed(fault="output is off by 3.0e-01, 0.03 allowed", **narrow),
        "openvino int8": outcome(100, 6e-2, dtype="int8", rank_changes={"changed": 4, "probes": 24}),
        OURS: outcome(200, 1e-7, peak_bytes=75 * 2**20),
    }
    on_walkers = {"silhouettes": "walkers", "executed_flop": 5_000_000_000}
    alone = {"silhouettes": None, "inside_flop": None, "preset": "casia-b"}
    layer = {
        **alone,
        "dense_flop": 5_000_000_000,
        "direct_flop": 4_000_000_000,
        "winograd_flop": 800_000_000,
        "executed_flop": 800_000_000,
        "least_bytes": 25_000_000,
    }
    none = dict.fromkeys(("dense_flop", "direct_flop", "winograd_flop", "executed_flop"), 0)
    pooling = {**alone, **none, "least_bytes": 1_000_000}
    return {
        "machine_info": {"hstl_fast": _MACHINE},
        "commit_info": {"id": "0123456789abcdef", "dirty": False, "time": "2026-11-21T09:00:00+00:00"},
        "datetime": "2026-11-22T20:25:29+00:00",
        "peaks": {
            "float32_multiply_adds_gflop_per_second": 200.0,
            "float32_library_gflop_per_second": 150.0,
            "float32_library": "torch.mm",
            "bfloat16_multiply_adds_gflop_per_second": 300.0,
            "bfloat16_library_gflop_per_second": 400.0,
            "bfloat16_library": "torch.mm",
            "multiply_adds_missing": None,
            "copy_gbyte_per_second": 40.0,
        },
        "benchmarks": [
            workload("gait3d, 30 frames", "embedding", {"eager": outcome(400), OURS: outcome(250)}),
            workload("casia-b, 30 frames", "embedding", implementations, division=_DIVISION),
            workload(
                "casia-b, 30 frames, walkers",
                "embedding",
                {"eager": outcome(700), OURS: outcome(160)},
                **on_walkers,
            ),
            workload(
                "casia-b, 12 + 30 + 57 frames",
                "throughput",
                {"eager": outcome(1980), OURS: outcome(990)},
                frames=99,
                clips=3,
                dense_flop=160_000_000_000,
                direct_flop=120_000_000_000,
            ),
            workload(
                "casia-b, 4 x 30 frames",
                "training step",
                {
                    "eager": outcome(3900, **backward, peak_bytes=1000 * 2**20),
                    OURS: outcome(3000, **backward, peak_bytes=450 * 2**20),
                },
                training=True,
                frames=120,
                clips=4,
            ),
            workload(
                "casia-b, 64 of 15 to 120 frames",
                "variations",
                {OURS: outcome(1000), IN_CLIPS: outcome(980)},
                frames=4320,
            ),
            workload(
                "casia-b, 30 frames, walkers, threads: 2",
                "variations",
                {OURS: outcome(200), ONE_THREAD: outcome(380)},
                **on_walkers,
            ),
            *(
                workload(
                    f"casia-b, {frames} frames",
                    "scaling",
                    {"eager": outcome(20 * frames), OURS: outcome(8 * frames)},
                    frames=frames,
                    scaling={"axis": "frames", "value": frames},
                )
                for frames in (60, 10)
            ),
            workload(
                "arme 32-32 [40,24] 30x64x44",
                "arme forward",
                {"eager": outcome(100), OURS: outcome(50)},
                **layer,
            ),
            workload(
                "arme 32-64 [40,24] 30x64x44",
                "arme forward",
                {"eager": outcome(400), OURS: outcome(50)},
                **layer,
            ),
            workload(
                "strip_pool 128-128",
                "strip_pool forward",
                {"eager": outcome(3), "torch.compile": outcome(2.4), OURS: outcome(2)},
                **pooling,
            ),
            workload(
                "arme 32-32 [40,24] 30x64x44",
                "arme forward and backward",
                {"eager": outcome(300, **backward), OURS: outcome(100, **backward)},
                **layer,
                training=True,
            ),
        ],
    }


def save(folder: Path, data: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(data), encoding="utf-8")


def of_another_processor(**processor: Any) -> dict[str, Any]:
    """The results where everything takes half as long and the processor has these numbers."""
    data = results()
    data["machine_info"] = {"hstl_fast": {**_MACHINE, "cpu": "Abacus 5000", "processor": processor}}
    for entry in data["benchmarks"]:
        for row in entry["extra_info"]["implementations"].values():
            if row.get("median"):
                row.update({name: row[name] / 2 for name in ("median", "low", "high")})
    return data


def only(data: dict[str, Any], *groups: str) -> dict[str, Any]:
    """The results with the workloads of these groups alone."""
    data = copy.deepcopy(data)
    data["benchmarks"] = [entry for entry in data["benchmarks"] if entry["extra_info"]["group"] in groups]
    return data


_DIVISION = {
    "total": 0.2,
    "rounds": 15,
    "parts": [
        {"name": "stage 1, 1-32", "seconds": 0.03, "executed_flop": 3_000_000_000},
        {"name": "stage 2, 32-32", "seconds": 0.15, "executed_flop": 15_000_000_000},
        {"name": "everything else", "seconds": 0.02, "executed_flop": None},
    ],
}
_MACHINE = {
    "cpu": "Abacus 3000",
    "cores": 2,
    "threads": 2,
    "torch": "2.13.0",
    "native_cpu": {"loaded": True, "instruction_set": "avx512"},
}
