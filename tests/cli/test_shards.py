"""`hstl-fast embed` on several processes, and completed after it was stopped: always the same file."""

import errno
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hstl_fast import HSTL, embedding
from hstl_fast.cli import shards
from hstl_fast.distributed import Processes
from tests.cli.helpers import run, walker

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 1 to 4 frames, three small chunks of them."""
    return people(tmp_path_factory.mktemp("people"), 8)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have chunks of three sequences in this process; others that are started keep theirs."""
    monkeypatch.setattr(embedding, "SEQUENCES_OF_A_CHUNK", 3)


def people(folder: Path, count: int) -> Path:
    for i in range(count):
        np.save(folder / f"p{i:03d}.npy", walker(i % 7, 1 + i % 4, start=i))
    return folder


def undisturbed(data: Path, output: Path) -> bytes:
    """The file of a run in one process."""
    run("embed", data, "-o", output)
    return output.read_bytes()


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of more than four chunks."""
    return people(tmp_path_factory.mktemp("people"), 133)


@pytest.fixture(scope="module")
def expected_of_many(many: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return undisturbed(many, tmp_path_factory.mktemp("many") / "out.npz")


def parts_of(output: Path) -> list[Path]:
    return sorted(output.parent.glob(f".{output.name}.parts/*/*.npz"))


def stop_after(monkeypatch: pytest.MonkeyPatch, chunks: int) -> None:
    save = shards._save

    def then_stop(file: Path, chunk: embedding.Chunk) -> None:
        if int(file.stem) == chunks:
            raise OSError(28, "No space left on device", str(file))
        save(file, chunk)

    monkeypatch.setattr(shards, "_save", then_stop)


def count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of clips of each call of the network from now on."""
    counts: list[int] = []
    whole = HSTL.embed

    def embed(self: HSTL, clips: object) -> object:
        given = list(clips)
        counts.append(len(given))
        return whole(self, given)

    monkeypatch.setattr(HSTL, "embed", embed)
    return counts


