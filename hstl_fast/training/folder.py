"""The folder of a training: its lock, its checkpoints, and its logs as lines of JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hstl_fast.files import atomic_file, remove_abandoned

LOG, EVALUATION, CONFIG = "log.jsonl", "evaluation.jsonl", "config.yaml"
_PREFIX, _SUFFIX = "step-", ".pt"
# The folders that this process trains in: a lock on a file keeps out other processes only.
_in_use: set[str] = set()


def checkpoint_path(output: Path, step: int) -> Path:
    """Name the checkpoint of a step.

    Args:
        output: The folder of the training.
        step: Number of steps that were made.

    Returns:
        The file.
    """
    return output / "checkpoints" / f"{_PREFIX}{step:08d}{_SUFFIX}"


def step_of(checkpoint: Path) -> int:
    """Read the step of a checkpoint off its name.

    Args:
        checkpoint: A file that `checkpoint_path` named.

    Returns:
        Number of steps that were made.
    """
    return int(checkpoint.name[len(_PREFIX) : -len(_SUFFIX)])


def checkpoints_in(output: Path) -> list[Path]:
    """List the checkpoints of a training.

    Args:
        output: The folder of the training.

    Returns:
        The files, the newest first.
    """
    found = {}
    for path in (output / "checkpoints").glob(f"{_PREFIX}*{_SUFFIX}"):
        number = path.name[len(_PREFIX) : -len(_SUFFIX)]
        if number.isdecimal():
            found[int(number)] = path
    return [found[step] for step in sorted(found, reverse=True)]


def remove_old_checkpoints(output: Path, keep: int) -> None:
    """Remove all checkpoints but the newest.

    Args:
        output: The folder of the training.
        keep: How many stay.
    """
    for path in checkpoints_in(output)[keep:]:
        path.unlink(missing_ok=True)


@contextmanager
def locked(output: Path) -> Iterator[None]:
    """Make the folder of a training, and keep other trainings out of it while the block runs.

    A lock goes with its process, however that ends. What a process that was killed had begun to write is removed.

    Args:
        output: The folder.

    Yields:
        Nothing.

    Raises:
        RuntimeError: Another training writes into the folder.
        OSError: The folder cannot be made.
    """
    (output / "checkpoints").mkdir(parents=True, exist_ok=True)
    name = os.path.realpath(output)
    if name in _in_use:
        raise RuntimeError(_taken(output))
    _in_use.add(name)
    try:
        with (output / ".lock").open("a") as file:
            _lock(file.fileno(), output)
            for draft in (output / "checkpoints").glob(f".{_PREFIX}*"):
                shutil.rmtree(draft, ignore_errors=True)
            for written in (CONFIG, LOG, EVALUATION):
                remove_abandoned(output / written)
            yield
    finally:
        _in_use.discard(name)


def _lock(descriptor: int, output: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    try:
        # This kind of lock is not inherited by processes that read for a loader, which outlive this one by seconds.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RuntimeError(_taken(output)) from None


def _taken(output: Path) -> str:
    return f"{output}: expected a folder that no other training writes into, got one that does; wait for it or stop it"


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Write a line at the end of a log.

    Args:
        path: The log.
        entry: The line's fields.

    Raises:
        OSError: The log cannot be written; the error names it.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError as error:  # that of a full disk names no file
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a log; a line that was being written when the process was killed is left out.

    Args:
        path: The log.

    Returns:
        The fields of each line; nothing if there is no log.
    """
    if not path.exists():
        return []
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            found.append(entry)
    return found


def cut_back(output: Path, step: int) -> None:
    """Take lines of later steps out of the logs.

    Args:
        output: The folder of the training.
        step: Number of steps that were made.
    """
    for path in (output / LOG, output / EVALUATION):
        if path.exists():
            kept = [json.dumps(entry) + "\n" for entry in read_lines(path) if entry["step"] <= step]
            with atomic_file(path) as draft:
                draft.write_text("".join(kept), encoding="utf-8")
