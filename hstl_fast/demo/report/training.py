"""The report of the demo's training as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch

from hstl_fast.demo.report.charts import hierarchy_chart, loss_chart
from hstl_fast.demo.report.page import document, machine_section, tiles
from hstl_fast.demo.report.pictures import film_strip, still
from hstl_fast.demo.report.regions import levels_of_parts
from hstl_fast.demo.report.text import body
from hstl_fast.demo.report.training_style import STYLE
from hstl_fast.demo.runs import chosen_backend
from hstl_fast.demo.training.running import Trained
from hstl_fast.demo.training.scoring import CONDITIONS, Scores
from hstl_fast.hierarchy import compare_with_published
from hstl_fast.hierarchy.text import DISCLAIMER, describe_comparison

_WALKERS = 8
_FRAME_SECONDS = 0.04
_CONDITION_NAMES = {
    "NM": "NM<br>normal walking",
    "BG": "BG<br>with a bag",
    "CL": "CL<br>in a coat",
    "mean": "mean",
}
_AVERAGE = "average"


def training_page(trained: Trained, facts: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        trained: The results of the training.
        facts: The dictionary of `hstl_fast.info.collect`.

    Returns:
        The page as HTML.
    """
    people = sorted(set(trained.test.labels))[:_WALKERS]
    films = {label: f"f{i}" for i, label in enumerate(people)}
    threads = torch.get_num_threads()
    words = f"{threads} thread{'s' if threads > 1 else ''}"
    backend = f"backend {chosen_backend(trained.plan.backend)}, asked for: {trained.plan.backend}"
    sections = (
        _key_figures(trained),
        _note(trained),
        _rates_section(trained),
        _tables_section(trained),
        _losses_section(trained),
        _hierarchy_section(trained),
        _regions_section(trained, next(iter(films.values()))),
        _times_section(trained, words),
        machine_section(facts, trained.network, backend, words),
    )
    title = f"hstl-fast demo --train: {trained.plan.train + trained.plan.test} rendered walkers"
    return document(title, STYLE + _films(trained, films), _header(trained, films), sections)


def _films(trained: Trained, films: Mapping[str, str]) -> str:
    rules = [f":root {{ --frame: {_FRAME_SECONDS}s; }}"]
    for label, name in films.items():
        uri, frames = film_strip(trained.test.read(trained.test.labels.index(label)))
        rules.append(f".{name} {{ --film: url({uri}); --frames: {frames}; }}")
    rules.append(f".{_AVERAGE} {{ --film: url({still(trained.features.average)}); --frames: 1; }}")
    return "\n".join(rules)


def _header(trained: Trained, films: Mapping[str, str]) -> str:
    plan, config = trained.plan, trained.network.model.config
    walkers = "".join(body(film) for film in films.values())
    return f"""<header><div>
<p class="eyebrow">hstl-fast demo --train</p>
<h1>Learnt from {plan.train} walkers, tried on {plan.test} others</h1>
<p class="lead">A small HSTL network ({config.parts} parts of {config.channels} numbers) learnt in {plan.steps} steps
to tell {plan.train} rendered walkers apart. Here it meets {plan.test} whom it has never seen, from
{len(plan.views)} views, as they are, with a bag and in a coat.</p>
<div class="procession">{walkers}</div>
</div></header>"""


def _key_figures(trained: Trained) -> str:
    return tiles(
        [
            (_percent(trained.scores.rates["NM"]), "rank-1, normal walking, from another view than the known walk"),
            (_percent(trained.energy.rates["NM"]), "the same by the gait-energy image, the mean silhouette"),
            (_percent(trained.chance), "by guessing"),
            (_duration(sum(trained.seconds.values())), "for all of it, on this machine, now"),
        ]
    )


def _note(trained: Trained) -> str:
    return (
        '<p class="note">All bodies are rendered; no person was filmed. These numbers show that the network learns and '
        "that all parts of the program work together. They say nothing about people, and cannot be compared with "
        "published results.</p>"
    )


def _rates_section(trained: Trained) -> str:
    names = (*CONDITIONS, "mean")
    heads = "".join(f'<th scope="col">{_CONDITION_NAMES[name]}</th>' for name in names)
    rows = [
        ("HSTL, trained here", trained.scores.rates, "ours"),
        ("the same, untrained", trained.untrained.rates, ""),
        ("gait-energy image, Euclidean", trained.energy.rates, ""),
        ("guessing", dict.fromkeys(names, trained.chance), ""),
    ]
    lines = "".join(
        f'<tr class="{kind}"><th scope="row">{name}</th>{_rates_cells(rates, names)}</tr>' for name, rates, kind in rows
    )
    counts = trained.scores.counts
    return f"""<section>
<h2>Who is nearest?</h2>
<p class="soft">Rank-1 in percent by the protocol of CASIA-B: {counts["probes"]} probes and {counts["gallery"]} known
walks (nm-01 to nm-04) of {counts["people"]} people. A probe meets the known walks of one view at a time, never of its
own; rates are means over gallery views, then probe views.</p>
<div class="scroll"><table class="rates"><thead><tr><td></td>{heads}</tr></thead><tbody>{lines}</tbody></table></div>
</section>"""


def _rates_cells(rates: Mapping[str, float], names: Sequence[str]) -> str:
    return "".join(f"<td>{rates[name]:.1f}</td>" for name in names)


def _tables_section(trained: Trained) -> str:
    ours = "".join(_table(trained.scores, name, "HSTL") for name in CONDITIONS)
    energy = _table(trained.energy, "NM", "gait-energy image")
    return f"""<section>
<h2>View by view</h2>
<p class="soft">Rank-1 in percent. Rows are views of the probes, columns views of the known walks, in degrees: 0 walks
towards the camera, 90 across. Identical views, in dashed cells, are left out of all means.</p>
<div class="grids">{ours}{energy}</div>
</section>"""


