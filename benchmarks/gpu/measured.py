"""The table of the fastest backends, from the times of the operators: what `auto` follows on such a GPU.

`python -m benchmarks.gpu.measured DIR/results.json` merges a run's table into the package's; the kit's stage of this
name writes it to DIR/measured.json only.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from benchmarks.gpu import implementations, suite
from benchmarks.gpu.suite import Entry
from benchmarks.gpu.supervise import Row
from hstl_fast.backends import measured
from hstl_fast.files import atomic_file

FILE = "measured.json"
Table = dict[str, dict[str, float]]
# Rows by stage and key.
Rows = Mapping[str, Mapping[str, Row]]
# The arithmetic that counts for a type of the input: float32 is multiplied as torch does unless it is asked otherwise.
COUNTED = ("bfloat16 autocast", "float16 autocast", "tf32")
BAD = ("fail", "failed", "died", "stopped", "wrong")


def table(rows: Rows, generation: str, tiny: bool) -> Table:
    """Seconds of a training step of every kind of layer, by backend, of all that gave right results.

    A backend counts for a kind if it was measured on all layers of the kind that any backend was.
    """
    seconds: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    refused = _refused(rows.get("check", {}))
    for entry in suite.entries(tiny):
        if entry.layer is None or not entry.group.endswith("backward"):
            continue
        for row in _of_entry(entry, rows.get("bench", {})):
            backend = row["backends"][entry.operator]
            if row["status"] == "ok" and row["arithmetic"] in COUNTED and (entry.operator, backend) not in refused:
                found = seconds[key(entry, row, generation)][backend]
                found[entry.name] = min(row["device"]["median"], found.get(entry.name, float("inf")))
    return {kind: complete for kind, by_backend in seconds.items() if (complete := _complete(by_backend))}


def key(entry: Entry, row: Row, generation: str) -> str:
    """The key of an entry's kind of layer in the package's table."""
    layer, operator = entry.layer, entry.operator
    assert layer is not None
    assert operator is not None
    has_both = layer.kind == "arme" or (layer.kind == "astp" and layer.macs > 0)
    widths = (layer.c_in, layer.c_out) if has_both else (layer.c_in,)
    dtype = torch.float32 if row["precision"] == "tf32" else getattr(torch, row["precision"])
    return measured.key(generation, operator, dtype, widths)


def merge(path: Path, found: Table) -> None:
    """Put a table's entries into a file, beside those of other kinds."""
    old: Table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    text = json.dumps({**old, **found}, indent=1, sort_keys=True)
    with atomic_file(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Merge the table of a run into the package's.

    Returns:
        0, or 1 if the run has nothing to merge; a line says why.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if len(given) != 1:
        print("usage: python -m benchmarks.gpu.measured DIR/results.json", file=sys.stderr)
        return 1
    data = json.loads(Path(given[0]).read_text(encoding="utf-8"))
    name = data["machine"].get("generation")
    found = {} if name is None or data["identity"]["tiny"] else table(data["rows"], name, tiny=False)
    if not found:
        print("there is nothing to merge: no operator was measured on a GPU in its published size", file=sys.stderr)
        return 1
    merge(measured.FILE, found)
    print(f"{len(found)} kinds of layers on {name} are in {measured.FILE.name} now")
    return 0


def _of_entry(entry: Entry, rows: Mapping[str, Row]) -> Iterator[Row]:
    """The rows of our own implementations of an entry that say which backends they ran on."""
    for key_, row in rows.items():
        if key_.rpartition(" | ")[0] == entry.name and implementations.is_ours(key_) and row.get("backends"):
            yield row


def _refused(rows: Mapping[str, Row]) -> set[tuple[str, str]]:
    """The pairs of operator and backend of which some test failed."""
    found = set()
    for key_, row in rows.items():
        parts = key_.partition("[")[2].removesuffix("]").split(" | ")
        if row["status"] in BAD and len(parts) > 1:
            operator = parts[0].split()[0].rstrip(",")
            found.add(("astp" if operator == "strip_pool" else operator, parts[-1]))
    return found


def _complete(by_backend: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    layers = set().union(*by_backend.values())
    return {name: sum(found.values()) for name, found in sorted(by_backend.items()) if set(found) == layers}


if __name__ == "__main__":
    sys.exit(main())
