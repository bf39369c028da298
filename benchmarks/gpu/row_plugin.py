"""A plugin of pytest that reports every test as a row of the kit."""

from collections.abc import Sequence

import pytest
import torch

from benchmarks.core.text import anonymous
from benchmarks.gpu import guarded
from benchmarks.gpu.supervise import Reporter, Row


class RowPlugin:
    """Tells pytest's results as rows. broken: whether the device no longer answered after a test."""

    def __init__(self, keys: Sequence[str], reporter: Reporter, device: torch.device) -> None:
        self.places = {key: place for place, key in enumerate(keys)}
        self.reporter, self.device = reporter, device
        self.broken = False
        self.session: pytest.Session | None = None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self.session = session

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        wanted = [item for item in items if item.nodeid in self.places]
        items[:] = sorted(wanted, key=lambda item: self.places[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.reporter.started(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        self.reporter.finished(report.nodeid, row(report))
        if report.failed and not guarded.answers(self.device):
            self.broken = True
            assert self.session is not None
            self.session.shouldstop = "the device no longer answers"


def row(report: pytest.TestReport) -> Row:
    """Status and reason of a test, and the figures that it recorded as properties."""
    figures = dict(report.user_properties)
    if report.passed:
        return {**figures, "status": "pass"}
    if report.skipped:
        return {**figures, "status": "unavailable", "reason": _reason(report)}
    return {**figures, "status": "fail", "reason": _reason(report)}


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        return anonymous(report.longrepr[2].removeprefix("Skipped: "))
    crash = getattr(report.longrepr, "reprcrash", None)
    message = crash.message if crash is not None else report.longreprtext
    return anonymous((message.strip().splitlines() or ["no message"])[0][:300])
