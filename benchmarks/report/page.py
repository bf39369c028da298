"""`index.html`: pictures and tables on one page that needs no other file."""

import base64
from collections.abc import Mapping
from html import escape

from benchmarks.report.markdown import all_tables
from benchmarks.report.pictures import Picture, source
from benchmarks.report.results import Results, Workload
from benchmarks.report.tables import NETWORK_GROUPS, Table
from benchmarks.report.words import error_text, number, reasons

_STYLE = """
:root { --paper: #f6f8fa; --card: #fff; --ink: #1f2328; --quiet: #59636e; --line: #d8dee4; --ours: #0072b2; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #0d1117; --card: #161b22; --ink: #e6edf3; --quiet: #9198a1; --line: #30363d; --ours: #58a6ff; }
}
body { margin: 0 auto; max-width: 1000px; padding: 32px 20px 80px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif; }
h1 { margin: 0; font-size: 30px; } h2 { margin: 44px 0 4px; font-size: 20px; } p { margin: 4px 0 12px; }
.quiet, .card small { color: var(--quiet); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 12px; margin: 24px 0; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.card { padding: 14px 16px; } .card b { display: block; font-size: 28px; color: var(--ours); line-height: 1.3; }
.card small { display: block; }
figure { margin: 16px 0; padding: 8px; background: #fff; } figure img { display: block; width: 100%; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: 6px 12px; text-align: right; white-space: nowrap; border-top: 1px solid var(--line); }
th { border-top: 0; color: var(--quiet); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
td.strong { font-weight: 700; color: var(--ours); }
"""


def page(results: Results, pictures: Mapping[Picture, str]) -> str:
    """The page; `pictures` are those drawn, with their SVG."""
    blocks = [_head(results), _cards(results)]
    blocks += [_figure(picture, svg) for picture, svg in pictures.items()]
    blocks += [_table(table) for table in all_tables(results)]
    why = reasons(results.workloads)
    if why:
        blocks.append("<h2>Without a time</h2>\n<ul>" + "".join(f"<li>{escape(line)}</li>" for line in why) + "</ul>")
    return "\n".join([*blocks, "</body>", "</html>", ""])


def _head(results: Results) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="source" content="{source(results)}">
<title>hstl_fast: measured</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>hstl_fast, measured</h1>
<p class="quiet">{escape(results.machine)}; {escape(results.commit)}. The peak of this machine in float32 is
{results.peaks.float32:.0f} GFLOP/s ({escape(results.peaks.source)}); it copies {results.peaks.copy:.1f} GB/s.</p>"""


def _cards(results: Results) -> str:
    workloads = [w for w in results.of(*NETWORK_GROUPS) if w.ours][:6]
    return '<div class="cards">' + "".join(map(_card, workloads)) + "</div>"


def _card(workload: Workload) -> str:
    ours, other = workload.ours, workload.fastest_float32_baseline()
    assert ours
    assert ours.median
    lines = [f"error {error_text(ours)}"]
    if other and other.median:
        lines.append(f"{other.name}, the fastest other in float32: {number(other.median * 1e3)} ms")
    what = f"{NETWORK_GROUPS[workload.group]} {workload.name}"
    small = "".join(f"<small>{escape(line)}</small>" for line in lines)
    return f'<div class="card">{escape(what)}<b>{number(ours.median * 1e3)} ms</b>{small}</div>\n'


def _figure(picture: Picture, svg: str) -> str:
    data = base64.b64encode(svg.encode()).decode()
    return f'<figure><img alt="{escape(picture.title)}" src="data:image/svg+xml;base64,{data}"></figure>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(header)}</th>" for header in table.headers)
    rows = [
        "".join(_cell(cell, (i, j) in table.strong) for j, cell in enumerate(row)) for i, row in enumerate(table.rows)
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n<p class="quiet">{escape(table.note)}</p>\n'
        f'<div class="scroll"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'
    )


def _cell(text: str, strong: bool) -> str:
    return f'<td class="strong">{escape(text)}</td>' if strong else f"<td>{escape(text)}</td>"
