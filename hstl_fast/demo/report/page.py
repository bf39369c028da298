"""The page of the report: one HTML file that needs no other file, no script and no network."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from hstl_fast.demo.report.distances import distances_section
from hstl_fast.demo.report.pictures import film_strip
from hstl_fast.demo.report.regions import regions_section
from hstl_fast.demo.report.speed import speed_section
from hstl_fast.demo.report.style import STYLE
from hstl_fast.demo.report.text import body, short
from hstl_fast.demo.runs import LARGEST_DIFFERENCE, Answer, Findings, hits
from hstl_fast.demo.scene import Walk
from hstl_fast.evaluation import identity
from hstl_fast.network import Network

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LONGEST_PROCESSION = 8

# The style class of each walk, by the name of the walk.
Films = Mapping[str, str]


def page(findings: Findings, facts: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        findings: The results of the demo.
        facts: The dictionary of `hstl_fast.info.collect`.

    Returns:
        The page as HTML.
    """
    films = {walk.name: f"f{i}" for i, walk in enumerate(findings.scene.walks)}
    sections = (
        _key_figures(findings),
        _notes(findings),
        _people(findings, films),
        distances_section(findings, films),
        regions_section(findings, films),
        speed_section(findings),
        _meaning(findings),
        _machine(findings, facts),
    )
    title, styles = f"hstl-fast demo: {findings.scene.title}", _film_styles(findings, films)
    return document(title, styles, _header(findings, films), sections)


def document(title: str, styles: str, header: str, sections: Iterable[str]) -> str:
    """Write a page that needs no other file, no script and no network.

    Args:
        title: Its title as text.
        styles: Style rules beside those of every report.
        header: The header as HTML.
        sections: The sections as HTML.

    Returns:
        The page as HTML.
    """
    body = "\n".join(sections)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}{styles}</style>
</head>
<body>
{header}
<main>
{body}
</main>
</body>
</html>
"""


def _film_styles(findings: Findings, films: Films) -> str:
    """One class for each walk, so that its film strip is in the page once."""
    rules = [f":root {{ --frame: {findings.scene.frame_seconds}s; }}"]
    for walk in findings.scene.walks:
        uri, frames = film_strip(walk.clip)
        rules.append(f".{films[walk.name]} {{ --film: url({uri}); --frames: {frames}; }}")
    return "\n".join(rules)


def _header(findings: Findings, films: Films) -> str:
    scene, network = findings.scene, findings.network
    parts, channels = network.model.config.parts, network.model.config.channels
    walkers = "".join(body(films[walk.name]) for walk in scene.gallery[:_LONGEST_PROCESSION])
    return f"""<header><div>
<p class="eyebrow">hstl-fast demo</p>
<h1>Who walks here?</h1>
<p class="lead">{escape(scene.title)}, {len(scene.walks)} sequences, {scene.frames} frames. HSTL
({escape(network.preset)}) sees nothing but these outlines and makes {parts} vectors of {channels} numbers of each walk,
one for every region of the body. {escape(scene.origin)}</p>
<div class="procession">{walkers}</div>
</div></header>"""


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Write large figures, each with a text below; both are HTML."""
    written = "".join(f'<div class="tile"><b>{number}</b><span>{text}</span></div>' for number, text in figures)
    return f'<div class="tiles">{written}</div>'


def _key_figures(findings: Findings) -> str:
    _, fast = findings.times.medians
    figures = [
        (
            short(findings.agreement),
            "is the largest difference from plain PyTorch, relative to the largest value, over all "
            f"{len(findings.scene.walks)} sequences",
        ),
        (f"{findings.times.ratio:.2f} ×", "the speed of the same network in plain PyTorch, on this machine, now"),
        (
            f"{1000 * fast:.0f} <small>ms</small>",
            f"for one sequence of {findings.times.frames} frames with the native kernels",
        ),
        (hits(findings.answers), "probes have the right person nearest in the gallery"),
    ]
    return tiles(figures)


def _notes(findings: Findings) -> str:
    """The reservations under which the figures hold."""
    network, notes = findings.network, []
    if not findings.agrees:
        notes.append(
            "<b>The native kernels disagree with plain PyTorch:</b> the difference is above "
            f"{short(LARGEST_DIFFERENCE)} of the largest value. Do not trust their results on this machine."
        )
    if findings.backend == "reference":
        notes.append(
            "The native kernels did not run: both columns are plain PyTorch. The reason is at the end of this page."
        )
    if findings.untrained:
        notes.append(
            f"The weights are untrained: random, {escape(network.weights.replace(':', ' '))}. Identification therefore "
            "shows who is shaped alike in these pictures, not what trained weights can do. Agreement and speed are "
            "measured all the same."
        )
    elif network.knows_walkers_only:
        notes.append(
            "The weights are those that come along. They were trained on rendered walkers, others than those that are "
            "rendered here, by <code>hstl-fast demo --train</code>. On people their answers mean little."
        )
    else:
        notes.append(f"The weights are those of the checkpoint with the digest {escape(network.weights[:23])}….")
    return "".join(f'<p class="note">{note}</p>' for note in notes)


