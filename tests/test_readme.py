"""What the documents say is true: their code runs, their links lead somewhere, their commands and options exist."""

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from torch import Tensor

from hstl_fast import backends, functional
from tests.helpers.datasets import write_data_set
from tests.helpers.drop_in import network
from tests.helpers.tiny import tiny_model

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
EXAMPLES = ROOT / "examples"
# A block of another language would be looked at by no test.
LANGUAGES = {"sh", "text", "bibtex", "python", "python definitions", "python onnx"}
LONGEST_README = 150


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language, those in lists too."""
    found = re.finditer(
        rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [textwrap.dedent(match[2]) for match in found]


def commands(page: Path) -> list[str]:
    """The commands in a page's shell blocks, one after another."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    return [command.strip() for line in lines for command in line.split(" #")[0].split("&&") if command.strip()]


def run_blocks(page: Path, language: str, **names: Any) -> dict[str, Any]:
    """Run a page's blocks of one language one after another, and return the names that they leave."""
    for block in blocks(page, language):
        exec(compile(block, name_of(page), "exec"), names)
    return names


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that looks like a checkout to what is read, and may be written to."""
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check_readme(names: dict[str, Any]) -> None:
    assert names["gallery"].shape == (3, 73, 128)
    assert names["probe"].shape == (1, 73, 128)
    assert names["report"].replaced


def check_python(names: dict[str, Any]) -> None:
    assert names["embeddings"].shape == (2, 73, 128)
    assert names["out"].logits.shape == (3, 73, 74)
    assert names["distances"].diagonal().abs().max() == 0
    assert names["checkpoint"].iteration == 100
    assert names["z"].shape == (2, 64, 2)


def data_set(folder: Path) -> None:
    """The data set that docs/data.md opens: OpenGait's layout, an empty folder, and a partition."""
    write_data_set("opengait", folder / "CASIA-B-pkl")
    (folder / "CASIA-B-pkl" / "076" / "nm-01" / "090").mkdir(parents=True)
    (folder / "CASIA-B.json").write_text('{"TRAIN_SET": ["001", "002"], "TEST_SET": ["075"]}', encoding="utf-8")


