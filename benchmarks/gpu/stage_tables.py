"""The tables of the stages that are neither tests nor workloads."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.core import markdown
from benchmarks.gpu.micro import rate
from benchmarks.gpu.supervise import Row

# Kernels that are shown of each layer.
KERNELS = 4
# Parts of the names of metrics that are shown of a kernel.
SHOWN = {
    "time": ("gpu__time_duration", "microseconds"),
    "tensor": ("pipe_tensor",),
    "L2": ("lts__t_sectors",),
    "shared": ("wavefronts_mem_shared",),
    "conflicts": ("bank_conflicts",),
    "registers": ("registers",),
    "occupancy": ("warps_active", "achieved occupancy"),
}


def counts(rows: Mapping[str, Row]) -> str:
    """The number of rows of each status."""
    found = Counter(row["status"] for row in rows.values())
    return f"{len(rows)} rows: " + ", ".join(f"{n} {status}" for status, n in found.items())


def _micro(rows: Mapping[str, Row]) -> Iterator[str]:
    yield from _heading("micro: rates that decide the kernels' design", rows)
    measured = {name: row for name, row in rows.items() if "rate" in row}
    cells = [
        (
            name,
            rate(row["rate"], row["unit"]),
            rate(row["predicted"], row["unit"]),
            f"{row['rate_over_predicted']:.0%}",
            f"{row['clock_hz'] / 1e6:.0f}",
            row["status"],
        )
        for name, row in measured.items()
    ]
    if cells:
        yield from markdown.table(("", "measured", "predicted", "ratio", "clock MHz", ""), cells)
    yield from _reasons({name: row for name, row in rows.items() if name not in measured})


def _sanitizer(rows: Mapping[str, Row]) -> Iterator[str]:
    yield from _heading("sanitizer: compute-sanitizer on small shapes", rows)
    ran = {key: row for key, row in rows.items() if "reports" in row}
    cells = [
        (key, str(row["cases"]), str(row["reports"]), str(row["reports_on_others"]), row["status"])
        for key, row in ran.items()
    ]
    if cells:
        yield from markdown.table(("", "cases", "reports on ours", "on others", ""), cells)
    yield from _reasons({key: row for key, row in rows.items() if row["status"] != "ok"})


def _cold(rows: Mapping[str, Row]) -> Iterator[str]:
    yield from _heading("cold: the first call of a new process, in ms", rows)
    ran = {key: row for key, row in rows.items() if row["status"] == "ok"}
    cells = [(key, *_calls(row["fresh"]), *_calls(row.get("cached"))) for key, row in ran.items()]
    if cells:
        headers = ("", "first", "second", "first, with caches", "second, with caches")
        yield from markdown.table(headers, cells)
    yield from _reasons({key: row for key, row in rows.items() if key not in ran})


def _calls(seconds: Mapping[str, float] | None) -> list[str]:
    return ["-" if seconds is None else f"{seconds[call] * 1e3:.1f}" for call in ("first", "second")]


def _graphs(rows: Mapping[str, Row]) -> Iterator[str]:
    yield from _heading("graphs: embedding by CUDA graphs and layer by layer, wall ms", rows)
    ran = {key: row for key, row in rows.items() if row["status"] == "ok"}
    cells = [
        (
            key,
            *(f"{row[way]['median'] * 1e3:.3f}" for way in ("layers", "graph")),
            f"{row['speedup']:.2f}",
            "the same" if row["identical"] else f"{row['error']:.0e}",
        )
        for key, row in ran.items()
    ]
    if cells:
        yield from markdown.table(("", "layers", "graph", "speedup", "difference"), cells)
    yield from _reasons({key: row for key, row in rows.items() if key not in ran})


def ncu(rows: Mapping[str, Row]) -> Iterator[str]:
    """The kernels of every layer that take the most time."""
    yield from _heading("ncu: the convolutions' kernels", rows)
    cells = []
    for key, row in rows.items():
        kernels = sorted(row.get("kernels", ()), key=lambda kernel: -_time(kernel))[:KERNELS]
        cells += [
            (f"{key}: {kernel['name'][:60]}", *(_cell(kernel, *parts) for parts in SHOWN.values()), row["source"])
            for kernel in kernels
        ]
    if cells:
        yield from markdown.table(("", *SHOWN, ""), cells)
    yield from _reasons({key: row for key, row in rows.items() if row["status"] != "ok"})
    yield from (f"- {key}: no ncu, {row['ncu']}" for key, row in rows.items() if "ncu" in row)


def _cell(kernel: Mapping[str, Any], *parts: str) -> str:
    value = next((value for name, value in kernel.items() if any(part in name for part in parts)), None)
    return "-" if value is None else f"{value:.4g}" if isinstance(value, (int, float)) else str(value)


def _time(kernel: Mapping[str, Any]) -> float:
    value = next((v for name, v in kernel.items() if any(part in name for part in SHOWN["time"])), 0.0)
    return value if isinstance(value, (int, float)) else 0.0


def _heading(title: str, rows: Mapping[str, Row]) -> Iterator[str]:
    yield from ("", f"## {title}", "", counts(rows), "")


def _reasons(rows: Mapping[str, Row]) -> Iterator[str]:
    yield from (f"- {key}: {row['status']}, {row.get('reason', 'no time was left')}" for key, row in rows.items())


# The stages whose tables come before those of the workloads.
BEFORE: dict[str, Callable[[Mapping[str, Row]], Iterator[str]]] = {
    "micro": _micro,
    "sanitizer": _sanitizer,
    "cold": _cold,
    "graphs": _graphs,
}
