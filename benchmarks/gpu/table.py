"""The results as a short text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from benchmarks.core import markdown
from benchmarks.gpu import stage_tables
from benchmarks.gpu.compare import PEAKS
from benchmarks.gpu.peaks import COPY
from benchmarks.gpu.supervise import NOT_REACHED, Row

COLUMNS = (
    *("device ms", "quartiles", "wall ms", "clips/s", "TFLOP/s", "of peak"),
    *("peak MiB", "error", "gradient", "cuDNN", "first s"),
)
# Kernels that are shown of each profile.
KERNELS = 5


def render(data: Mapping[str, Any]) -> str:
    """Markdown from what `results.json` holds."""
    return _text(_machine(data["machine"])) + render_rows(data["rows"])


def render_rows(rows: Mapping[str, Mapping[str, Row]]) -> str:
    """The part about what was measured, stage by stage."""
    parts = []
    if rows.get("check"):
        parts.append(_check(rows["check"]))
    parts += [render(rows[stage]) for stage, render in stage_tables.BEFORE.items() if rows.get(stage)]
    if rows.get("bench"):
        parts += _bench(rows["bench"])
    if rows.get("ncu"):
        parts.append(stage_tables.ncu(rows["ncu"]))
    if rows.get("profile"):
        parts.append(_profile(rows["profile"]))
    return "".join(map(_text, parts))


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _machine(machine: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {machine['device']}"
    yield ""
    if machine.get("rehearsal"):
        yield "**A rehearsal**: small sizes on the CPU, and stand-ins for the tools; no figure means anything."
        yield ""
    smi = machine["nvidia_smi"]
    driver = smi.get("driver_version", smi.get("unavailable"))
    yield (
        f"driver {driver}, CUDA {machine['cuda']}, torch {machine['torch']}, cuDNN {machine['cudnn']}, "
        f"triton {machine['triton']}; hstl_fast {machine['hstl_fast']}, commit {machine['commit']}, "
        f"sources {machine['sources']}"
    )
    missing = {row["backend"]: row["reason"] for row in machine["backends"] if not row["available"]}
    for backend, reason in missing.items():
        yield f"- backend {backend}: {reason}"


def _check(rows: Mapping[str, Row]) -> Iterator[str]:
    yield ""
    yield "## check: pytest on this device"
    yield ""
    yield stage_tables.counts(rows)
    groups: dict[tuple[str, str, str], Counter[str]] = {}
    for key, row in rows.items():
        groups.setdefault(_parts(key), Counter())[row["status"]] += 1
    yield ""
    shown = [(*parts, ", ".join(f"{n} {status}" for status, n in counts.items())) for parts, counts in groups.items()]
    yield from markdown.table(("test", "backend", "arithmetic", "rows"), shown)
    bad = {key: row for key, row in rows.items() if row["status"] in ("fail", "failed", "died", "stopped")}
    suspects = {key: row for key, row in rows.items() if row.get("torch_is_wrong")}
    waiting = {key: row for key, row in rows.items() if row.get("synchronisations")}
    yield ""
    yield from (f"- {key}: {row['status']}, {row.get('reason')}" for key, row in bad.items())
    yield from (f"- {key}: torch itself is wrong, {row['torch_is_wrong']}" for key, row in suspects.items())
    yield from (f"- {key}: {row['synchronisations']} waits for the device" for key, row in waiting.items())


def _parts(key: str) -> tuple[str, str, str]:
    """Function, backend and arithmetic of a test's name, which ends in `[... | arithmetic | backend]` or in neither."""
    test, _, parameters = key.removesuffix("]").partition("[")
    function = test.rpartition("::")[2]
    *rest, mode, backend = ["", "", *parameters.split(" | ")]
    return (function, backend, mode) if len(rest) > 2 else (function, "-", "-")


