"""`hstl-fast demo --train`: a network trained on rendered walkers, with a report."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import hstl_fast.info
from hstl_fast.cli.embedding import Settings
from hstl_fast.cli.options import several
from hstl_fast.cli.output import print_table, progress_bar, warn
from hstl_fast.files import atomic_file
from hstl_fast.options import BACKEND

_FEWEST_PEOPLE = 6
# Options of the demo that a training has no use for.
_OTHERS = ("video", "identities", "preset", "checkpoint", "max_frames")
# A pipe gets so many lines about the steps of a training.
_LINES = 10


@dataclass(frozen=True)
class TrainingOptions:
    """The values of the options of a training; None where the user gives none."""

    steps: int | None
    people: int | None
    keep: Path | None
    compare_reference: bool

    @classmethod
    def take(cls, options: Mapping[str, Any]) -> tuple[dict[str, Any], TrainingOptions | None]:
        """Divide the options of the command.

        Args:
            options: All of them by name.

        Returns:
            The other options, and those of a training, or None where no training is asked for.

        Raises:
            click.UsageError: Options of a training stand without `--train`, or others beside it.
        """
        names = ("steps", "people", "keep", "compare_reference")
        others = {name: value for name, value in options.items() if name not in (*names, "train")}
        context = click.get_current_context()
        unfit = _OTHERS if options["train"] else names
        given = [name for name in unfit if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise click.UsageError(
                f"{flags}: {'cannot be combined with --train' if options['train'] else '--train is missing'}"
            )
        return others, cls(**{name: options[name] for name in names}) if options["train"] else None


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command with the options of a training, which `TrainingOptions.take` reads."""
    return several(
        click.option("--train", is_flag=True, help="Train a small network on rendered walkers, and evaluate it."),
        click.option("--steps", type=click.IntRange(1, 100_000), help="With --train: steps of the training."),
        click.option(
            "--people",
            type=click.IntRange(_FEWEST_PEOPLE, 999),
            help="With --train: walkers; five of seven are learnt from, the others are the test.",
        ),
        click.option(
            "--keep",
            metavar="FOLDER",
            type=click.Path(file_okay=False, path_type=Path),
            help="With --train: keep the walkers, the hierarchy and the checkpoints, and go on with what is there.",
        ),
        click.option(
            "--compare-reference", is_flag=True, help="With --train: train once more in plain PyTorch, and compare."
        ),
    )(command)


def train(wanted: TrainingOptions, settings: Settings, output: Path) -> None:
    """Run the training, print its table and write the report.

    Args:
        wanted: The options of the training.
        settings: The backend and the seed.
        output: The report to write.

    Raises:
        click.ClickException: The trained network is no better than guessing.
        ImportError: A package of the extras `[train]` or `[hierarchy]` is missing.
    """
    from hstl_fast.demo.report.training import training_page
    from hstl_fast.demo.training.plan import Plan
    from hstl_fast.demo.training.running import train_again, train_demo

    plan = Plan(backend=settings.backend or BACKEND.value())
    plan = plan if wanted.people is None else plan.with_people(wanted.people)
    plan = plan if wanted.steps is None else replace(plan, steps=wanted.steps)
    plan = plan if settings.seed is None else replace(plan, seed=settings.seed)
    click.echo(
        f"{plan.train} rendered walkers to learn from, {plan.test} others to tell apart; "
        f"views {', '.join(f'{view}°' for view in plan.views)}; {plan.steps} steps, seed {plan.seed}"
    )
    with _folder(wanted.keep) as folder:
        with progress_bar() as advance:
            trained = train_demo(plan, folder, advance, _live("training"))
        _print(trained)
        with atomic_file(output) as draft:
            draft.write_text(training_page(trained, hstl_fast.info.collect()), encoding="utf-8")
        click.echo(f"\n{output}: the report, with pictures; open it in a browser")
        if wanted.keep is not None:
            click.echo(f"{trained.checkpoint}: the network, for --checkpoint of embed, identify and demo")
        if wanted.compare_reference:
            watcher = _live("training by the reference")
            _print_comparison(trained, train_again(trained, folder, "reference", watcher=watcher))
    if trained.scores.rates["NM"] <= trained.chance:
        raise click.ClickException(
            f"the trained network is no better than guessing: expected a rank-1 above {trained.chance:.1f} %, "
            f"got {trained.scores.rates['NM']:.1f} %"
        )


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="hstl-fast-demo-") as folder:
        yield Path(folder)


def _live(stage: str) -> Any:
    """A watcher that shows loss and time left: on one line of a terminal, or on some lines of a pipe."""
    from hstl_fast.training import Status, Watcher

    class Live(Watcher):
        def on_step(self, status: Status) -> None:
            line = (
                f"{stage}: step {status.step} of {status.steps}, loss {status.loss:.3f}, "
                f"about {status.seconds_left:.0f} s left"
            )
            if sys.stderr.isatty():
                end = "\n" if status.step == status.steps else ""
                click.echo(f"\r{line}\x1b[K{end}", nl=False, err=True)
            elif status.step == status.steps or status.step % max(1, status.steps // _LINES) == 0:
                warn(line)

        def on_notice(self, sentence: str) -> None:
            warn(f"{stage}: {sentence}")

    return Live()


def _print(trained: Any) -> None:
    names = list(trained.scores.rates)
    counts = trained.scores.counts
    click.echo(
        "\nHierarchy of the body, found from the walkers to learn from, in eighths of the height from head to feet:"
    )
    click.echo(" -> ".join(" + ".join(map(str, split)) for split in trained.hierarchy.splits()))
    click.echo(
        f"\nRank-1 in percent, protocol of CASIA-B, identical views excluded: {counts['people']} people not seen in "
        f"the training, {counts['probes']} probes, {counts['gallery']} known walks"
    )
    rows = [
        ["trained network", *(f"{trained.scores.rates[name]:.1f}" for name in names)],
        ["the same, untrained", *(f"{trained.untrained.rates[name]:.1f}" for name in names)],
        ["gait-energy image", *(f"{trained.energy.rates[name]:.1f}" for name in names)],
        ["guessing", *(f"{trained.chance:.1f}" for _ in names)],
    ]
    print_table(["", *names], rows)
    click.echo("\nSeconds: " + ", ".join(f"{name} {seconds:.0f}" for name, seconds in trained.seconds.items()))
    click.echo("The walkers are rendered: this shows that the network learns, and says nothing about people.")


def _print_comparison(trained: Any, compared: Any) -> None:
    names = list(trained.scores.rates)
    ours, theirs = trained.loop_seconds, compared.loop_seconds
    click.echo("\nThe same training in plain PyTorch:")
    rows = [
        ["native kernels", *(f"{trained.scores.rates[name]:.1f}" for name in names), f"{ours:.0f}"],
        ["plain PyTorch (reference)", *(f"{compared.scores.rates[name]:.1f}" for name in names), f"{theirs:.0f}"],
    ]
    print_table(["", *names, "seconds"], rows)
    click.echo(f"plain PyTorch takes {theirs / ours:.2f} times as long")
