"""`hstl-fast demo`: its figures are those of the embeddings, its report stands alone, and bad input leaves nothing."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from click.testing import Result

import hstl_fast
import hstl_fast.info
from hstl_fast import HSTL, PRESETS
from hstl_fast.backends.cpu import library
from hstl_fast.cli import demo
from hstl_fast.demo import runs, scene
from hstl_fast.demo.report import pictures, regions
from hstl_fast.demo.report.page import page
from hstl_fast.demo.report.text import short
from hstl_fast.evaluation import part_distances
from hstl_fast.network import Network
from hstl_fast.ops import _dispatch
from hstl_fast.silhouettes import Track, walkers
from tests.cli.helpers import run
from tests.cli.test_program import process
from tests.conftest import skip_without_binary
from tests.networks import narrow_model
from tests.silhouettes.footage import Walker, write_video

FRAMES = 5
PROBES = {"another take": ("nm", 2, 90), "another view": ("nm", 2, 54), "with a bag": ("bg", 1, 90)}
PROBES |= {"in a coat": ("cl", 1, 90)}
VOID = {"meta", "link", "br", "img", "hr", "input"}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are quicker in one thread, above all beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network() -> Network:
    return Network(narrow_model("casia-b", divisor=32), "casia-b", "seed:0")


class Run(NamedTuple):
    result: Result
    output: Path
    html: str
    findings: runs.Findings


@pytest.fixture(scope="module")
def whole(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One run of the command with a narrow network and three walkers."""
    output = tmp_path_factory.mktemp("demo") / "report.html"
    found = []

    def keep(*arguments: object) -> runs.Findings:
        found.append(runs.find_out(*arguments))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_network", lambda settings: network)
        patch.setattr(demo, "find_out", keep)
        result = run("demo", "--identities", 3, "--max-frames", FRAMES, "-o", output)
    return Run(result, output, output.read_text(encoding="utf-8"), found[0])


@pytest.fixture
def narrow(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "load_network", lambda settings: network)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rendering, reading video and embedding fail the test."""
    for name in ("rendered", "filmed", "find_out"):
        monkeypatch.setattr(demo, name, None)


class Page(HTMLParser):
    """Collects tags with their attributes and the style sheets, and insists that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.styles, self.text = "", ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data

    def of(self, kind: str) -> list[dict[str, str | None]]:
        return [attributes for _, attributes in self.tags if kind in (attributes.get("class") or "").split()]


def test_report_needs_nothing_but_itself(whole: Run) -> None:
    found = Page(whole.html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe", "object", "embed", "video", "base"})
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
    urls = re.findall(r"url\(([^)]{0,22})", found.styles)
    assert len(urls) == 15
    assert set(urls) == {"data:image/png;base64,"}
    assert "@import" not in found.styles
    assert "//" not in re.sub(r"url\([^)]*\)", "", whole.html)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in found.tags)
    assert len(whole.html.encode()) < 2_000_000


def test_report_is_complete(whole: Run) -> None:
    found = Page(whole.html)
    assert len(found.of("score")) == len(found.of("band")) == PRESETS["casia-b"].parts
    right_answers = [attributes["title"].split(":")[0] for attributes in found.of("self") if "title" in attributes]
    assert len(right_answers) == 12
    assert all(re.fullmatch(r"(walker\d)/\S+ to \1/\S+", names) for names in right_answers)
    assert len(found.of("right") + found.of("wrong")) == 2 * 12  # pictures and rows
    assert len(found.of("round")) == 2 * runs.ROUNDS
    facts = hstl_fast.info.collect()
    for text in (facts["torch"], facts["cpu"], "untrained", "seed 0", "1 thread used", short(whole.findings.agreement)):
        assert text in found.text
    assert "prefers-color-scheme: dark" in found.styles
    assert "prefers-reduced-motion: reduce" in found.styles


def test_speed_is_shown_with_what_is_left_out(whole: Run) -> None:
    clip = walkers.render(1, frames=FRAMES)[:, :, 10:54]
    share = f"{(clip > 0).mean():.0%} of its pixels are body. Rendered walkers are thinner than people in footage"
    assert f"leaves out the background of this sequence, where every value is exactly 0: {share}" in whole.result.stdout
    assert share in Page(whole.html).text


def test_footage_and_a_path_that_leaves_nothing_out_are_not_called_thin(whole: Run) -> None:
    findings = whole.findings
    assert findings.left_out.endswith("can be left out.")
    assert replace(findings, scene=replace(findings.scene, likeness="")).left_out.endswith("pixels are body.")
    assert replace(findings, backend="reference").left_out == ""


