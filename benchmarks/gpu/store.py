"""The results file: whole after every measurement, and continued by the next run with the same folder."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu.supervise import NOT_REACHED, STOPPED, Row
from hstl_fast.files import whole_file

FORMAT = 1
RESULTS, TABLE, LOG = "results.json", "table.md", "log.txt"


class Unusable(Exception):
    """The folder cannot be written or holds something else; the message says what."""


class Store:
    """Rows by stage and key, kept in `folder`/results.json.

    A row is a dict with at least `status`. `identity` is what must be equal for two runs to be parts of one.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], machine: Mapping[str, Any], fresh: bool) -> None:
        self.folder = folder
        _prepare(folder)
        if fresh:
            for name in (RESULTS, TABLE, LOG):
                (folder / name).unlink(missing_ok=True)
        self.data = _read(folder / RESULTS)
        _check_identity(self.data.get("identity", identity), identity)
        self.data |= {"format": FORMAT, "identity": dict(identity), "machine": dict(machine)}
        self.data.setdefault("rows", {})
        self._write()

    def rows(self, stage: str) -> Mapping[str, Row]:
        """The stage's rows in the order in which they were first recorded."""
        rows: Mapping[str, Row] = self.data["rows"].get(stage, {})
        return rows

    def put(self, stage: str, key: str, row: Row) -> None:
        """Record a row; the file on disk is replaced at once."""
        self.data["rows"].setdefault(stage, {})[key] = row
        self._write()

    def open(self, stage: str, keys: Iterable[str], sources: str) -> list[str]:
        """Those keys that are still to be measured: not there, without an end, or of ours from other sources."""
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


def _prepare(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "probe", "")
        (folder / "probe").unlink()
    except OSError as error:
        raise Unusable(f"--out {folder} cannot be written: {error.strerror}") from None


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        known = isinstance(data, dict) and data["format"] == FORMAT and isinstance(data["rows"], dict)
    except (OSError, ValueError, KeyError):
        known = False
    if not known:
        raise Unusable(f"{path} is not a results file of this version; name another folder, or --fresh to start over")
    return dict(data)


def _check_identity(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        if found.get(name) != value:
            raise Unusable(
                f"--out holds other results ({name} {found.get(name)}, now {value}); name another folder, or --fresh "
                "to start over"
            )


def _replace(path: Path, text: str) -> None:
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
