"""`info.collect` tells what this process holds for later calls."""

import gc
import json
from collections.abc import Iterator

import pytest
import torch

from hstl_fast import functional, info
from hstl_fast.nn import ARME
from tests.conftest import skip_without_binary


@pytest.fixture
def nothing_cached() -> Iterator[None]:
    """Caches that are empty before and after."""
    gc.collect()  # maps of earlier tests that are freed later would count
    functional.clear_packed()
    functional.clear_memory()
    yield
    functional.clear_packed()
    functional.clear_memory()


def test_everything_is_plain_values() -> None:
    facts = info.collect()
    assert json.loads(json.dumps(facts)) == facts


def test_empty_caches(nothing_cached: None) -> None:
    assert info.collect()["caches"] == {"prepacked_weights": 0, "free_memory": 0}


def test_caches_after_evaluation(nothing_cached: None, monkeypatch: pytest.MonkeyPatch) -> None:
    skip_without_binary("cpu")
    monkeypatch.delenv("HSTL_FAST_MEMORY_CACHE", raising=False)
    monkeypatch.delenv("HSTL_FAST_PACKED_CACHE", raising=False)
    layer = ARME(32, 32, [40, 24]).eval()
    with torch.no_grad():
        y = layer(torch.rand(1, 32, 8, 64, 44))
    caches = info.collect()["caches"]
    assert caches["prepacked_weights"] >= layer.weight.nbytes
    free, size = caches["free_memory"], y.nbytes
    del y
    assert info.collect()["caches"]["free_memory"] >= free + size
    functional.clear_packed()
    functional.clear_memory()
    assert info.collect()["caches"] == {"prepacked_weights": 0, "free_memory": 0}


def test_the_command_line_shows_them(nothing_cached: None) -> None:
    pytest.importorskip("click", reason="the extra [cli] is not installed")
    from tests.cli.helpers import run

    facts = json.loads(run("info", "--json").stdout)
    table = [" ".join(line.split()) for line in run("info").stdout.splitlines()]
    for name, size in facts["caches"].items():
        assert f"caches.{name} {size} bytes" in table