def embedded(network: Network, person: int, condition: str, take: int, view: int) -> torch.Tensor:
    clip = walkers.render(person, view=float(view), condition=condition, take=take, frames=FRAMES)
    return network.model.embed([clip])


def test_printed_and_reported_distances_are_those_of_the_embeddings(whole: Run, network: Network) -> None:
    gallery = torch.cat([embedded(network, person, "nm", 1, 90) for person in (1, 2, 3)])
    titles = [attributes.get("title") for _, attributes in Page(whole.html).tags]
    answers: dict[str, list[bool]] = {kind: [] for kind in PROBES}
    for person in (1, 2, 3):
        for kind, walk in PROBES.items():
            (distances,) = part_distances(embedded(network, person, *walk), gallery).tolist()
            nearest = 1 + int(np.argmin(distances))
            name = f"walker{person}/{walk[0]}-{walk[1]:02d}/{walk[2]:03d}"
            right = "right" if nearest == person else "wrong"
            answers[kind].append(nearest == person)
            row = [*kind.split(), name, f"walker{nearest}/nm-01/090", f"{min(distances):.6f}", right]
            assert row in [line.split() for line in whole.result.stdout.splitlines()]
            for other, distance in enumerate(distances, 1):
                assert f"{name} to walker{other}/nm-01/090: {distance:.6f}" in titles
    rights = sum(sum(found) for found in answers.values())
    by_kind = [f"{kind} {sum(answers[kind])} of 3" for kind in PROBES]
    assert f"rank-1: {rights} of 12 ({'; '.join(by_kind)})" in whole.result.stdout
    assert f"<b>{rights} of 12</b>" in whole.html


def test_agreement_is_the_largest_difference(whole: Run, network: Network) -> None:
    clips = [walk.clip for walk in whole.findings.scene.walks]
    fast = torch.cat([network.model.embed([clip]) for clip in clips])
    with hstl_fast.use_backend("reference"):
        plain = torch.cat([network.model.embed([clip]) for clip in clips])
        truth = narrow_copy(network).embed([clips[0]])[0]
    assert whole.findings.agreement == float((fast - plain).double().abs().max() / plain.double().abs().max())
    assert whole.findings.errors.fast == float((fast[0] - truth).abs().max() / truth.abs().max())
    assert whole.findings.errors.reference == float((plain[0] - truth).abs().max() / truth.abs().max())
    off = runs.errors(network.model, whole.findings.scene.gallery[0], runs.Paths(0.5 * truth, 2 * truth))
    assert off == pytest.approx((0.5, 1.0))
    assert f"all sequences  {whole.findings.agreement:.1e}" in whole.result.stdout


def narrow_copy(network: Network) -> HSTL:
    model = narrow_model("casia-b", divisor=32).double()
    model.load_state_dict(network.model.state_dict())
    return model


def spoil(monkeypatch: pytest.MonkeyPatch, change: float) -> None:
    """Have everything but the reference answer wrongly in one number."""
    whole = HSTL.embed

    def embed(self: HSTL, clips: object) -> torch.Tensor:
        vectors = whole(self, clips).clone()
        if _dispatch.BACKEND.value() != "reference":
            vectors[0, 3, 1] += change
        return vectors

    monkeypatch.setattr(HSTL, "embed", embed)


def test_a_wrong_fast_path_is_named(narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, 0.01)
    output = tmp_path / "report.html"
    result = run("demo", "--identities", 2, "--max-frames", 3, "-o", output, exit_code=1)
    assert "disagrees with the reference" in result.stderr
    printed = float(re.search(r"all sequences\s+(\S+)", result.stdout)[1])
    assert printed > 1e-3
    assert "disagrees" in output.read_text(encoding="utf-8")


def test_embeddings_that_are_not_finite_end_it(narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, float("nan"))
    result = run("demo", "--identities", 2, "--max-frames", 3, "-o", tmp_path / "report.html", exit_code=1)
    assert result.stderr.startswith("Error: walker1/nm-01/090: the network gives an embedding with NaN")
    assert not list(tmp_path.iterdir())


