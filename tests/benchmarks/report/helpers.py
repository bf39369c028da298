"""Markers, pictures and tables that several tests of the report look at."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from benchmarks.report import tables
from benchmarks.report.markdown import PART
from benchmarks.report.pictures import PICTURES, svg
from benchmarks.report.results import load
from tests.benchmarks.report import measured
from tests.benchmarks.report.measured import workload

ROOT = Path(__file__).parents[3]


BEGIN, END = f"<!-- begin: {PART} -->", f"<!-- end: {PART} -->"


PICTURE_FILES = {picture.file for picture in PICTURES}


README = f"# Über\r\n\n{BEGIN}\nold\n{END}\n\nrest, no newline"


def texts(svg_text: str) -> list[str]:
    """The texts of a picture."""
    return [element.text or "" for element in ET.fromstring(svg_text).iter("{http://www.w3.org/2000/svg}text")]


def draw(folder: Path, name: str) -> str:
    return svg(next(picture for picture in PICTURES if picture.name == name), load(folder))


def cells(table: tables.Table, row: str) -> dict[str, str]:
    """The row that starts with these words, by its headers."""
    (found,) = [line for line in table.rows if line[0] == row]
    return dict(zip(table.headers, found, strict=True))


def table(folder: Path, title: str) -> tables.Table:
    return next(table for table in tables.everything(load(folder)) if table.title == title)


def with_implementations(folder: Path, name: str, implementations: dict[str, Any]) -> None:
    """Replace the implementations of one embedding."""
    data = measured.results()
    data["benchmarks"] = [workload(name, "embedding", implementations)]
    measured.save(folder, data)