def _people(findings: Findings, films: Films) -> str:
    probes: dict[str, list[Answer]] = {}
    for answer in findings.answers:
        probes.setdefault(identity(answer.probe.name), []).append(answer)
    cards = "".join(_person(walk, probes[identity(walk.name)], films) for walk in findings.scene.gallery)
    count = 1 + max(map(len, probes.values()))
    return f"""<section>
<h2>The walks, and who the network takes them for</h2>
<p class="soft">The first of each person is known (the gallery); the others are probes, each named after the known walk
nearest to it.</p>
<div class="people" style="--walks: {count}">{cards}</div>
</section>"""


def _person(known: Walk, probes: Sequence[Answer], films: Films) -> str:
    figures = _figure("known", known, known.name, films) + "".join(_probe(answer, films) for answer in probes)
    return (
        f'<div class="person"><h3>{escape(identity(known.name))}<span>{hits(probes)}</span></h3>'
        f'<div class="walks">{figures}</div></div>'
    )


def _probe(answer: Answer, films: Films) -> str:
    found = identity(answer.nearest.name)
    verdict = f'<span class="verdict">{_sign(answer)} {escape(found)}</span>'
    label = f"{answer.probe.name}, taken for {found}"
    return _figure("right" if answer.right else "wrong", answer.probe, label, films, verdict)


def _figure(kind: str, walk: Walk, label: str, films: Films, verdict: str = "") -> str:
    caption = f'<figcaption><span class="kind">{walk.kind}</span>{verdict}</figcaption>'
    return f'<figure class="{kind}">{body(films[walk.name], label)}{caption}</figure>'


def _sign(answer: Answer) -> str:
    return "✓" if answer.right else "✗"


def _meaning(findings: Findings) -> str:
    same = (
        "On every sequence of this page the native kernels give what the readable reference in plain PyTorch gives, up "
        "to rounding."
        if findings.agrees
        else "Not here: see the top of this page."
    )
    rows = "".join(
        f"<tr><td>{escape(a.probe.name)}</td><td>{escape(a.nearest.name)}</td><td>{a.distance:.6f}</td>"
        f'<td class="{"right" if a.right else "wrong"}">{_sign(a)} {"right" if a.right else "wrong"}</td></tr>'
        for a in findings.answers
    )
    return f"""<section>
<h2>What to make of it</h2>
<ul>
<li><b>Same function.</b> {same}</li>
<li><b>Speed.</b> The baseline is the same network in plain PyTorch, on one short sequence. Compiled and exported
networks, batches and training are measured by <code>hstl-fast bench</code>.</li>
<li><b>Identification.</b> A handful of people, one distance, no threshold: it shows the way from outlines to answers,
and is no measurement of recognition.</li>
</ul>
<p>With your own footage, from a camera that stands still, and with your own weights:</p>
<pre><code>hstl-fast demo --video street.avi
hstl-fast demo --checkpoint weights.pt</code></pre>
<details><summary>Every probe and the known walk nearest to it</summary><div class="scroll">
<table class="plain"><thead><tr><th>probe</th><th>nearest</th><th>distance</th><th>answer</th></tr></thead>
<tbody>{rows}</tbody></table>
</div></details>
</section>"""


def _machine(findings: Findings, facts: Mapping[str, Any]) -> str:
    backend = f"backend {findings.backend}, asked for: {findings.asked_for}"
    return machine_section(facts, findings.network, backend, findings.threads_used)


def machine_section(facts: Mapping[str, Any], network: Network, backend: str, threads: str) -> str:
    """Write the section on the machine.

    Args:
        facts: The dictionary of `hstl_fast.info.collect`.
        network: The network.
        backend: What computed its layers, in words.
        threads: The number of threads, in words.

    Returns:
        The section as HTML.
    """
    native = facts["native_cpu"]
    code = f"instruction set {native['instruction_set']}" if native["loaded"] else f"none: {native['reason']}"
    versions = {"hstl_fast": "hstl_fast", "PyTorch": "torch", "NumPy": "numpy", "Python": "python"}
    entries = {
        "processor": f"{facts['cpu']}, {facts['cores']} cores, {threads} used",
        "native kernels": f"{backend}; convolution: {facts['requested_algorithm']}",
        "native code": code,
        "network": f"{network.preset}, weights {network.weights}",
        "versions": ", ".join(f"{name} {facts[key]}" for name, key in versions.items()),
        "system": facts["platform"],
    }
    rows = "".join(f'<tr><th scope="row">{name}</th><td>{escape(text)}</td></tr>' for name, text in entries.items())
    return f"""<section>
<h2>The machine</h2>
<table class="plain facts"><tbody>{rows}</tbody></table>
</section>"""
