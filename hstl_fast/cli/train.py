"""`hstl-fast train`: the training of a network, on one device or many."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hstl_fast.cli.found import print_found
from hstl_fast.cli.options import choice, several
from hstl_fast.cli.output import only_first_process_prints, warn
from hstl_fast.cli.training_output import watch
from hstl_fast.data.found import check_nothing_left_out, write_report
from hstl_fast.data.sequences import Sequences
from hstl_fast.distributed import ProcessError
from hstl_fast.environment import BACKEND
from hstl_fast.evaluation.division import PROTOCOL_OF
from hstl_fast.models.config import PRESETS
from hstl_fast.training import TrainingConfig, TrainingError, TrainingStopped, fit, to_yaml
from hstl_fast.training.checks import ACCELERATORS, LAYOUT_NAMES, PRECISIONS, Plain
from hstl_fast.training.folder import checkpoints_in, step_of
from hstl_fast.training.opengait import is_opengait, opengait_values
from hstl_fast.training.people import open_divided
from hstl_fast.training.plain import Given
from hstl_fast.training.yaml_files import override_values, read_yaml, resolve, yaml_values

# The fields that have options of their own.
_FIELDS = {
    "preset": "network.preset",
    "data": "data.path",
    "layout": "data.layout",
    "partition": "data.partition",
    "output": "output",
    "network": "network.file",
    "hierarchy": "network.hierarchy",
    "start": "network.start",
    "steps": "schedule.steps",
    "lr": "optimizer.lr",
    "precision": "machine.precision",
    "backend": "machine.backend",
    "accelerator": "machine.accelerator",
    "devices": "machine.devices",
    "nodes": "machine.nodes",
    "workers": "data.workers",
    "seed": "seed",
    "evaluate_every": "evaluation.every",
}
# The variables in which launchers other than torchrun number processes and machines.
_RANKS = ("LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
# Errors that the first process has, too, or hears of.
_SAID_BY_THE_FIRST = (ValueError, TrainingError, ProcessError, ImportError)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    return several(
        choice("--preset", PRESETS, help="Network, whose published training is the default; casia-b if none is named."),
        click.option("--data", metavar="PATH", help="Data set or packed file to learn from."),
        choice("--layout", LAYOUT_NAMES, help="How the folders of the data are laid out; by default auto."),
        click.option("--partition", metavar="FILE.json", type=_FILE, help="TRAIN_SET and TEST_SET of people."),
        click.option("-o", "--output", metavar="FOLDER", help="Folder of the training: checkpoints and logs."),
        click.option(
            "--config",
            "files",
            metavar="FILE.yaml",
            multiple=True,
            type=_FILE,
            help="Settings; later files win.",
        ),
        click.option(
            "--opengait", metavar="FILE.yaml", type=_FILE, help="OpenGait's settings; prints which mean nothing here."
        ),
        click.option("--network", metavar="FILE.json", type=_FILE, help="Another network, as an HSTLConfig."),
        click.option("--hierarchy", metavar="FILE.json", type=_FILE, help="Regions that `hierarchy` has found."),
        click.option("--start", metavar="FILE.pt", type=_FILE, help="Checkpoint whose weights are the first ones."),
        click.option("--steps", metavar="N", help="Number of steps."),
        click.option("--batch", metavar="PxK", help="People and sequences of each in a step, such as 8x8."),
        click.option("--lr", metavar="X", help="Learning rate at the start."),
        choice("--precision", PRECISIONS, help="Of products; by default float32, else mixed."),
        choice("--backend", BACKEND.choices, help="What computes the layers; by default auto."),
        choice("--accelerator", ACCELERATORS, help="Kind of device; by default auto."),
        click.option("--devices", metavar="N", help="Devices on each machine; by default all GPUs, or one CPU."),
        click.option("--nodes", metavar="N", help="Machines; by default one."),
        click.option("--workers", metavar="N", help="Processes that read; by default two."),
        click.option("--seed", metavar="N", help="Seed of weights, batches and random changes."),
        click.option("--evaluate-every", metavar="N", help="Steps between evaluations of the test people."),
    )(command)


@click.command(short_help="Train a network.")
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@_options
@click.option("--print-config", is_flag=True, help="Print the whole configuration as YAML, and exit.")
@click.option("--strict", is_flag=True, help="Stop where any of the data would be left out.")
@click.option(
    "--report", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path), help="List what is left out."
)
def train(
    overrides: tuple[str, ...],
    files: tuple[Path, ...],
    opengait: Path | None,
    batch: str | None,
    print_config: bool,
    strict: bool,
    report: Path | None,
    **options: Any,
) -> None:
    """Train a network on the training people of a data set.

    The preset's defaults come first, then YAML files, options, and FIELD=VALUE such as loss.margin=0.3; --print-config
    shows all fields. A training that was stopped goes on by the same command, from the newest checkpoint in its folder.

    `torchrun --nproc-per-node 4 -m hstl_fast train ...` or SLURM's `srun` trains on several devices.
    """
    with only_first_process_prints(_rank()):
        files = files if opengait is None else (opengait, *files)
        layers = [_values(file, file == opengait) for file in files]
        config = resolve([*layers, _given(options, batch), override_values(overrides)])
        for remark in config.remarks:
            warn(f"Note: {remark}")
        if print_config:
            click.echo(to_yaml(config), nl=False)
            return
        _train(config, strict, report)


def _rank() -> int:
    """A number that is 0 in the first of the processes that torchrun, SLURM or Lightning has started only."""
    names = ("RANK",) if os.environ.get("RANK") else _RANKS
    found = (os.environ.get(name, "") for name in names)
    return max(int(number) if number.isdecimal() else 0 for number in found)


def _values(file: Path, is_named: bool) -> dict[str, Given]:
    document = read_yaml(file)
    if not is_named and not is_opengait(document):
        return yaml_values(document)
    imported = opengait_values(document)
    for sentence in imported.not_taken:
        warn(f"{file}: not taken: {sentence}")
    return imported.values


def _given(options: dict[str, Any], batch: str | None) -> dict[str, Given]:
    """The values of the options that are given."""
    values = {
        _FIELDS[name]: Given(Plain(value), f"--{name.replace('_', '-')}")
        for name, value in options.items()
        if value is not None
    }
    if batch is not None:
        sizes = re.fullmatch(r"\s*(\d+)\s*[xX×,]\s*(\d+)\s*", batch)
        if sizes is None:
            raise click.BadParameter(
                f"expected people x sequences of each, such as 8x8; got {batch!r}", param_hint="--batch"
            )
        values["batch.people"], values["batch.sequences"] = (Given(Plain(size), "--batch") for size in sizes.groups())
    return values


def _train(config: TrainingConfig, strict: bool, report: Path | None) -> None:
    if not config.data.path:
        raise click.UsageError("expected data to learn from: --data PATH, or data.path in a configuration")
    if not config.output:
        raise click.UsageError("expected a folder of the training: --output FOLDER, or output in a configuration")
    sequences = _find(config, strict, report if _rank() == 0 else None)
    if before := checkpoints_in(Path(config.output)):
        warn(f"{config.output}: going on from {before[0].name}")
    try:
        with watch(config) as watcher:
            last = fit(config, watcher=watcher)
    except TrainingStopped as stopped:
        warn(f"The training was {stopped}.")
        raise click.exceptions.Exit(1 if stopped.signal is None else 128 + stopped.signal) from stopped
    except _SAID_BY_THE_FIRST:
        raise
    except Exception as error:
        if rank := _rank():
            # The first process cannot know this, and prints no more than that it lost another one.
            click.echo(f"Error in process {rank}: {' '.join(str(error).split())}", file=sys.__stderr__)
        raise
    click.echo(f"{last}: {step_of(last)} steps")
    if sequences.partition is not None and sequences.partition.test:
        click.echo(f"Evaluate it: {_evaluation_command(config, last)}")


def _find(config: TrainingConfig, strict: bool, report: Path | None) -> Sequences:
    """Open the data, in all processes, so that none waits for another one that cannot."""
    sequences = open_divided(config.data)
    print_found(sequences)
    if report is not None:
        write_report(report, sequences)
    if strict:
        check_nothing_left_out(sequences)
    return sequences


def _evaluation_command(config: TrainingConfig, checkpoint: Path) -> str:
    protocol = config.evaluation.protocol or PROTOCOL_OF[config.network.preset]
    words = ["hstl-fast", "evaluate", "--protocol", protocol, config.data.path, "--checkpoint", str(checkpoint)]
    is_grew = config.network.preset == "grew" and config.network.file is config.network.hierarchy is None
    more = {
        "--layout": config.data.layout if config.data.layout != "auto" else None,
        "--partition": config.data.partition,
        "--preset": "grew" if is_grew else None,
        "--metric": config.evaluation.metric if config.evaluation.metric != "euclidean" else None,
        "--max-frames": config.evaluation.max_frames,
    }
    for option, value in more.items():
        words += [] if value is None else [option, str(value)]
    return shlex.join(words)