def test_reference_as_the_fast_path_is_said(narrow: None, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    result = run("demo", "--identities", 2, "--max-frames", 3, "--backend", "reference", "-o", output)
    assert "fast path (reference)" in result.stdout
    assert "both columns are plain PyTorch" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize("algorithm", ["winograd", "direct"])
def test_the_algorithm_of_the_environment_is_that_of_the_fast_path(
    algorithm: str, narrow: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_without_binary("cpu")
    seen: list[tuple[str, str]] = []
    whole = HSTL.embed

    def embed(self: HSTL, clips: object) -> torch.Tensor:
        seen.append((_dispatch.BACKEND.value(), _dispatch.ALGORITHM.value()))
        return whole(self, clips)

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


def test_trained_weights_are_not_called_untrained(whole: Run) -> None:
    network = whole.findings.network._replace(weights="sha256:0123456789abcdef0123")
    text = page(replace(whole.findings, network=network), hstl_fast.info.collect())
    assert "untrained" not in text
    assert "sha256:0123456789abcdef" in text


def test_times_are_interleaved(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(runs, "_embed", lambda model, clip, backend: order.append(backend))
    times = runs.interleaved_times(network.model, scene.rendered(2, 3).gallery[0], "cpu")
    assert order == ["reference", "cpu"] * runs.ROUNDS
    assert len(times.reference) == len(times.fast) == runs.ROUNDS


def test_parts_alone() -> None:
    torch.manual_seed(0)
    gallery = torch.randn(4, 3, 5)
    probes = gallery.clone()
    probes[2:, 1] = gallery[[0, 1], 1]  # in part 1, two of four look like somebody else
    same = torch.eye(4, dtype=torch.bool)
    assert runs.rank_one_by_part(probes, gallery, same) == [1.0, 0.5, 1.0]


@pytest.mark.parametrize("preset", PRESETS)
def test_levels_cover_every_part_once(preset: str) -> None:
    config = PRESETS[preset]
    levels = list(regions._levels(config))
    assert [level.first for level in levels] == np.cumsum([0, *(len(level.split) for level in levels[:-1])]).tolist()
    assert levels[-1].first + len(levels[-1].split) == config.parts
    assert [level.split for level in levels[:-1]] == [split for _, _, split in config.pools]


def test_film_strips_end_where_the_walk_begins_again() -> None:
    columns = np.arange(64)
    clip = np.stack([np.broadcast_to(255 * (abs(columns - 25 - t % 13) < 3), (64, 64)) for t in range(30)])
    uri, frames = pictures.film_strip(clip.astype(np.uint8))
    assert frames == 13
    assert uri.startswith("data:image/png;base64,")


def test_numbers_in_short() -> None:
    assert [short(value) for value in (3.14e-7, 9.99e-5, 0.0, 12.0)] == ["3.1·10⁻⁷", "1.0·10⁻⁴", "0", "1.2·10¹"]


def track(name: str, length: int) -> Track:
    clip = walkers.render(int(name[-1]), frames=length)
    return Track(name, np.arange(length), np.zeros((length, 4), np.intp), clip)


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """The name of a video that nobody reads; it would be markup if it were not escaped."""
    path = tmp_path / "<b>street & co.avi"
    path.write_bytes(b"frames")
    return path


def test_video_is_cut_in_halves(footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = [track("track1", 9), track("track2", 6), track("track3", 12)]
    monkeypatch.setattr(scene, "extract", lambda video, progress: tracks)
    cut = scene.filmed(footage, 2, 5, lambda *_: None)
    assert [walk.name for walk in cut.gallery] == ["track1/first-half", "track3/first-half"]
    assert [walk.name for walk in cut.probes] == ["track1/second-half", "track3/second-half"]
    assert np.array_equal(np.concatenate([cut.gallery[0].clip, cut.probes[0].clip]), tracks[0].silhouettes)
    assert np.array_equal(cut.gallery[1].clip, tracks[2].silhouettes[:5])
    assert np.array_equal(cut.probes[1].clip, tracks[2].silhouettes[6:11])
    assert "the longest of 3" in cut.title


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


def test_a_name_that_is_no_text_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene, "extract", lambda video, progress: [track("track1", 6), track("track2", 6)])
    cut = scene.filmed(Path(os.fsdecode(b"str\xffeet.avi")), 2, 3, lambda *_: None)
    assert cut.title.encode() == "2 tracks of str�eet.avi".encode()


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


def test_video_with_nobody_in_it(narrow: None, tmp_path: Path) -> None:
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
    result = run("demo", "--identities", 2, "-o", old_report, exit_code=1)
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
    assert "the weights of casia-b are untrained (random, seed 2023)" in result.stderr
    assert "2 rendered walkers: 10 sequences, 60 frames" in result.stdout
    Page(output.read_text(encoding="utf-8"))
