"""The report stands alone, is complete, and says what it was computed with."""

import re
from dataclasses import replace

import hstl_fast
import hstl_fast.info
from hstl_fast import PRESETS
from hstl_fast.demo import runs
from hstl_fast.demo.report.page import page
from hstl_fast.demo.report.text import short
from hstl_fast.silhouettes import walkers
from tests.demo.helpers import FRAMES, Page, Run


def test_report_needs_nothing_but_itself(demo_run: Run) -> None:
    found = Page(demo_run.html)
    assert {tag for tag, _ in found.tags}.isdisjoint({"script", "img", "iframe", "object", "embed", "video", "base"})
    for _, attributes in found.tags:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
        assert "url(" not in (attributes.get("style") or "")
    urls = re.findall(r"url\(([^)]{0,22})", found.styles)
    assert len(urls) == 15
    assert set(urls) == {"data:image/png;base64,"}
    assert "@import" not in found.styles
    assert "//" not in re.sub(r"url\([^)]*\)", "", demo_run.html)
    assert any("default-src 'none'" in (attributes.get("content") or "") for _, attributes in found.tags)
    assert len(demo_run.html.encode()) < 2_000_000


def test_report_is_complete(demo_run: Run) -> None:
    found = Page(demo_run.html)
    assert len(found.of("score")) == len(found.of("band")) == PRESETS["casia-b"].parts
    right_answers = [attributes["title"].split(":")[0] for attributes in found.of("self") if "title" in attributes]
    assert len(right_answers) == 12
    assert all(re.fullmatch(r"(walker\d)/\S+ to \1/\S+", names) for names in right_answers)
    assert len(found.of("right") + found.of("wrong")) == 2 * 12  # pictures and rows
    assert len(found.of("round")) == 2 * runs.ROUNDS
    facts = hstl_fast.info.collect()
    for text in (
        facts["torch"],
        facts["cpu"],
        "untrained",
        "seed 0",
        "1 thread used",
        short(demo_run.findings.agreement),
    ):
        assert text in found.text
    assert "prefers-color-scheme: dark" in found.styles
    assert "prefers-reduced-motion: reduce" in found.styles


def test_speed_is_shown_with_what_is_left_out(demo_run: Run) -> None:
    clip = walkers.render(1, frames=FRAMES)[:, :, 10:54]
    share = f"{(clip > 0).mean():.0%} of its pixels are body. Rendered walkers are thinner than people in footage"
    assert (
        f"leave out the background of this sequence, where every value is exactly 0: {share}" in demo_run.result.stdout
    )
    assert share in Page(demo_run.html).text


def test_trained_weights_are_not_called_untrained(demo_run: Run) -> None:
    network = demo_run.findings.network._replace(weights="sha256:0123456789abcdef0123")
    text = page(replace(demo_run.findings, network=network), hstl_fast.info.collect())
    assert "untrained" not in text
    assert "sha256:0123456789abcdef" in text


def test_numbers_in_short() -> None:
    assert [short(value) for value in (3.14e-7, 9.99e-5, 0.0, 12.0)] == ["3.1·10⁻⁷", "1.0·10⁻⁴", "0", "1.2·10¹"]
