"""The results file: whole after every measurement, and continued by the next run with the same folder."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.gpu import table
from benchmarks.gpu.supervise import NOT_REACHED, STOPPED, Row
from hstl_fast.files import atomic_file

FORMAT = 1
RESULTS, TABLE, LOG = "results.json", "table.md", "log.txt"
OTHERWISE = "name another folder, or --fresh to start over"


class Unusable(Exception):
    """The folder cannot be written, or holds other files; the message says which."""


class Store:
    """Rows by stage and key, kept in `folder`/results.json.

    A row is a dict with at least `status`. `identity` is what must be equal for two runs to be parts of one. Only what
    this kit wrote is continued or, if `fresh`, thrown away; anything else raises Unusable and stays as it is.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], machine: Mapping[str, Any], fresh: bool) -> None:
        self.folder = folder
        found = _own(folder)
        if not fresh:
            _check_continues(folder / RESULTS, found, identity)
        rows = {} if fresh else found.get("rows", {})
        self.data = {"format": FORMAT, "identity": dict(identity), "machine": dict(machine), "rows": rows}
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._write()
        if fresh:
            for path in (folder / TABLE, folder / LOG):
                with _writing(path):
                    path.unlink(missing_ok=True)

    def rows(self, stage: str) -> Mapping[str, Row]:
        """The stage's rows in the order in which they were first recorded."""
        rows: Mapping[str, Row] = self.data["rows"].get(stage, {})
        return rows

    def put(self, stage: str, key: str, row: Row) -> None:
        """Record a row; the file on disk is replaced at once."""
        self.data["rows"].setdefault(stage, {})[key] = row
        self._write()

    def open(self, stage: str, keys: Iterable[str], sources: str) -> list[str]:
        """The keys that are still to be measured: missing, unfinished, or our own from other sources."""
        rows = self.rows(stage)

        def is_done(key: str) -> bool:
            if key not in rows or rows[key]["status"] in (NOT_REACHED, STOPPED):
                return False
            return bool(rows[key].get("sources", sources) == sources)

        return [key for key in keys if not is_done(key)]

    def write_table(self, text: str) -> None:
        """Replace the table beside the results."""
        _replace(self.folder / TABLE, text)

    def _write(self) -> None:
        _replace(self.folder / RESULTS, json.dumps(_finite(self.data), indent=1, allow_nan=False) + "\n")


def _own(folder: Path) -> dict[str, Any]:
    """The results that the kit wrote into the folder, of any version; empty where there are none."""
    path = folder / RESULTS
    if not os.path.lexists(path):
        for name in (TABLE, LOG):
            if os.path.lexists(folder / name):
                raise Unusable(f"--out {folder} holds a {name} without this kit's {RESULTS}; name another folder")
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = "format" in data and "kit" in data["identity"] and isinstance(data["identity"], dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise Unusable(f"{path} is not a results file of this kit; name another folder")
    return dict(data)


def _check_continues(path: Path, found: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    if not found:
        return
    if found["format"] != FORMAT:
        raise Unusable(f"{path} is of another version (format {found['format']}, now {FORMAT}); {OTHERWISE}")
    for name, value in identity.items():
        if found["identity"].get(name) != value:
            raise Unusable(
                f"--out holds other results ({name} {found['identity'].get(name)}, now {value}); {OTHERWISE}"
            )
    fault = _fault(found.get("rows"))
    if fault is not None:
        raise Unusable(f"{path} is damaged: {fault}; {OTHERWISE}")


def _fault(rows: Any) -> str | None:
    """The reason why the rows cannot be continued and shown, or None."""
    if not isinstance(rows, dict) or not all(isinstance(of_stage, dict) for of_stage in rows.values()):
        return "expected rows by stage and name"
    for stage, of_stage in rows.items():
        for key, row in of_stage.items():
            if not isinstance(row, dict) or not isinstance(row.get("status"), str):
                return f"row {key!r} of {stage} has no status"
            try:
                table.render_rows({stage: {key: row}})
            except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
                return f"row {key!r} of {stage} lacks what its table shows"
    return None


def _replace(path: Path, text: str) -> None:
    with _writing(path), atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror or error}") from None


def _finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON does not have, replaced by their names."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
