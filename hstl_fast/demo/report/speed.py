"""The section of the report with bars of times and scales of differences."""

import math
from collections.abc import Sequence
from html import escape
from statistics import median

from hstl_fast.demo.report.text import power_of_ten, short
from hstl_fast.demo.runs import LARGEST_DIFFERENCE, Findings

# The scale of differences shows these powers of ten.
_DECADES = range(-9, -2)


def speed_section(findings: Findings) -> str:
    """Draw the times of both paths, round by round, and their differences on a logarithmic scale."""
    times, errors = findings.times, findings.errors
    slowest = max(times.reference + times.fast)
    bars = _bar("plain PyTorch (backend reference)", "", times.reference, slowest)
    bars += _bar(f"native kernels (backend {findings.backend})", "fast", times.fast, slowest)
    scales = _scale("native kernels against plain PyTorch, all sequences", "fast", findings.agreement)
    scales += _scale("native kernels against float64, one sequence", "fast", errors.fast)
    scales += _scale("plain PyTorch against float64, one sequence", "", errors.reference)
    ticks = "".join(f"<span>{power_of_ten(power)}</span>" for power in _DECADES)
    return f"""<section>
<h2>Speed and agreement</h2>
<div class="two">
<div><h3>Time of one sequence of {times.frames} frames</h3>{bars}
<p class="soft">Bars are medians of {len(times.fast)} interleaved rounds of the two, dots the single rounds;
float32, one sequence at a time, {findings.threads_used}. Measured on this machine, now: whatever else ran on it is
in the figures. {findings.left_out}</p></div>
<div><h3>Largest difference, relative to the largest value</h3>{scales}<div class="decades">{ticks}</div>
<p class="soft">The dashed line is what the native kernels may differ by, {short(LARGEST_DIFFERENCE)}. Next to one,
float32 numbers are {short(2.0**-23)} apart: both paths round, each in its own order, so neither equals
float64.</p></div>
</div>
</section>"""


def _bar(name: str, kind: str, seconds: Sequence[float], slowest: float) -> str:
    middle = median(seconds)
    rounds = "".join(f'<i class="round" style="left: {100 * s / slowest:.2f}%"></i>' for s in seconds)
    return (
        f'<div class="bar {kind}"><div><span>{escape(name)}</span>'
        f"<span>{1000 * middle:.0f} ms, {1 / middle:.2f} a second</span></div>"
        f'<div class="track"><i class="fill" style="width: {100 * middle / slowest:.2f}%"></i>{rounds}</div></div>'
    )


def _scale(name: str, kind: str, value: float) -> str:
    return (
        f'<div class="log {kind}"><div><span>{name}</span><span>{short(value)}</span></div><div class="track">'
        f'<i class="limit" style="left: {_place(LARGEST_DIFFERENCE):.2f}%"></i>'
        f'<i class="mark" style="left: {_place(value):.2f}%"></i></div></div>'
    )


def _place(value: float) -> float:
    """The place of a difference on the scale, in percent; a difference off the scale is at its end."""
    low, high = _DECADES[0], _DECADES[-1]
    if not math.isfinite(value):
        return 100
    return 100 * min(max((math.log10(max(value, 10.0**low)) - low) / (high - low), 0), 1)
