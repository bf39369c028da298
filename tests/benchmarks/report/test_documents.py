"""The folder of results and the part of a document are written whole, and what drifted is found."""

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="drawing needs matplotlib, from the extra [bench]")

import matplotlib as mpl

from benchmarks.report.__main__ import differences, main, write
from benchmarks.report.markdown import GOALS_PART, PART, Run, drawn, with_parts
from benchmarks.report.pictures import PICTURES
from benchmarks.report.results import load, load_goals
from tests.benchmarks.report import measured
from tests.benchmarks.report.helpers import BEGIN, END, PICTURE_FILES, ROOT
from tests.benchmarks.report.measured import OURS


def test_the_same_results_give_the_same_files(written: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written[0]
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"results.json", "tables.md", "index.html", *PICTURE_FILES}
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(mpl.rcParams, "font.size", 30)
    list(write(folder, with_page=True))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    assert mpl.rcParams["font.size"] == 30


def test_the_page_needs_no_other_file(written: tuple[Path, Path]) -> None:
    page = (written[0] / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r'src="data:image/svg\+xml;base64,', page)) == len(PICTURES)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "<td>600 (2e-7)</td>" in page


def test_what_was_not_measured_is_left_out(written: tuple[Path, Path]) -> None:
    folder = written[0]
    (folder / "notes.txt").write_text("mine")
    measured.save(folder, measured.only(measured.results(), "embedding"))
    lines = list(write(folder, with_page=True))
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "tables.md",
        "index.html",
        "latency.svg",
        "memory.svg",
        "operators.svg",
        "notes.txt",
    }
    assert f"left out {folder / 'training.svg'}: no timed workload of the group 'training step'" in lines
    assert "training.svg" not in (folder / "tables.md").read_text(encoding="utf-8")


def test_a_document_shows_several_processors(written: tuple[Path, Path], tmp_path: Path) -> None:
    folder, readme = written
    other = folder.parent / "fast"
    measured.save(other, measured.only(measured.of_another_processor(microarchitecture="Zen 5"), "embedding"))
    assert main([str(folder), str(other), "--into", str(readme)]) == 0
    text = readme.read_bytes().decode()
    pictures = [f"{label}:\n\n![Time to embed one clip]({at}/latency.svg)" for label, at in RUNS.items()]
    assert "\n\n".join(pictures) in text
    assert text.count("latency.svg") == text.count("operators.svg") == 2
    assert "Zen 5:\n\n![Time of a training step]" not in text
    for at in RUNS.values():
        assert f"[all numbers]({at}/tables.md)" in text
    assert (other / "latency.svg").is_file()
    assert main([str(folder), str(other), "--into", str(readme), "--check"]) == 0
    assert main([str(folder), "--into", str(readme), "--check"]) == 1
    (other / "tables.md").write_text("older")
    assert main([str(folder), str(other), "--into", str(readme), "--check"]) == 1


# Where the results of two processors lie, by their labels.
RUNS = {"abacus": "results/abacus", "Zen 5": "results/fast"}


def test_readme_part_is_rewritten_and_nothing_else(written: tuple[Path, Path]) -> None:
    folder, readme = written
    text = readme.read_bytes().decode()
    assert text.startswith(f"# Über\r\n\n{BEGIN}\n![Time to embed one clip](results/abacus/latency.svg)\n")
    assert text.endswith(f"\n{END}\n\nrest, no newline")
    assert "| embed casia-b, 30 frames | **200 (1e-7)** | 600 (2e-7) | 240 (2e-7) | 1.20 |" in text
    assert "[all numbers](results/abacus/tables.md)" in text
    for picture in drawn(load(folder)):
        assert f"![{picture.title}](results/abacus/{picture.file})" in text
    assert "\nold\n" not in text
    for path in re.findall(r"\]\(([^)]+)\)", text):
        assert (readme.parent / path).is_file(), path
    list(write(folder, document=readme))
    assert readme.read_bytes().decode() == text


def test_a_later_run_for_the_goals_has_a_part_of_its_own(folder: Path, readme: Path) -> None:
    goal = "| casia-b, one clip: the fastest other in float32 / ours | at least 7 |"
    begin, end = (marker.replace(PART, GOALS_PART) for marker in (BEGIN, END))
    readme.write_text(f"{BEGIN}\n{END}\n{begin}\nold\n{end}\n", encoding="utf-8")
    data = measured.only(measured.results(), "embedding")
    data["benchmarks"][1]["extra_info"]["implementations"][OURS]["median"] *= 0.5
    (folder / "goals.json").write_text(json.dumps(data), encoding="utf-8")
    speed, _, part = shown(folder, readme).partition(begin)
    assert goal not in speed
    assert goal in part
    assert "| embed casia-b, 30 frames | **200 (1e-7)**" in speed
    assert "| embed casia-b, 30 frames | **100 (1e-7)**" in part
    assert "See [goals.json](results/abacus/goals.json)." in part
    (folder / "goals.json").unlink()
    speed, _, part = shown(folder, readme).partition(begin)
    assert goal in speed
    assert part.partition(end)[0].strip() == ""


def shown(folder: Path, readme: Path) -> str:
    """The document as it would be written."""
    return with_parts(readme, [Run(load(folder), "results/abacus", load_goals(folder))])


