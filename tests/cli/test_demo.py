"""`hstl-fast demo`: what it refuses, what it says of a wrong answer, and that bad input leaves nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hstl_fast import HSTL
from hstl_fast.backends.cpu import library
from hstl_fast.cli import demo
from hstl_fast.demo import runs, scene
from hstl_fast.network import Network
from hstl_fast.ops import _dispatch
from tests.cli.helpers import run
from tests.cli.test_program import process
from tests.conftest import skip_without_binary
from tests.demo.helpers import Page, one_thread, track
from tests.helpers.networks import narrow_model
from tests.silhouettes.video.footage import Walker, write_video


@pytest.fixture(scope="module", autouse=True)
def small_networks_in_one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(narrow_model("casia-b", divisor=32), "casia-b", "seed:0")


@pytest.fixture
def narrow(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_network", lambda settings: network)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering, reading video and embedding fail the test."""
    for name in ("rendered", "filmed", "find_out"):
        monkeypatch.setattr(demo, name, None)


def spoil(monkeypatch: pytest.MonkeyPatch, change: float) -> None:
    """Have everything but the reference answer wrongly in one number."""
    original = HSTL.embed

    def embed(self: HSTL, clips: object) -> torch.Tensor:
        vectors = original(self, clips).clone()
        if _dispatch.BACKEND.value() != "reference":
            vectors[0, 3, 1] += change
        return vectors

    monkeypatch.setattr(HSTL, "embed", embed)


def test_native_kernels_that_are_wrong_are_named(narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 0.01)
    output = tmp_path / "report.html"
    result = run("demo", "--identities", 2, "--max-frames", 3, "-o", output, exit_code=1)
    assert "disagree with the reference" in result.stderr
    printed = float(re.search(r"all sequences\s+(\S+)", result.stdout)[1])
    assert printed > 1e-3
    assert "disagree with plain PyTorch" in output.read_text(encoding="utf-8")


def test_embeddings_that_are_not_finite_end_it(narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, float("nan"))
    result = run("demo", "--identities", 2, "--max-frames", 3, "-o", tmp_path / "report.html", exit_code=1)
    assert result.stderr.startswith("Error: walker1/nm-01/090: the network gives an embedding with NaN")
    assert not list(tmp_path.iterdir())


