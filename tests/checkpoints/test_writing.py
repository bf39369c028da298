"""Whatever happens while a checkpoint is written, the earlier one stays and nothing is left beside it."""

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.checkpoints import load_checkpoint, save_checkpoint
from tests.helpers.tiny import differing, tiny_model

resource = pytest.importorskip("resource")


@pytest.fixture(scope="module")
def model() -> HSTL:
    return tiny_model()


@pytest.fixture
def path(model: HSTL, tmp_path: Path) -> Path:
    path = tmp_path / "a.pt"
    save_checkpoint(path, model, iteration=1)
    return path


def check_that_the_earlier_one_stays(path: Path, model: HSTL) -> None:
    found = load_checkpoint(path)
    assert found.iteration == 1
    assert differing(found.model, model) == []
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("limit", [0, 1, 100, 5_000])
def test_a_file_that_grows_too_large_leaves_the_earlier_one(limit: int, path: Path, model: HSTL) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large; the checkpoint takes \d+\.\d kB") as caught:
            save_checkpoint(path, model, iteration=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
    check_that_the_earlier_one_stays(path, model)


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_the_earlier_one(
    call: str, code: str, path: Path, model: HSTL, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match=r"; the checkpoint takes \d+\.\d kB, an earlier one stays as it is") as caught:
        save_checkpoint(path, model, iteration=2)
    assert (caught.value.errno, caught.value.filename) == (getattr(errno, code), str(path))
    monkeypatch.undo()
    check_that_the_earlier_one_stays(path, model)


class FullForAMoment(io.FileIO):
    """A file on a disk that is full at the second write, and has space again at the third."""

    writes = 0

    def write(self, data: Any) -> int:
        self.writes += 1
        if self.writes == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


def test_a_gap_in_the_file_is_no_checkpoint(path: Path, model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def open_draft(self: Path, mode: str = "r", **options: Any) -> Any:
        return FullForAMoment(self, "w") if mode == "wb" else opened(self, mode, **options)

    monkeypatch.setattr(Path, "open", open_draft)
    with pytest.raises(OSError, match=r"No space left on device; the checkpoint takes \d+\.\d kB"):
        save_checkpoint(path, model, iteration=2)
    monkeypatch.undo()
    check_that_the_earlier_one_stays(path, model)


def test_other_errors_stay_what_they_are(path: Path, model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=r"^\[Errno 5\] Input/output error: '.*a\.pt'$"):
        save_checkpoint(path, model, iteration=2)
    monkeypatch.undo()
    check_that_the_earlier_one_stays(path, model)


def test_what_cannot_be_read_back_replaces_nothing(path: Path, model: HSTL, monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def save_carelessly(content: dict[str, Any], file: Any) -> None:
        save({**content, "training": re.compile("x")}, file)

    monkeypatch.setattr(torch, "save", save_carelessly)
    with pytest.raises(ValueError, match=r"a\.pt: cannot be read back as it was written, so nothing is replaced: "):
        save_checkpoint(path, model, iteration=2)
    monkeypatch.undo()
    check_that_the_earlier_one_stays(path, model)


# Saves one checkpoint after another, and says which one is there.
SAVING = """
import sys
import torch
from hstl_fast.checkpoints import save_checkpoint
from tests.helpers.tiny import tiny_model
model, training = tiny_model(), {"filling": torch.rand(5_000_000)}
for iteration in range(1, 1000):
    save_checkpoint(sys.argv[1], model, iteration=iteration, training=training)
    print(iteration, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.003, 0.02, 0.04, 0.06])
def test_killed_while_writing_the_last_written_one_is_there(seconds: float, path: Path, model: HSTL) -> None:
    command = [sys.executable, "-c", SAVING, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["1\n", "2\n"]
        time.sleep(seconds)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    said = [int(line) for line in process.stdout]
    found = load_checkpoint(path)
    last = max(said, default=2)
    assert found.iteration in (last, last + 1)
    assert differing(found.model, model) == []
    save_checkpoint(path, model)
    assert list(path.parent.iterdir()) == [path]