def check_data(names: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert all(f"\n    {line}\n" in page for line in names["summarise"](names["data"]))
    assert repr(names["data"].items[0]) in page
    assert names["first"].shape[1:] == (64, 64)
    assert (names["counts"], names["divided"].partition) == (2, names["partition"])
    assert names["aligned"].shape == (2, 64, 64)
    assert dict(names["found"]).keys() == {f"walker{i}" for i in range(1, 7)}
    assert names["same"].names == ("walker6",)
    assert names["shape"] == (8, 30, 64, 44)
    assert names["people"] == sorted(names["people"], key=names["people"].index)
    assert sum(names["lengths"]) == names["whole"].silhouettes.shape[1]


def check_evaluation(names: dict[str, Any]) -> None:
    assert names["found"]["counts"] == {"people": 3, "probes": 18, "gallery": 6, "probes_without_partner": 0}
    assert 0 <= names["found"]["results"]["NM"]["rank1"] <= 100


def check_hierarchy(names: dict[str, Any]) -> None:
    assert [stage.split for stage in names["model"].config.stages] == [
        tuple(8 * strips for strips in split) for split in names["splits"]
    ]
    assert len(names["shares"]) == 2


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "README.md": check_readme,
    "docs/python.md": check_python,
    "docs/data.md": check_data,
    "docs/evaluation.md": check_evaluation,
    "docs/hierarchy.md": check_hierarchy,
}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_of_a_page_runs(page: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_implementations", dict(backends._implementations))  # a page adds a backend
    # The blocks of operators.md go on where its definitions end, and README accelerates a network of the reader's.
    before = {"torch": torch} if name_of(page) == "docs/operators.md" else {}
    before |= {"network": network()} if name_of(page) == "README.md" else {}
    if name_of(page) == "docs/data.md":
        data_set(scratch)
    names = run_blocks(page, "python", **before)
    CHECKS.get(name_of(page), lambda names: None)(names)


@pytest.mark.slow
def test_the_onnx_block_writes_a_file(scratch: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra [onnx]")
    run_blocks(ROOT / "docs" / "python.md", "python onnx", model=tiny_model())
    assert (scratch / "hstl.onnx").stat().st_size > 0


def test_definitions_are_what_the_package_computes() -> None:
    names = run_blocks(ROOT / "docs" / "operators.md", "python definitions")
    torch.manual_seed(0)
    x, split = torch.randn(2, 6, 7, 9, 5, dtype=torch.float64), [5, 1, 3]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64)

    p = 6.5 + normal(3) / 10
    for name, arguments in {
        "arme": (x, normal(3, 4, 6, 3, 3, 3), split),
        "astp": (x, normal(8, 6), p, split),
        "strip_pool": (x, p[:1], 3),
        "fta": (x, normal(3, 2, 6, 6), normal(3, 2, 6), split),
    }.items():
        expected = getattr(functional, name)(*arguments)
        assert torch.allclose(names[name](*arguments), expected, rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_language_that_is_tested(page: Path) -> None:
    opened = re.findall(r"^ *```(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(opened[::2]) <= LANGUAGES
    assert set(opened[1::2]) <= {""}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=name_of)
def test_commands_and_their_options_exist(page: Path) -> None:
    from hstl_fast.cli.app import program

    for line in commands(page):
        words = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line).partition(" > ")[0].split()
        if words[0] == "srun":
            words = words[1:]
        if words[0] == "torchrun":
            words = ["hstl-fast", *words[words.index("hstl_fast") + 1 :]]
        options = {word for word in words if word.startswith("-")}
        if words[0] == "hstl-fast":
            command = program.commands[words[1]]
            if isinstance(command, click.Group):
                command = command.commands[words[2]]
            assert isinstance(command, click.Command)
            assert options <= {name for option in command.params for name in option.opts}
        elif words[0] == "pytest":
            defined = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
            assert all(f'"{option}"' in defined for option in options - {"-n", "--dist"})  # pytest-xdist's
        elif words[:2] == ["python", "-m"]:
            main = ROOT.joinpath(*words[2].split("."), "__main__.py").read_text(encoding="utf-8")
            assert all(f'"{option}"' in main for option in options - {"-m"})
        elif words[0] == "python":
            script = (ROOT / words[1]).read_text(encoding="utf-8")
            assert all(f'"{option}"' in script for option in options)
        elif words[0].startswith("."):
            assert words[0] == "." or (ROOT / words[0]).is_file()
        else:
            assert words[0] in ("pip", "python3", "docker")


def test_every_command_of_the_program_is_described() -> None:
    from hstl_fast.cli.app import program

    page = ROOT / "docs" / "command-line.md"
    assert {words[1] for words in map(str.split, commands(page)) if words[0] == "hstl-fast"} == set(program.commands)


def test_a_new_backend_is_told_of_every_private_operator() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = text.partition("The private operators are ")[2].partition(". One that is missing")[0]
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "hstl_fast" / "ops").glob("*.py"))
    defined = re.findall(r'^define\(\s*"(\w+)\(', pages, re.MULTILINE)
    assert len(defined) > 10
    assert sorted(re.findall(r"`(\w+)`", listed)) == sorted(defined)


