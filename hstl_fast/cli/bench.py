"""`hstl-fast bench`: the benchmarks on this machine, and a report with pictures."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import click

import hstl_fast
from hstl_fast.files import atomic_folder, refuse_if_fixed

NEEDED = ("pytest", "pytest_benchmark", "pytest_timeout", "matplotlib")
RESULTS, PAGE = "results.json", "index.html"
PICTURES = ("latency", "throughput", "training", "memory", "scaling", "operators", "roofline")
# Every file that a report consists of.
FILES = {RESULTS, PAGE, "tables.md", *(f"{name}.svg" for name in PICTURES)}
# Exit codes of pytest; any other means that it did not get to the end.
PASSED, FAILED, NONE_SELECTED = 0, 1, 5


def _report_folder(_: click.Context, __: click.Parameter, folder: Path) -> Path:
    try:
        refuse_if_fixed(folder)
        _refuse_if_taken(folder)
        _refuse_if_unwritable(folder)
    except OSError as error:
        raise click.BadParameter(str(error)) from error
    return folder


@click.command(short_help="Measure hstl_fast beside plain PyTorch and other runtimes.")
@click.option("--quick", is_flag=True, help="A few workloads and rounds: two minutes instead of half an hour.")
@click.option("--goals", is_flag=True, help="The workloads that goals are set for: a dozen minutes.")
@click.option("-k", "selection", metavar="EXPRESSION", help="Only workloads that match, as in pytest: 'gait3d or fta'.")
@click.option(
    "--report",
    "folder",
    metavar="DIR",
    default="bench-report",
    show_default=True,
    callback=_report_folder,
    type=click.Path(path_type=Path),
    help="Folder to write; an earlier report is replaced.",
)
def bench(quick: bool, goals: bool, selection: str | None, folder: Path) -> None:
    """Measure operators and whole networks on this machine: hstl_fast interleaved with plain PyTorch and with every
    other runtime that is installed, each compared with float64 first.

    DIR gets results.json, pictures, tables and index.html, which shows them all. It is written at the end: a run that
    does not get there leaves the folder as it was. Exit code 1 if an answer of hstl_fast was wrong; baselines that are
    wrong, fail or are missing are named in the report. OMP_NUM_THREADS sets the number of threads.
    """
    options = ["--quick"] * quick + ["--goals"] * goals + (["-k", selection] if selection else [])
    if quick and goals:
        raise click.UsageError("expected one of --quick and --goals, got both")
    checkout = _checkout()
    _refuse_if_missing(NEEDED)
    with atomic_folder(folder) as draft:
        passed = _measure(checkout, draft / RESULTS, options)
        drawn = _draw(checkout, draft)
    if drawn.returncode:
        raise click.ClickException(f"{folder / RESULTS} is whole, but was not drawn: {drawn.stderr.strip()}")
    click.echo(_without_files(drawn.stdout))
    click.echo(f"{folder}: results, pictures and tables; {folder / PAGE} shows them all")
    if not passed:
        raise click.ClickException(
            "hstl_fast was wrong or failed, see above; the report has no times of those workloads"
        )


def _checkout() -> Path:
    """The folder that holds the benchmarks; they are not part of what is installed from a wheel."""
    checkout = Path(hstl_fast.__file__).resolve().parents[1]
    if not (checkout / "benchmarks" / "conftest.py").is_file():
        raise click.ClickException(
            f"expected the folder benchmarks beside the package, got none in {checkout}: "
            "bench runs in a checkout of the sources, installed with pip install -e '.[bench]'"
        )
    return checkout


def _refuse_if_missing(modules: tuple[str, ...]) -> None:
    missing = [name.replace("_", "-") for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(f"bench needs {', '.join(missing)}, not installed here: pip install -e '.[bench]'")


def _refuse_if_taken(folder: Path) -> None:
    """Raise FileExistsError for anything but a new or an empty folder, or an earlier report."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder}: expected a folder or nothing there, got a file")
    present = {path.name for path in folder.iterdir()}
    foreign = sorted(present - FILES)
    if foreign or (present and not _is_ours(folder / RESULTS)):
        what = foreign[0] if foreign else f"a {RESULTS} of something else" if RESULTS in present else min(present)
        raise FileExistsError(f"{folder}: expected an empty folder or an earlier report, got one with {what} in it")


def _is_ours(results: Path) -> bool:
    try:
        return {"benchmarks", "peaks"} <= set(json.loads(results.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return False


def _refuse_if_unwritable(folder: Path) -> None:
    """The report is made beside its folder; what is missing of the path is created at the end."""
    beside = next(parent for parent in folder.absolute().parents if parent.exists())
    try:
        tempfile.TemporaryFile(dir=beside).close()
    except OSError as error:
        raise PermissionError(f"{folder} cannot be written: {error.strerror}") from error


def _measure(checkout: Path, results: Path, options: list[str]) -> bool:
    """Run the benchmarks with these options into the file `results`; whether all of ours was right."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", f"--benchmark-json={results}"]
    code = subprocess.run([*command, *options], cwd=checkout, check=False).returncode
    if code == NONE_SELECTED:
        wanted = " ".join(repr(word) if before == "-k" else word for before, word in pairwise(["", *options]))
        raise click.ClickException(f"expected workloads to measure, got none that match {wanted}")
    if code not in (PASSED, FAILED):
        raise click.ClickException(f"the benchmarks ended early, with pytest's exit code {code}, see above")
    if not results.is_file() or not results.stat().st_size:
        raise click.ClickException("nothing was measured, see above")
    return code == PASSED


def _draw(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.report", str(folder.absolute()), "--page", "--goals"]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def _without_files(output: str) -> str:
    """Leave out the lines on files, which name a folder that is moved at the end."""
    return "\n".join(line for line in output.splitlines() if not line.startswith(("wrote ", "left out ")))
