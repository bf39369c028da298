"""`info.collect` tells what this process holds for later calls."""

import gc
import json
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

from hstl_fast import clear_caches, info
from hstl_fast.nn import ARME
from tests.conftest import skip_without_binary


@pytest.fixture
def nothing_cached() -> Iterator[None]:
    """Caches that are empty before and after."""
    gc.collect()  # maps of earlier tests that are freed later would count
    clear_caches()
    yield
    clear_caches()


def test_everything_is_plain_values() -> None:
    facts = info.collect()
    assert json.loads(json.dumps(facts)) == facts


def test_extras_say_what_they_lack(monkeypatch: pytest.MonkeyPatch) -> None:
    required = [
        "torch>=2.6",
        'absent-one>=1; extra == "video"',
        'numpy>=1; extra == "video"',
        'hstl_fast[cli,video]; extra == "recognition"',
        'absent.two[binary]>=3; sys_platform == "linux" and extra == "recognition"',
        'numpy; extra == "cli"',
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: required)
    extras = info.collect()["extras"]
    assert extras["cli"] == "installed"
    assert extras["video"] == "lacks absent-one"
    assert extras["recognition"] == "lacks absent-one, absent.two"
    assert extras["train"] == "unknown"


def test_every_extra_is_one_of_the_package() -> None:
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("[project.scripts]")[0]
    assert set(info.EXTRAS) <= set(re.findall(r"^([\w-]+) = \[", extras, re.MULTILINE))


def test_every_cache_is_listed(nothing_cached: None) -> None:
    caches = info.collect()["caches"]
    assert {"prepacked weights", "free memory of maps and workspaces"} <= set(caches)
    assert not any(caches.values())


def test_caches_after_evaluation(nothing_cached: None, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_binary("cpu")
    monkeypatch.delenv("HSTL_FAST_MEMORY_CACHE", raising=False)
    monkeypatch.delenv("HSTL_FAST_PACKED_CACHE", raising=False)
    layer = ARME(32, 32, [40, 24]).eval()
    with torch.no_grad():
        y = layer(torch.rand(1, 32, 8, 64, 44))
    caches = info.collect()["caches"]
    assert caches["prepacked weights"] >= layer.weight.nbytes
    free, size = caches["free memory of maps and workspaces"], y.nbytes
    del y
    assert info.collect()["caches"]["free memory of maps and workspaces"] >= free + size
    clear_caches()
    assert not any(info.collect()["caches"].values())


def test_the_command_line_shows_them(nothing_cached: None) -> None:
    pytest.importorskip("click", reason="the extra [cli] is not installed")
    from tests.cli.helpers import run

    facts = json.loads(run("info", "--json").stdout)
    table = [" ".join(line.split()) for line in run("info").stdout.splitlines()]
    for name, size in facts["caches"].items():
        assert f"caches.{name} {size} bytes" in table
