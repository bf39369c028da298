"""The measurement of what checksums of weights cost."""

import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks.cpu import freshness
from hstl_fast.backends.cpu import library
from tests.helpers.networks import narrow_model


@pytest.mark.skipif(library.cpu() is None, reason=library.cpu_error())
@pytest.mark.parametrize("more", [[], ["--small-pages", "--processor-time"]])
def test_every_way_is_timed(
    more: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], one_thread: None
) -> None:
    network = SimpleNamespace(from_preset=lambda name: narrow_model(name, divisor=8))
    monkeypatch.setattr(freshness, "HSTL", network)
    command = ["freshness", "--presets", "casia-b", "--frames", "3", "--rounds", "2", "--threads", "1", *more]
    monkeypatch.setattr(sys, "argv", command)
    freshness.main()
    found = json.loads(capsys.readouterr().out)
    assert found["preset"] == "casia-b"
    for times in (found["median_ms"], found["fastest_ms"]):
        assert set(times) == {"checked", "unchecked", "checksums alone"}
        assert min(times.values()) >= 0
    assert found["median_ratio"]["unchecked"] == 1