def _table(scores: Scores, condition: str, name: str) -> str:
    heads = "".join(f'<th class="axis" scope="col">{escape(view)}°</th>' for view in scores.views)
    rows = []
    for i, (view, line) in enumerate(zip(scores.views, scores.tables[condition], strict=True)):
        cells = "".join(_cell(rate, i == j) for j, rate in enumerate(line))
        rows.append(f'<tr><th class="side" scope="row">{escape(view)}°</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table class="heat views"><caption>{condition} <span>{name}</span></caption>'
        f"<thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(rate: float | None, is_same: bool) -> str:
    if rate is None:
        return "<td></td>"
    kind = "same" if is_same else "dark" if rate >= 80 else ""
    return f'<td class="{kind}" style="--near: {max(0.04, rate / 100):.3f}">{rate:.0f}</td>'


def _losses_section(trained: Trained) -> str:
    plan, config = trained.plan, trained.network.model.config
    triplet, cross = ([line[name] for line in trained.log] for name in ("triplet", "cross_entropy"))
    margin = plan.training(trained.checkpoint.parent).loss.margin
    guessing = math.log(config.num_classes)
    charts = loss_chart("Triplet loss", triplet, (margin, f"the margin, {margin:g}"))
    charts += loss_chart("Cross entropy", cross, (guessing, f"guessing among {config.num_classes}, {guessing:.2f}"))
    return f"""<section>
<h2>Learning</h2>
<p class="soft">Both losses at each of {len(trained.log)} steps of {plan.people * plan.sequences} sequences
({plan.people} people, {plan.sequences} sequences of {plan.window} frames each), and their moving means. The triplet
loss is the mean of those terms that are not zero. In a training as short as this one both losses stay near their dashed
lines, because embeddings of different people still differ by little beside the margin. Ranking needs only the order of
the distances, which gets right much earlier.</p>
<div class="two">{charts}</div>
</section>"""


def _hierarchy_section(trained: Trained) -> str:
    hierarchy = trained.hierarchy
    keys = "".join(
        f'<span><i class="c{i}"></i>{count} regions: {" + ".join(map(str, split))} strips</span>'
        for i, (count, split) in enumerate(zip(hierarchy.clusters, hierarchy.splits(), strict=True))
    )
    published = "".join(f"<li>{escape(describe_comparison(each))}</li>" for each in compare_with_published(hierarchy))
    return f"""<section>
<h2>The hierarchy of the body</h2>
<p class="soft">{hierarchy.strips} strips of the body, clustered by how they move in the {hierarchy.sequences} sequences
of the walkers for training ({escape(hierarchy.linkage)} linkage; only neighbours merge). The cuts of the tree are the
regions of the network's stages. Left, the average silhouette. {DISCLAIMER}</p>
<div class="key">{keys}</div>
{hierarchy_chart(hierarchy, _AVERAGE)}
<details><summary>The published hierarchies, in comparison</summary><ul>{published}</ul></details>
</section>"""


def _regions_section(trained: Trained, film: str) -> str:
    config = trained.network.model.config
    rows = "".join(
        f'<tr><th scope="row">{region.top:.0%} to {region.bottom:.0%} of the height</th><td>{len(region.parts)}</td>'
        f"<td>{region.alone:.1f}</td><td>{region.without:.1f}</td></tr>"
        for region in trained.regions
    )
    levels = levels_of_parts(config, [rate / 100 for rate in trained.parts], trained.chance / 100, film)
    return f"""<section>
<h2>What each region contributes</h2>
<p class="soft">Every level of the network cuts the body anew, coarse to fine. The bars: the NM rate of each part alone.
The dashed line is guessing. The table: the NM rate of the parts within one region of the finest level, and that of all
other parts without them, in percent.</p>
{levels}
<div class="scroll"><table class="rates"><thead><tr><th scope="col">region of the finest level</th>
<th scope="col">parts</th><th scope="col">these alone</th><th scope="col">all others</th></tr></thead>
<tbody>{rows}<tr class="ours"><th scope="row">all parts</th><td>{config.parts}</td>
<td>{trained.scores.rates["NM"]:.1f}</td><td></td></tr></tbody></table></div>
</section>"""


def _times_section(trained: Trained, threads: str) -> str:
    slowest = max(trained.seconds.values())
    bars = "".join(_bar(name, seconds, slowest) for name, seconds in trained.seconds.items())
    plan = trained.plan
    again = f"hstl-fast demo --train --people {plan.train + plan.test} --steps {plan.steps} --seed {plan.seed + 1}"
    again += " --keep walkers"
    return f"""<section>
<h2>Time</h2>
<div class="two"><div class="times">{bars}</div>
<div><p class="soft">Wall time of the stages, {threads}, whatever else ran on the machine included. A step of the
training took {_step(trained.log)}.</p>
<p>The same again, with another seed, and with everything it makes kept in a folder:</p>
<pre><code>{again}</code></pre></div></div>
</section>"""


def _bar(name: str, seconds: float, slowest: float) -> str:
    return (
        f'<div class="bar fast"><div><span>{escape(name)}</span><span>{_duration(seconds)}</span></div>'
        f'<div class="track"><i class="fill" style="width: {100 * seconds / slowest:.1f}%"></i></div></div>'
    )


def _step(log: Sequence[Mapping[str, Any]]) -> str:
    times = sorted(line["step_s"] for line in log if "step_s" in line)
    return f"{times[len(times) // 2]:.2f} s (median)" if times else "an unknown time"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _percent(rate: float) -> str:
    return f"{rate:.1f} <small>%</small>"