def test_a_stopped_run_is_completed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    expected = undisturbed(data, output)
    output.unlink()
    with monkeypatch.context() as stopped:
        stop_after(stopped, 1)
        assert "No space left" in run("embed", data, "-o", output, exit_code=1).stderr
    assert [part.name for part in parts_of(output)] == ["000000.npz"]
    assert not output.exists()
    counts = count_embedded(monkeypatch)
    run("embed", data, "-o", output)
    assert counts == [3, 2]
    assert output.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_damaged_parts_and_changed_sequences_are_computed_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.npz"
    expected = undisturbed(data, output)
    output.unlink()
    with monkeypatch.context() as stopped:
        stopped.setattr(shards, "_join", lambda *_: run_out())
        run("embed", data, "-o", output, exit_code=1)
    first, second, _ = parts_of(output)
    whole = bytearray(first.read_bytes())
    whole[len(whole) // 2] ^= 1
    first.write_bytes(whole)
    second.write_bytes(second.read_bytes()[:5000])
    changed = data / "p007.npy"
    silhouettes = np.load(changed)
    np.save(changed, silhouettes[:, ::-1])
    counts = count_embedded(monkeypatch)
    try:
        run("embed", data, "-o", output)
    finally:
        np.save(changed, silhouettes)
    assert counts == [3, 3, 2]
    assert output.read_bytes() != expected
    counts.clear()
    run("embed", data, "-o", output)
    assert counts == [3, 3, 2], "nothing is left of the run before"
    assert output.read_bytes() == expected


def run_out() -> None:
    raise OSError(28, "No space left on device")


def test_other_options_do_not_share_parts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    with monkeypatch.context() as stopped:
        stop_after(stopped, 1)
        run("embed", data, "-o", output, "--seed", 1, exit_code=1)
    counts = count_embedded(monkeypatch)
    run("embed", data, "-o", output, "--seed", 2)
    assert sum(counts) == len(list(data.iterdir()))
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_a_second_run_on_one_output_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out.npz"
    second: list[str] = []
    whole = embedding.embed_chunk

    def meanwhile(*arguments: object) -> object:
        if not second:
            second.append("at work")
            second[0] = run("embed", data, "-o", output, exit_code=1).stderr.splitlines()[-1]
        return whole(*arguments)

    monkeypatch.setattr(shards, "embed_chunk", meanwhile)
    run("embed", data, "-o", output)
    assert second == [f"Error: {output}: expected no other run that writes this file, got one that is at work"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def test_file_systems_without_locks(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", refuse)
    run("embed", data, "-o", tmp_path / "out.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(rank: int, size: int, port: int, *arguments: object) -> subprocess.Popen[str]:
    """Start one of several processes with the variables that torchrun sets."""
    variables = {"RANK": rank, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{name: str(value) for name, value in variables.items()}, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "hstl_fast", *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_write_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    (tmp_path / "data").mkdir()
    data = people(tmp_path / "data", embedding.SEQUENCES_OF_A_CHUNK + 3)
    expected = undisturbed(data, tmp_path / "expected.npz")
    output, port = tmp_path / "out.npz", free_port()
    processes = [start(rank, 2, port, "embed", data, "-o", output) for rank in range(2)]
    (first_out, first_errors), others = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], first_errors
    assert output.read_bytes() == expected
    assert first_out.count("35 sequences") == 1
    assert others == ("", "")


def test_other_processes_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stops one of them, before they have met, is said by torchrun."""
    monkeypatch.setattr(Processes, "join", Processes)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    result = run("embed", tmp_path / "none", "-o", tmp_path / "out.npz", exit_code=1)
    assert result.output == ""
    monkeypatch.setenv("RANK", "0")
    assert "none" in run("embed", tmp_path / "none", "-o", tmp_path / "out.npz", exit_code=1).stderr


def torchrun(size: int, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port"]
    command += [str(free_port()), "-m", "hstl_fast", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 3])
def test_torchrun(size: int, many: Path, expected_of_many: bytes, tmp_path: Path) -> None:
    (many / "q.npy").write_bytes(b"nonsense")
    output = tmp_path / "out.npz"
    try:
        process = torchrun(size, "embed", many, "-o", output)
        out, errors = process.communicate(timeout=300)
    finally:
        (many / "q.npy").unlink()
    assert process.returncode == 1
    assert output.read_bytes() == expected_of_many
    assert out.count("133 sequences") == 1
    assert errors.count("1 failed:") == 1
    assert errors.count("q.npy") == 1


@pytest.mark.slow
def test_the_error_of_one_process_is_one_sentence(many: Path, tmp_path: Path) -> None:
    process = torchrun(2, "embed", many, "-o", tmp_path / "out.npz", "--backend", "cuda")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert errors.count("backend 'cuda' cannot run") == 1
    assert not list(tmp_path.iterdir())


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def moments() -> Iterator[float]:
    yield from random.Random(5).choices(range(1, 1000), k=10)


@pytest.mark.slow
@pytest.mark.parametrize("moment", [pytest.param(moment, id=f"{moment}") for moment in moments()])
def test_killed_at_any_moment_and_completed(moment: int, many: Path, expected_of_many: bytes, tmp_path: Path) -> None:
    """A process, or all, are killed when so many thousandths of the parts or of the time are done."""
    output = tmp_path / "out.npz"
    started = time.monotonic()
    process = torchrun(2, "embed", many, "-o", output)
    while process.poll() is None and not output.parent.joinpath(f".{output.name}.parts").exists():
        time.sleep(0.005)
    time.sleep(moment / 1000 * min(2.0, (time.monotonic() - started) / 3))
    victims = children(process.pid)
    if moment % 2:
        victims = victims[moment % 3 % 2 :][:1]
    else:
        os.kill(process.pid, signal.SIGKILL)
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    process.communicate(timeout=300)
    completing = torchrun(2, "embed", many, "-o", output)
    _, errors = completing.communicate(timeout=300)
    assert completing.returncode == 0, errors
    assert output.read_bytes() == expected_of_many
    assert [path.name for path in tmp_path.iterdir()] == ["out.npz"]
