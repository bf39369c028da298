"""A reader of HTML that insists on closed tags, and the run of the demo that tests look at."""

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from click.testing import Result

from hstl_fast.demo import runs
from hstl_fast.silhouettes import Track, walkers

FRAMES = 5


VOID = {"meta", "link", "br", "img", "hr", "input"}


@contextmanager
def one_thread() -> Iterator[None]:
    """Small networks are quicker in one thread, above all beside other programs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Run(NamedTuple):
    result: Result
    output: Path
    html: str
    findings: runs.Findings


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


def track(name: str, length: int) -> Track:
    clip = walkers.render(int(name[-1]), frames=length)
    return Track(name, np.arange(length), np.zeros((length, 4), np.intp), clip)