def test_the_reference_in_place_of_native_kernels_is_said(narrow: None, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    result = run("demo", "--identities", 2, "--max-frames", 3, "--backend", "reference", "-o", output)
    assert "native kernels (reference)" in result.stdout
    assert "both columns are plain PyTorch" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize("algorithm", ["winograd", "direct"])
def test_the_algorithm_of_the_environment_is_that_of_the_native_kernels(
    algorithm: str, narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_binary("cpu")
    seen: list[tuple[str, str]] = []
    original = HSTL.embed

    def embed(self: HSTL, clips: object) -> torch.Tensor:
        seen.append((_dispatch.BACKEND.value(), _dispatch.ALGORITHM.value()))
        return original(self, clips)

    monkeypatch.setattr(HSTL, "embed", embed)
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", algorithm)
    output = tmp_path / "report.html"
    run("demo", "--identities", 2, "--max-frames", 3, "-o", output)
    assert set(seen) == {("reference", "auto"), ("auto", algorithm)}
    assert f"convolution: {algorithm}" in output.read_text(encoding="utf-8")


def test_an_algorithm_that_cannot_run_is_refused_before_the_work(
    no_work: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "winnograd")
    result = run("demo", "-o", tmp_path / "report.html", exit_code=1)
    assert "HSTL_FAST_ALGORITHM must be one of auto, winograd, direct, got 'winnograd'" in result.stderr
    monkeypatch.setenv("HSTL_FAST_ALGORITHM", "winograd")
    monkeypatch.setattr(library, "cpu", lambda: None)
    result = run("demo", "-o", tmp_path / "report.html", exit_code=1)
    assert "algorithm 'winograd' cannot run arme: the reference backend has no Winograd convolution" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """The name of a video that is not read; it would be markup if it were not escaped."""
    path = tmp_path / "<b>street & co.avi"
    path.write_bytes(b"frames")
    return path


def test_names_of_videos_are_text_not_markup(
    narrow: None, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "extract", lambda video, progress: [track("track1", 6), track("track2", 6)])
    output = tmp_path / "report.html"
    result = run("demo", "--video", footage, "-o", output)
    assert "2 tracks of <b>street & co.avi: 4 sequences, 12 frames" in result.stdout
    html = output.read_text(encoding="utf-8")
    assert "<b>street" not in html
    assert "&lt;b&gt;street &amp; co.avi" in html
    Page(html)


def test_one_person_alone_cannot_be_told_apart(
    narrow: None, footage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene, "extract", lambda video, progress: [track("track1", 6)])
    result = run("demo", "--video", footage, "-o", tmp_path / "report.html", exit_code=1)
    assert "expected two people or more to tell apart, found one" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == [footage.name]


def test_footage_end_to_end(narrow: None, tmp_path: Path) -> None:
    pytest.importorskip("edgefirst.tracker")
    people = [Walker(-20, 8, ground=105, height=90), Walker(500, -8, ground=230, height=100, colour=(200, 30, 30))]
    video = write_video(tmp_path / "two.avi", people, 66)
    output = tmp_path / "report.html"
    result = run("demo", "--video", video, "--max-frames", 4, "-o", output)
    assert "2 tracks of two.avi: 4 sequences, 16 frames" in result.stdout
    Page(output.read_text(encoding="utf-8"))


@pytest.mark.parametrize("content", [b"", b"not a video"])
def test_unreadable_video(narrow: None, tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("cv2")
    video = tmp_path / "broken.avi"
    video.write_bytes(content)
    result = run("demo", "--video", video, "-o", tmp_path / "report.html", exit_code=1)
    assert "broken.avi" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["broken.avi"]


def test_video_without_people(narrow: None, tmp_path: Path) -> None:
    video = write_video(tmp_path / "empty.avi", [], 12)
    pytest.importorskip("edgefirst.tracker")
    result = run("demo", "--video", video, "-o", tmp_path / "report.html", exit_code=1)
    assert "no track of 30 frames or more" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["empty.avi"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--identities", 1], "--identities"),
        (["--identities", 25], "--identities"),
        (["--identities", "six"], "--identities"),
        (["--max-frames", 0], "--max-frames"),
        (["--preset", "casia"], "did you mean 'casia-b'?"),
        (["--backend", "refernce"], "did you mean 'reference'?"),
        (["--video", "none.avi"], "'none.avi' does not exist"),
        (["--checkpoint", "none.pt"], "'none.pt' does not exist"),
        (["-o", "missing-folder/out.html"], "the folder 'missing-folder' does not exist"),
        (["-o", "out.htm"], "ends in .html; got 'out.htm'"),
    ],
)
def test_wrong_options(
    no_work: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("demo", *arguments, exit_code=2)
    assert sentence in " ".join(result.stderr.split())
    assert not list(tmp_path.iterdir())


def test_unwritable_output_is_refused_before_the_work(no_work: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    result = run("demo", exit_code=2)
    assert "'hstl-demo.html' cannot be written: Read-only file system" in " ".join(result.stderr.split())


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_damaged_checkpoint(no_work: None, tmp_path: Path, content: bytes) -> None:
    checkpoint = tmp_path / "weights.pt"
    checkpoint.write_bytes(content)
    result = run("demo", "--checkpoint", checkpoint, "-o", tmp_path / "report.html", exit_code=1)
    assert "weights.pt" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pt"]


@pytest.mark.parametrize("backend", ["cuda", "triton"])
def test_backend_that_cannot_run_says_why(no_work: None, tmp_path: Path, backend: str) -> None:
    result = run("demo", "--backend", backend, "-o", tmp_path / "report.html", exit_code=1)
    assert result.stderr.startswith(f"Error: backend {backend!r} cannot run")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.fixture
def old_report(tmp_path: Path) -> Iterator[Path]:
    """A report of earlier, which is still there, alone, when the test is over."""
    output = tmp_path / "report.html"
    output.write_bytes(b"old")
    yield output
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_interrupting_leaves_the_old_report(narrow: None, old_report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "embed_both", interrupted)
    result = run("demo", "--identities", 2, "-o", old_report, exit_code=130)
    assert result.stderr.strip() == "Aborted!"


def test_a_full_disk_leaves_the_old_report(narrow: None, old_report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(self: Path, text: str, encoding: str) -> None:
        self.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    result = run("demo", "--identities", 2, "--max-frames", 3, "-o", old_report, exit_code=1)
    assert "No space left on device" in result.stderr


@pytest.mark.slow
def test_as_a_process_with_the_full_network(tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    result = process("demo", "--identities", 2, "--max-frames", 6, "-o", output)
    assert result.returncode == 0, result.stderr
    assert "trained on rendered walkers alone" in result.stderr
    assert "2 rendered walkers: 10 sequences, 60 frames" in result.stdout
    Page(output.read_text(encoding="utf-8"))
