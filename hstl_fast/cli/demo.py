"""`hstl-fast demo`: the native kernels beside plain PyTorch on some walkers, or a training, with a report."""

from pathlib import Path
from typing import Any

import click

import hstl_fast.info
from hstl_fast.cli.embedding import Settings, load_network, network_options
from hstl_fast.cli.options import new_file
from hstl_fast.cli.output import print_table, progress_bar
from hstl_fast.cli.training_demo import TrainingOptions, train, training_options
from hstl_fast.demo.report.page import page
from hstl_fast.demo.runs import LARGEST_DIFFERENCE, Findings, chosen_backend, find_out, hits
from hstl_fast.demo.scene import Scene, filmed, rendered
from hstl_fast.files import atomic_file
from hstl_fast.options import BACKEND
from hstl_fast.silhouettes import Progress

_DEFAULT_WALKERS = 6
_MOST_PEOPLE = 24
# Sequences of some seconds show as much as long ones, in less time.
_MOST_FRAMES = 60
_CONTEXT = {"default_map": {"max_frames": _MOST_FRAMES}}


@click.command(short_help="Show what it does here, in a minute.", context_settings=_CONTEXT)
@click.option(
    "--video",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Footage from a camera that stands still, instead of rendered walkers.",
)
@click.option(
    "--identities",
    type=click.IntRange(2, _MOST_PEOPLE),
    help=f"Walkers to render (default {_DEFAULT_WALKERS}), or longest tracks of the video (default {_MOST_PEOPLE}).",
)
@click.option(
    "-o",
    "--output",
    default="hstl-demo.html",
    show_default=True,
    metavar="FILE.html",
    type=new_file(".html"),
    help="Report to write.",
)
@training_options
@network_options
def demo(video: Path | None, identities: int | None, output: Path, **options: Any) -> None:
    """Embed walks in plain PyTorch and by the native kernels, compare results and times, and say who is who.

    Without --video the walkers are rendered. All of it is also in the report, one HTML file that needs no network.

    With --train, render a data set, find a hierarchy of body regions in it, train a small network, and evaluate it on
    walkers that it has not seen.
    """
    options, wanted = TrainingOptions.take(options)
    settings = Settings(**options)
    if wanted is not None:
        train(wanted, settings, output)
        return
    backend = settings.backend or BACKEND.value()
    chosen_backend(backend)
    network = load_network(settings)
    with progress_bar() as advance:
        scene = _scene(video, identities, settings.max_frames or _MOST_FRAMES, advance)
    click.echo(f"{scene.title}: {len(scene.walks)} sequences, {scene.frames} frames")
    with progress_bar() as advance:
        findings = find_out(scene, network, backend, advance)
    _print_agreement(findings)
    _print_times(findings)
    _print_identification(findings)
    with atomic_file(output) as draft:
        draft.write_text(page(findings, hstl_fast.info.collect()), encoding="utf-8")
    click.echo(f"\n{output}: the report, with pictures; open it in a browser")
    if not findings.agrees:
        raise click.ClickException(
            f"the native kernels ({findings.backend}) disagree with the reference: expected a difference of at most "
            f"{LARGEST_DIFFERENCE:.0e} of the largest value, got {findings.agreement:.1e}"
        )


def _scene(video: Path | None, identities: int | None, max_frames: int, progress: Progress) -> Scene:
    if video is None:
        return rendered(identities or _DEFAULT_WALKERS, max_frames)
    return filmed(video, identities or _MOST_PEOPLE, max_frames, progress)


def _print_agreement(findings: Findings) -> None:
    click.echo("\nAgreement: largest difference, relative to the largest value")
    rows = [
        ["native kernels against plain PyTorch, all sequences", f"{findings.agreement:.1e}"],
        ["native kernels against float64, one sequence", f"{findings.errors.fast:.1e}"],
        ["plain PyTorch against float64, one sequence", f"{findings.errors.reference:.1e}"],
    ]
    print_table(["", ""], rows)


def _print_times(findings: Findings) -> None:
    times = findings.times
    click.echo(
        f"\nTime on this machine, now: one sequence of {times.frames} frames, float32, {findings.threads_used}, "
        f"medians of {len(times.fast)} interleaved rounds"
    )
    names = ("plain PyTorch (reference)", f"native kernels ({findings.backend})")
    rows = [[name, f"{1000 * s:.0f}", f"{1 / s:.2f}"] for name, s in zip(names, times.medians)]
    print_table(["", "milliseconds", "sequences a second"], rows)
    click.echo(f"the native kernels are {times.ratio:.2f} times as fast")
    if findings.left_out:
        click.echo(findings.left_out)


def _print_identification(findings: Findings) -> None:
    click.echo("\nIdentification: the known walk nearest to each probe")
    rows = [
        [a.probe.kind, a.probe.name, a.nearest.name, f"{a.distance:.6f}", "right" if a.right else "wrong"]
        for a in findings.answers
    ]
    print_table(["", "probe", "nearest", "distance", ""], rows)
    kinds = dict.fromkeys(answer.probe.kind for answer in findings.answers)
    by_kind = [f"{kind} {hits(a for a in findings.answers if a.probe.kind == kind)}" for kind in kinds]
    click.echo(f"rank-1: {hits(findings.answers)}" + (f" ({'; '.join(by_kind)})" if len(by_kind) > 1 else ""))
    if findings.untrained:
        click.echo("The weights are untrained: this shows who is shaped alike, not what trained weights can do.")
    elif findings.network.knows_walkers_only:
        click.echo("The weights were trained on other rendered walkers: they know nothing about people.")