def _bench(rows: Mapping[str, Row]) -> list[Iterator[str]]:
    groups: dict[str, dict[str, Row]] = {}
    for key, row in rows.items():
        workload, name = key.split(" | ", 1)
        groups.setdefault(workload, {})[name] = row
    parts = [iter(["", "## bench", "", stage_tables.counts(rows)])]
    peaks = groups.pop(PEAKS, {})
    if peaks:
        parts.append(_peaks(peaks))
    reached = {
        name: group for name, group in groups.items() if {row["status"] for row in group.values()} != {NOT_REACHED}
    }
    parts += [_workload(name, group, peaks) for name, group in reached.items()]
    if len(reached) < len(groups):
        parts.append(iter(["", "Not reached:", "", *(f"- {name}" for name in groups if name not in reached)]))
    return parts


def _peaks(rows: Mapping[str, Row]) -> Iterator[str]:
    yield ""
    for name, row in rows.items():
        if "flop_per_second" in row:
            yield f"- {name}: {row['flop_per_second'] / 1e12:.4g} TFLOP/s"
        elif "byte_per_second" in row:
            yield f"- {name}: {row['byte_per_second'] / 1e9:.4g} GB/s"
        else:
            yield f"- {name}: {row['status']}, {row.get('reason', 'no time was left')}"


def _workload(name: str, rows: Mapping[str, Row], peaks: Mapping[str, Row]) -> Iterator[str]:
    yield ""
    yield f"### {name}"
    yield ""
    ordered = sorted(rows.items(), key=lambda item: item[1]["status"] != "ok")
    yield from markdown.table(("", *COLUMNS), [(name, *_figures(row, peaks)) for name, row in ordered])


def _figures(row: Row, peaks: Mapping[str, Row]) -> tuple[str, ...]:
    if row["status"] != "ok":
        return f"{row['status']}: {row.get('reason', 'no time was left')}", *[""] * (len(COLUMNS) - 1)
    device, memory = row["device"], row["peak_bytes"]
    return (
        f"{device['median'] * 1e3:.3f}",
        f"{device['low'] * 1e3:.3f} - {device['high'] * 1e3:.3f}",
        f"{row['wall']['median'] * 1e3:.3f}",
        f"{row['sequences_per_second']:.1f}",
        f"{row['dense_flop_per_second'] / 1e12:.3g}",
        _share(row, peaks),
        "-" if memory is None else f"{memory['allocated'] / 2**20:.0f}",
        _error(row["errors"]["output"]),
        _error(row["errors"]["gradient"]),
        ", ".join(name for name in ("benchmark", "deterministic") if row[f"cudnn_{name}"]) or "-",
        f"{row['seconds_to_first_answer']:.1f}",
    )


def _share(row: Row, peaks: Mapping[str, Row]) -> str:
    """Share of the rate that limits it: copies, where its bytes are known, else matrix products in its precision."""
    name, unit = (
        (COPY, "byte_per_second") if row["byte_per_second"] else (f"{row['precision']} product", "flop_per_second")
    )
    most = peaks.get(name, {}).get(unit)
    rate = row["byte_per_second"] or row["dense_flop_per_second"]
    return "-" if most is None else f"{rate / most:.0%}"


def _error(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.0e}"


def _profile(rows: Mapping[str, Row]) -> Iterator[str]:
    yield ""
    yield "## profile: where the device's time goes"
    yield ""
    yield stage_tables.counts(rows)
    for key, row in rows.items():
        yield ""
        if row["status"] != "ok":
            yield f"{key}: {row['status']}, {row.get('reason', 'no time was left')}"
            continue
        busy = row["kernel_seconds"] / row["wall_seconds"]
        yield f"{key}: {row['kernel_seconds'] / row['steps'] * 1e3:.3f} ms of kernels a step, {busy:.0%} of the time"
        for kernel in row["kernels"][:KERNELS]:
            yield f"- {kernel['share']:.1%} {kernel['name'][:90]} ({kernel['calls'] // row['steps']} a step)"