@pytest.mark.parametrize(
    "text", ["none", BEGIN, END, f"{END}\n{BEGIN}", f"{BEGIN}\n{END}\n{BEGIN}\n{END}"], ids=lambda text: repr(text[:12])
)
def test_readme_without_its_markers_is_left_alone(
    folder: Path, readme: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    readme.write_text(text, encoding="utf-8")
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert f"{readme}: expected one line {BEGIN} and one line {END} after it" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == text
    assert {path.name for path in folder.iterdir()} == {"results.json"}


def check(folder: Path, readme: Path) -> int:
    return main([str(folder), "--into", str(readme), "--check"])


def test_check_passes_on_what_was_written_and_writes_nothing(written: tuple[Path, Path]) -> None:
    folder, readme = written
    before = {path: path.stat().st_mtime_ns for path in [readme, *folder.iterdir()]}
    assert check(folder, readme) == 0
    assert {path: path.stat().st_mtime_ns for path in [readme, *folder.iterdir()]} == before


@pytest.mark.parametrize("change", ["number in README", "tables", "picture", "page", "results"])
def test_check_finds_what_drifted(written: tuple[Path, Path], change: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder, readme = written
    stale = {
        "number in README": [readme],
        "tables": [folder / "tables.md"],
        "picture": [folder / "latency.svg"],
        "page": [folder / "index.html"],
        "results": [readme, folder / "tables.md", folder / "index.html", *(folder / name for name in PICTURE_FILES)],
    }[change]
    if change == "results":
        data = measured.results()
        data["benchmarks"][0]["extra_info"]["implementations"][OURS]["median"] *= 0.5
        measured.save(folder, data)
    elif change == "picture":
        (folder / "latency.svg").unlink()
    elif change == "number in README":
        readme.write_bytes(readme.read_bytes().replace(b"200 (1e-7)", b"100 (1e-7)"))
    else:
        stale[0].write_text("something else", encoding="utf-8")
    assert check(folder, readme) == 1
    lines = capsys.readouterr().out.splitlines()[:-1]
    assert sorted(line.split(": ")[0] for line in lines) == sorted(map(str, stale))


def test_check_finds_a_picture_of_something_not_measured(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured.save(folder, measured.only(measured.results(), "training step"))
    list(write(folder))
    (folder / "latency.svg").write_text("older", encoding="utf-8")
    assert main([str(folder), "--check"]) == 1
    found, _ = capsys.readouterr().out.splitlines()
    assert found.startswith(f"{folder / 'latency.svg'}: the results do not give this picture")


def test_an_empty_run_changes_nothing(written: tuple[Path, Path]) -> None:
    folder, readme = written
    measured.save(folder, {**measured.results(), "benchmarks": []})
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert contents(folder, readme) == before


def test_a_readme_is_not_emptied_by_results_without_networks(
    written: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, readme = written
    measured.save(folder, measured.only(measured.results(), "arme forward"))
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert "expected results with whole networks for the document, got none that was timed" in capsys.readouterr().err
    assert contents(folder, readme) == before


@pytest.mark.parametrize("taken", ["roofline.svg", "tables.md", "training.svg"])
def test_a_folder_in_the_place_of_a_file_changes_nothing(
    written: tuple[Path, Path], taken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, readme = written
    measured.save(folder, measured.only(measured.results(), "embedding", "arme forward"))
    (folder / taken).unlink()
    (folder / taken).mkdir()
    before = contents(folder, readme)
    assert main([str(folder), "--readme", str(readme)]) == 2
    assert f"{folder / taken}: expected a file" in capsys.readouterr().err
    assert contents(folder, readme) == before


def contents(folder: Path, readme: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in [readme, *folder.iterdir()] if path.is_file()}


def test_a_readme_keeps_its_line_ends(folder: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(f"# Title\r\n\r\n{BEGIN}\r\n{END}\r\n".encode())
    measured.save(folder, measured.only(measured.results(), "embedding"))
    list(write(folder, document=readme))
    text = readme.read_bytes()
    assert text.count(b"\r\n") == text.count(b"\n") > 10
    assert check(folder, readme) == 0


def test_a_missing_readme_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--readme", str(tmp_path / "none.md")]) == 2
    assert "none.md" in capsys.readouterr().err


def test_without_matplotlib_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith(("benchmarks.report.", "matplotlib"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main([str(folder)]) == 2
    assert "needs matplotlib, which is not installed: pip install -e '.[bench]'" in capsys.readouterr().err


def committed() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "benchmarks" / "results").glob("*/results.json"))


@pytest.mark.skipif(not committed(), reason="no results are committed")
def test_committed_files_are_those_of_the_committed_results() -> None:
    """The part on speed may stand in the README or in any document of docs, and stands in one."""
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    (document,) = [path for path in documents if BEGIN in path.read_text(encoding="utf-8")]
    part = document.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    named = {(document.parent / path).resolve() for path in re.findall(r"\(([^)]*benchmarks/results/[^/)]+)/", part)}
    assert named == set(committed()), "the part on speed shows the results of every machine"
    assert list(differences(*committed(), document=document)) == []
