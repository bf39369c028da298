"""`hstl-fast prepare`: what it prints, what it writes, and its exit codes."""

import json
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hstl_fast.data import open_packed
from tests.cli.helpers import run, walker

pytest.importorskip("pyarrow")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three people in OpenGait's layout, one file of which is no pickle."""
    for person in range(3):
        for view in ("000", "090"):
            folder = tmp_path / "data" / f"{person + 1:03}" / "nm-01" / view
            folder.mkdir(parents=True)
            (folder / f"{view}.pkl").write_bytes(pickle.dumps(walker(person, 6 + person)))
    (tmp_path / "data" / "002" / "nm-01" / "090" / "090.pkl").write_bytes(b"no pickle")
    return tmp_path / "data"


def test_packs_and_says_what_it_found(root: Path, tmp_path: Path) -> None:
    path, report = tmp_path / "pack.arrow", tmp_path / "pack.arrow.report.txt"
    partition = tmp_path / "partition.json"
    partition.write_text(json.dumps({"TRAIN_SET": ["001"], "TEST_SET": ["002", "003"]}))
    result = run("prepare", root, "-o", path, "--partition", partition)
    assert "3 people, 1 type, 2 views, 6 sequences (layout opengait)" in result.stderr
    first, second = result.stdout.splitlines()
    packed = open_packed(path)
    size = path.stat().st_size
    assert first.startswith(f"{path}: 5 sequences, 35 frames, {size / 1000:.1f} kB, ")
    assert f"{35 * 4096 / size:.1f} times smaller than its frames; " in first
    assert first.endswith(" frames a second")
    assert second == f"Left out: 1 x sequence that cannot be read; the report is {report}"
    assert "sequence that cannot be read: 002/nm-01/090 (" in report.read_text()
    assert [item.label for item in packed.items] == ["001", "001", "002", "003", "003"]
    assert packed.partition is not None
    assert packed.partition.test == ("002", "003")
    assert np.array_equal(packed.read(0), walker(0, 6))
    assert "5 sequences, 35 frames, nothing is damaged (sha256:" in run("prepare", "--verify", path).stdout


def test_a_pack_can_be_packed_and_says_what_was_left_out_of_it(root: Path, tmp_path: Path) -> None:
    run("prepare", root, "-o", tmp_path / "a.arrow", "--workers", "1")
    again = run("prepare", tmp_path / "a.arrow", "-o", tmp_path / "b.arrow", "--report", tmp_path / "report.json")
    assert "1 x sequence that cannot be read; the report is " in again.stdout
    assert json.loads((tmp_path / "report.json").read_text())["left_out"] == {"sequence that cannot be read": 1}
    assert open_packed(tmp_path / "a.arrow").digest == open_packed(tmp_path / "b.arrow").digest


def test_strict_stops_and_leaves_the_earlier_file(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    path.write_bytes(b"earlier")
    result = run("prepare", root, "-o", path, "--strict", exit_code=1)
    assert "Error: expected to leave out nothing, got 002/nm-01/090: sequence that cannot be read (" in result.stderr
    assert path.read_bytes() == b"earlier"


def test_verify_lists_damage(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "pack.arrow"
    run("prepare", root, "-o", path)
    packed = open_packed(path)
    content = bytearray(path.read_bytes())
    content[packed.place(3) + 9] ^= 1
    path.write_bytes(content)
    result = run("prepare", "--verify", path, exit_code=1)
    assert result.stderr.startswith("1 failed:\n  003/nm-01/000: damaged sequence (")
    path.write_bytes(content[: len(content) // 2])
    assert "cut off the end of the packed file" in run("prepare", "--verify", path, exit_code=1).stderr
    other = run("prepare", "--verify", __file__, exit_code=1)
    assert "expected a packed file of hstl_fast, got another file" in other.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["IN"], "expected -o PACK, the file to write, or --verify"),
        (["IN", "-o", "pack.npz"], "expected a name such as casia-b.arrow; got 'pack.npz'"),
        (["IN", "-o", "missing/pack.arrow"], "the folder 'missing' does not exist"),
        (["IN", "-o", "."], "is a directory"),
        (["--verify", "IN", "-o", "pack.arrow"], "--verify: expected one packed file and no -o"),
        (["IN", "-o", "pack.arrow", "--workers", "0"], "0 is not in the range"),
        (["IN", "-o", "pack", "--report", "pack"], "expected a file of its own, got 'pack' twice"),
        (["IN", "-o", "pack", "--report", "a.pkl"], "expected a name such as report.txt or report.json, got 'a.pkl'"),
        (["IN", "-o", "pack", "--report", "missing/report.txt"], "the folder 'missing' does not exist"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    result = run("prepare", *(str(root) if each == "IN" else each for each in arguments), exit_code=2)
    assert message in result.stderr
    assert [path.name for path in root.parent.iterdir()] == ["data"]


def test_no_file_is_written_over_what_is_read(root: Path, tmp_path: Path) -> None:
    path, partition = tmp_path / "pack", tmp_path / "partition.json"
    run("prepare", root, "-o", path)
    partition.write_text(json.dumps({"TRAIN_SET": ["001"], "TEST_SET": ["002", "003"]}))
    before = path.read_bytes(), partition.read_bytes()
    for arguments in (
        ["prepare", path, "-o", path],
        ["prepare", path, "-o", partition, "--partition", partition],
        ["prepare", path, "-o", tmp_path / "other", "--report", path],
        ["prepare", path, "-o", tmp_path / "other", "--partition", partition, "--report", partition],
        ["embed", path, "-o", tmp_path / "a.npz", "--report", path],
        ["evaluate", "--protocol", "casia-b", path, "--partition", partition, "--json", partition],
    ):
        assert "expected a file of its own, got " in run(*arguments, exit_code=2).stderr
    assert (path.read_bytes(), partition.read_bytes()) == before


@pytest.mark.slow
def test_an_interrupt_is_no_end(root: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "pack.arrow"
    for person in range(4, 400):
        folder = root / f"{person:03}" / "nm-01"
        folder.mkdir(parents=True)
        np.save(folder / "000.npy", walker(person % 9, 40))
    command = [sys.executable, "-m", "hstl_fast", "prepare", str(root), "--layout", "folders", "-o", str(path)]
    process = subprocess.Popen([*command, "--workers", "2"], env=environment, stderr=subprocess.PIPE, text=True)
    parts = tmp_path / ".pack.arrow.parts"
    while process.poll() is None and len(list(parts.glob("0*.json"))) < 2:
        pass
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1]
    assert "Traceback" not in error
    assert "Interrupted: the same command goes on from here" in error
    assert process.returncode == 130
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "sequences were packed by an earlier run that was interrupted" in again.stderr
    assert not parts.exists()