def anchors(page: Path) -> set[str]:
    """The names that the headings of a page can be linked by."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not re.match(r"[a-z]+:", link):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), f"{name_of(page)}: {link}"
            assert not anchor or anchor in anchors(target), f"{name_of(page)}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_that_is_named_exists(page: Path) -> None:
    """By its whole path, or by the end of it: `ops/arme.py`, `simd.h`."""
    names = re.findall(r"`([\w./]+\.(?:py|h|cpp))`", page.read_text(encoding="utf-8"))
    folders = ("hstl_fast", "csrc", "tests", "benchmarks", "examples")
    files = ["/setup.py", *(f"/{name_of(path)}" for folder in folders for path in (ROOT / folder).rglob("*.*"))]
    wanted = {name for name in names if "NAME" not in name and "/mine/" not in name}  # a reader's own
    assert {name for name in wanted if not any(file.endswith(f"/{name}") for file in files)} == set()


def test_every_page_can_be_reached_from_the_readme() -> None:
    links = set(re.findall(r"\]\(([^)\s#]+)\)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert links >= {name_of(page) for page in PAGES} - {"README.md"}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_readme_states_the_figures_of_the_committed_results() -> None:
    """One clip of casia-b: our time, eager's, that of the fastest other in float32, and our error."""
    performance = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| embed casia-b, 30 frames, people (\|.*)$", performance, re.MULTILINE)[:1]
    times = re.findall(r"([\d.]+) \(([\de-]+)\)", row)
    ours, error = times[0]
    eager, *others = (float(time) for time, _ in times[1:])
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"takes {float(ours):.0f} ms. PyTorch eager takes {eager:.0f} ms" in readme
    assert f"the fastest other float32 engine {min(eager, *others):.0f} ms" in readme
    assert f"The error of the embedding is {error} of its largest value" in readme


INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -c .ci/constraints.txt -e "


def first_commands() -> list[tuple[set[str], str]]:
    """README's commands for a new machine, one a line: the extras that each installs, and the program that it runs."""
    lines = [line for line in "\n".join(blocks(ROOT / "README.md", "sh")).splitlines() if "venv" in line]
    assert all(line.startswith(INSTALL) for line in lines)
    parts = [re.fullmatch(r"'\.\[([\w,]+)\]' && (.*)", line.removeprefix(INSTALL)) for line in lines]
    return [(set(part[1].split(",")), part[2]) for part in parts if part]


def test_the_readme_has_two_commands_for_a_new_machine() -> None:
    (demo_extras, demo), (test_extras, tests) = first_commands()
    assert (demo_extras, demo) == ({"cli"}, "hstl-fast demo")
    assert test_extras == {"cli", "video", "test"}
    assert tests.split()[0] == "pytest"


def test_continuous_integration_runs_what_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    installed = {name for extras in re.findall(r"'\.\[([\w,]+)\]'", script) for name in extras.split(",")}
    for extras, program in first_commands():
        assert extras <= installed
        pattern = re.escape(program).replace("auto", r"\d+")  # a number of processes that suits any machine
        assert re.search(rf"^{pattern}( |$)", script, re.MULTILINE), program


def run_example(name: str, *arguments: str, folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.getenv("PYTHONPATH", "")])}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_embed_names_a_walk_for_each_probe(tmp_path: Path) -> None:
    lines = run_example("embed.py", folder=tmp_path).splitlines()
    assert [line.split(" is most like walker")[0] for line in lines] == [f"walker{i}" for i in range(1, 7)]


@pytest.mark.slow
def test_drop_in_replaces_a_stage_and_computes_the_same(tmp_path: Path) -> None:
    printed = run_example("drop_in.py", folder=tmp_path)
    assert re.search(r"stage +plain stage +replaced", printed)
    assert float(printed.split("largest difference: ")[1].split()[0]) < 1e-5


def test_video_to_identity_says_what_it_needs(tmp_path: Path) -> None:
    assert run_example("video_to_identity.py", folder=tmp_path).startswith("Skipped: ")


@pytest.mark.slow
def test_video_to_identity_names_every_track(tmp_path: Path) -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs the extra [video]")
    from tests.silhouettes.video.footage import Walker, write_video

    for name, height in (("known.avi", 100), ("street.avi", 110)):
        write_video(tmp_path / name, [Walker(start=40, speed=4, height=height)], frames=90)
    printed = run_example("video_to_identity.py", "known.avi", "street.avi", folder=tmp_path)
    assert re.search(r"^street-track01: known-track01 \(nearest known-track01, \d\.\d+\)$", printed, re.MULTILINE)
