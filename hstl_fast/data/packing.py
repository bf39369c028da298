"""Packing: a data set of many files becomes one packed file, by several processes, resumable at any moment."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hstl_fast.data.chunks import CHUNK, CODEC, LEVEL, arrow
from hstl_fast.data.lost import LostSourceError, refuse_lost_folders
from hstl_fast.data.merging import merge
from hstl_fast.data.pack_format import FORMAT
from hstl_fast.data.parts import BATCH_BYTES, Job, is_current, read_record, write_whole
from hstl_fast.data.sequences import Sequences
from hstl_fast.data.workers import run_parts
from hstl_fast.progress import Progress, silent
from hstl_fast.silhouettes.left_out import LeftOut
from hstl_fast.version import __version__

PART_SIZE = 64
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Packing(NamedTuple):
    """The result of packing.

    Attributes:
        path: The packed file.
        sequences: The sequences in it.
        frames: Their frames.
        num_bytes: The size of the file.
        digest: The digest of the content.
        left_out: Sequences that could not be read, and what was left out of those that could, in their order.
        reused: Sequences that an earlier, interrupted run had finished.
        reused_frames: Their frames.
        seconds: How long it took.
        notes: Sentences about what an earlier run left behind.
    """

    path: Path
    sequences: int
    frames: int
    num_bytes: int
    digest: str
    left_out: tuple[LeftOut, ...]
    reused: int
    reused_frames: int
    seconds: float
    notes: tuple[str, ...]


def pack(
    sequences: Sequences,
    path: str | os.PathLike[str],
    *,
    workers: int | None = None,
    strict: bool = False,
    part_size: int = PART_SIZE,
    start_method: str | None = None,
    progress: Progress = silent,
) -> Packing:
    """Pack a data set into one file, which `open_packed` reads.

    The file is an Arrow IPC file with a row for each sequence and the frames in chunks compressed by LZ4. It
    appears complete or not at all. Finished parts are kept in a hidden folder beside it until then, so that a run
    that was interrupted, or killed, goes on where it was and gives the same bytes. The folder takes up to the size of
    the file.

    Args:
        sequences: The data set. Those that cannot be read are left out, if they are up to a tenth, or four.
        path: The file to write; an earlier one is replaced at the end.
        workers: Processes that read and compress; by default the cores this process may use.
        strict: Stop at a sequence that cannot be read, or of which frames are left out.
        part_size: Sequences of a part, of which each process loses one at most when it is killed.
        start_method: `fork`, `spawn` or `forkserver`; by default that of `multiprocessing`.
        progress: Called with `packing` and sequences, then with `writing` and parts.

    Returns:
        What was packed.

    Raises:
        ValueError: There are no sequences, or an argument is out of its range.
        SilhouetteError: A sequence cannot be read, and `strict` is given; or more of them than are left out.
        BlockingIOError: Another process packs to the same path.
        OSError: The disk is full or cannot be written, or a sequence cannot be opened; an earlier file stays.
        RuntimeError: A process was killed, for example for want of memory.
        ImportError: pyarrow is missing, from the extra `[data]`.
    """
    arrow()
    if not len(sequences):
        raise ValueError(f"sequences: expected at least one to pack, got none in {sequences.source}")
    for name, value in (("workers", workers), ("part_size", part_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name}: expected 1 or more, got {value}")
    refuse_lost_folders(sequences)
    begun, target = time.perf_counter(), Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path}: expected a file to write, got a folder")
    with _errors_about(Path(path), target), _own_folder(Path(path), target) as folder:
        job = Job(sequences, folder, part_size, strict)
        notes = _begin(job)
        finished = _finished_parts(job, notes, progress)
        missing = [part for part in range(job.num_parts) if part not in finished]
        reused = sum(len(job.span(part)) for part in finished)
        run_parts(job, missing, reused, workers or _cores(), start_method, progress)
        merged = merge(job, target, progress)
        shutil.rmtree(folder, ignore_errors=True)
    return Packing(
        path=Path(path),
        sequences=merged.sequences,
        frames=merged.frames,
        num_bytes=target.stat().st_size,
        digest=merged.digest,
        left_out=merged.left_out,
        reused=reused,
        reused_frames=sum(finished.values()),
        seconds=time.perf_counter() - begun,
        notes=tuple(notes),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parts_folder(path: str | os.PathLike[str]) -> Path:
    """Name the folder in which the parts of a packed file are until it is finished.

    Args:
        path: The packed file.

    Returns:
        A hidden folder beside it.
    """
    target = Path(os.path.realpath(path))
    return target.with_name(f".{target.name[:200]}.parts")


@contextmanager
def _errors_about(path: Path, target: Path) -> Iterator[None]:
    """Say what a full disk left behind, and to which output an error belongs."""
    try:
        yield
    except OSError as error:
        folder = parts_folder(target)
        earlier = "; the earlier file is unchanged" if target.exists() else ""
        kept = f"{folder} keeps what is done, so that the same command goes on from there"
        if isinstance(error, LostSourceError):
            raise LostSourceError(error.errno, f"{error.strerror}{earlier}; {kept}", error.filename) from error
        if error.errno in _FULL:
            raise OSError(error.errno, f"{error.strerror} while packing{earlier}; {kept}", str(path)) from error
        if error.errno is not None and str(error.filename or "").startswith(str(folder)):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _own_folder(path: Path, target: Path) -> Iterator[Path]:
    """The folder of the parts, locked against other processes."""
    folder = parts_folder(target)
    while True:
        folder.mkdir(exist_ok=True)
        try:
            lock = (folder / "lock").open("a")
        except FileNotFoundError:  # another process has finished just now and removed the folder
            continue
        with lock:
            _lock(lock.fileno(), path)
            if _is_still(folder / "lock", lock.fileno()):
                yield folder
                return


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        return
    try:
        # Unlike flock, this lock is not inherited by worker processes, which may outlive a killed run for a moment.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            return  # a file system without locks
        raise BlockingIOError(f"{path}: another process packs to this file; wait for it, or choose another") from error


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _begin(job: Job) -> list[str]:
    """Remove what an interrupted run of another job left, and return a note if there was any."""
    description = json.dumps(_description(job), sort_keys=True).encode()
    file, notes = job.folder / "job.json", []
    try:
        earlier = file.read_bytes()
    except OSError:
        earlier = b""
    if earlier != description:
        if earlier:
            changes = _changes(earlier, description)
            notes.append(f"an interrupted run was of other {changes}: what it had done is discarded")
        for each in job.folder.iterdir():
            if each.name != "lock":
                each.unlink()
        write_whole(file, description)
    for draft in job.folder.glob("*.tmp"):
        draft.unlink()
    return notes


def _description(job: Job) -> dict[str, str]:
    sequences = job.sequences
    digest = hashlib.sha256()
    for item in sequences.items:
        digest.update(json.dumps(item).encode())
    options = [job.part_size, job.strict, FORMAT, CHUNK, CODEC, LEVEL, BATCH_BYTES]
    return {
        "sequences": f"{len(sequences)} {digest.hexdigest()}",
        "layout, partition or things left out": _hash([sequences.layout, sequences.partition, sequences.left_out]),
        "options": json.dumps(options),
        "versions": f"hstl_fast {__version__}, pyarrow {arrow().__version__}",
    }


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _changes(earlier: bytes, now: bytes) -> str:
    try:
        before, after = json.loads(earlier), json.loads(now)
        return " and ".join(key for key in after if before[key] != after[key])
    except (ValueError, KeyError, TypeError):
        return "things"


def _finished_parts(job: Job, notes: list[str], progress: Progress) -> dict[int, int]:
    """The parts that need no work, with their frames; records of those whose sources have changed are removed."""
    finished, changed = {}, 0
    for part in range(job.num_parts):
        record = read_record(job, part)
        if record is None:
            continue
        progress("checking what is done", part + 1, job.num_parts)
        if is_current(job, part, record):
            finished[part] = sum(row.num_frames for row in record.rows)
        else:
            changed += len(job.span(part))
            job.record(part).unlink()
    if changed:
        notes.append(f"{changed} sequences of an interrupted run are read again, since files of theirs have changed")
    return finished
