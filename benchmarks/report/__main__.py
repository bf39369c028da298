"""`python -m benchmarks.report DIR [DIR...] [--page] [--into FILE] [--goals] [--check]`."""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.report.results import Results

TABLES, PAGE = "tables.md", "index.html"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write everything drawn and counted from the results.json of every DIR; exit code 1 where --check finds a
    difference, 2 for bad input, with one line that says what."""
    options = _parser().parse_args(arguments)
    try:
        if options.check:
            return _report_differences(list(differences(*options.folders, document=options.into)))
        for line in write(*options.folders, document=options.into, with_page=options.page):
            print(line)
        if options.goals:
            _print_goals(options.folders)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        return _complain(f"needs {package}, which is not installed: pip install -e '.[bench]' in the checkout")
    except (ValueError, OSError) as error:
        return _complain(str(error))
    return 0


def write(*folders: Path, document: Path | None = None, with_page: bool = False) -> Iterator[str]:
    """Write pictures, tables and perhaps a page of them all into each folder of results, and the marked parts of
    `document`, which show those of all folders beside each other; one of them those of every goals.json, too.

    Everything is drawn and written beside its place before anything is replaced; the first file, the document, is
    replaced last. Pictures that these results no longer give are removed, all other files left alone.

    Yields:
        Lines that say what was done.

    Raises:
        ValueError: The results or the document are not what they should be.
        OSError: A place cannot be written.
    """
    from benchmarks.report.markdown import drawn, tables_file
    from benchmarks.report.page import page
    from benchmarks.report.pictures import PICTURES, svg
    from benchmarks.report.results import load
    from hstl_fast.files import atomic_file

    runs = {folder: load(folder) for folder in folders}
    files: dict[Path, str] = {}
    left_out: dict[Path, str | None] = {}
    if document is not None:
        files[document] = _with_speed(document, runs)
    for folder, results in runs.items():
        files[folder / TABLES] = tables_file(results)
        pictures = {picture: svg(picture, results) for picture in drawn(results)}
        files |= {folder / picture.file: text for picture, text in pictures.items()}
        if with_page:
            files[folder / PAGE] = page(results, pictures)
        left_out |= {folder / picture.file: picture.lacks(results) for picture in PICTURES if picture not in pictures}
    for path in left_out:
        if path.is_dir():
            raise IsADirectoryError(f"{path}: expected a file or nothing there, got a folder")
    with ExitStack() as drafts:
        for path, text in files.items():
            drafts.enter_context(atomic_file(path)).write_bytes(text.encode())
    for path in files:
        yield f"wrote {path}"
    for path, lacks in left_out.items():
        path.unlink(missing_ok=True)
        yield f"left out {path}: {lacks}"


def differences(*folders: Path, document: Path | None = None) -> Iterator[str]:
    """A line for each file that is not as `write` would leave it.

    Pictures and the page, if there is one, are judged by the results they say they were drawn from, because another
    version of matplotlib draws other bytes.
    """
    from benchmarks.report.results import load

    runs = {folder: load(folder) for folder in folders}
    for folder, results in runs.items():
        yield from _differences_in(folder, results)
    if document is not None and _text(document) != _with_speed(document, runs):
        yield f"{document}: what it says about speed is not what these results give"


def _differences_in(folder: Path, results: "Results") -> Iterator[str]:
    from benchmarks.report.markdown import tables_file
    from benchmarks.report.pictures import PICTURES, source

    for picture in PICTURES:
        path = folder / picture.file
        lacks = picture.lacks(results)
        if lacks is not None and path.exists():
            yield f"{path}: the results do not give this picture ({lacks})"
        elif lacks is None and source(results) not in _text(path):
            yield f"{path}: not drawn from these results"
    if (folder / PAGE).exists() and source(results) not in _text(folder / PAGE):
        yield f"{folder / PAGE}: not made from these results"
    if _text(folder / TABLES) != tables_file(results):
        yield f"{folder / TABLES}: not the tables of these results"


def _with_speed(document: Path, runs: Mapping[Path, "Results"]) -> str:
    from benchmarks.report.markdown import Run, seen_from, with_parts
    from benchmarks.report.results import load_goals

    return with_parts(
        document,
        [Run(results, seen_from(document, folder), load_goals(folder)) for folder, results in runs.items()],
    )


def _print_goals(folders: Sequence[Path]) -> None:
    from benchmarks.report.goals import summary
    from benchmarks.report.results import load

    for folder in folders:
        print("\n".join(summary(load(folder))))


def _text(path: Path) -> str:
    return path.read_bytes().decode() if path.is_file() else ""


def _report_differences(found: Sequence[str]) -> int:
    for line in found:
        print(line)
    if found:
        print("python -m benchmarks.report DIR... --into FILE brings them up to date")
    return 1 if found else 0


def _complain(message: str) -> int:
    print(f"Error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description="Draw and count results.json.")
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a processor's folder with results.json; written into"
    )
    parser.add_argument("--page", action="store_true", help=f"also write {PAGE}, which shows everything")
    parser.add_argument(
        "--into",
        "--readme",
        dest="into",
        metavar="FILE",
        type=Path,
        help="also rewrite the parts between the markers of this document, a README for example",
    )
    parser.add_argument("--goals", action="store_true", help="say of every goal whether it is reached")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if something is out of date")
    return parser


if __name__ == "__main__":
    sys.exit(main())
