"""The entry to a training: everything is checked and made here, then the loop runs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hstl_fast.checkpoints import load_weights
from hstl_fast.data import TrainingData
from hstl_fast.models import HSTL, HSTLConfig
from hstl_fast.ops._dispatch import use_backend
from hstl_fast.progress import Progress, silent
from hstl_fast.training import folder, state
from hstl_fast.training.batch_norm import use_global_batch_norm
from hstl_fast.training.config import TrainingConfig
from hstl_fast.training.differences import differences
from hstl_fast.training.evaluating import check_evaluation, evaluate_model
from hstl_fast.training.loop import Evaluate, Loop, Parts
from hstl_fast.training.module import TrainingModule
from hstl_fast.training.optimization import make_optimizer, make_scheduler, restore_rates
from hstl_fast.training.people import network_of, open_training_data
from hstl_fast.training.plain import config_dict
from hstl_fast.training.processes import Processes, launch
from hstl_fast.training.surroundings import surroundings
from hstl_fast.training.watch import fault_of_weights
from hstl_fast.training.watcher import TrainingError, Watcher
from hstl_fast.training.yaml_files import write_config


def fit(config: TrainingConfig, progress: Progress = silent, watcher: Watcher | None = None) -> Path:
    """Train a network, or go on with a training from the newest checkpoint in its folder.

    On a CPU, a training that was stopped at any moment, however that was, comes to the same weights as one that was
    not. Started by torchrun or SLURM, or with several devices, the processes train one network on batches that they
    share; each calls this function, and the first one writes and reports.

    Args:
        config: The configuration.
        progress: Called with the number of each step.
        watcher: Told of steps, lines of the log and whatever the user should know; None for warnings alone.

    Returns:
        The last checkpoint, which `HSTL.from_official_checkpoint` reads.

    Raises:
        ImportError: A package of the extra `[train]` is missing.
        DataError: There is no data set, or no sequence of its training people.
        ValueError: The configuration does not fit the data or the machine; the message names the field.
        OSError: A file cannot be read or written.
        TrainingError: A loss or gradient is not finite, or what is in the folder does not fit.
        TrainingStopped: A signal came; the same call goes on.
        RuntimeError: Another process failed, or another training writes into the folder.
    """
    return run(config, progress, watcher or Watcher(), evaluate_model)


def run(config: TrainingConfig, progress: Progress, watcher: Watcher, evaluate: Evaluate | None) -> Path:
    """Train a network as `fit` does.

    Args:
        config: The configuration.
        progress: As in `fit`.
        watcher: As in `fit`.
        evaluate: Evaluates the network every `evaluation.every` steps; None to leave it out.

    Returns:
        The last checkpoint.

    Raises:
        ValueError: As in `fit`.
    """
    for field, value in (("output", config.output), ("data.path", config.data.path)):
        if not value:
            raise ValueError(f"{field}: expected a path, got none")
    output = Path(config.output)
    with ExitStack() as stack:
        processes = stack.enter_context(launch(config.machine))
        _check_shares(config, processes)
        stack.enter_context(use_backend(config.machine.backend))
        stack.enter_context(state.seeded(config.seed))
        if processes.device.type == "cpu" and config.machine.precision == "float16" and processes.is_first:
            watcher.on_notice("machine.precision: float16 on a CPU is slow, since plain torch computes it")
        data = processes.together(lambda: open_training_data(config))
        assert data is not None
        if evaluate is not None:
            processes.together(lambda: check_evaluation(config), first_only=True)
        processes.together(lambda: stack.enter_context(folder.locked(output)), first_only=True)
        saved = _saved(processes, output, watcher)
        parts = _parts(config, processes, data, saved, (progress, watcher, evaluate))
        step = 0 if saved is None else saved.checkpoint.iteration
        if saved is not None:
            _restore(parts, saved)
        processes.together(lambda: _prepare_files(config, step), first_only=True)
        if step >= config.schedule.steps and saved is not None and processes.is_first:
            more = f" and {step - config.schedule.steps} more" if step > config.schedule.steps else ""
            watcher.on_notice(f"{saved.path}: all {config.schedule.steps} steps{more} were made before")
        return Loop(parts, step, saved).run()


def _check_shares(config: TrainingConfig, processes: Processes) -> None:
    batch = config.batch.people * config.batch.sequences
    if batch % processes.size:
        raise ValueError(
            f"batch: expected people x sequences that {processes.size} processes can share equally, "
            f"got {config.batch.people} x {config.batch.sequences} = {batch}"
        )


def _prepare_files(config: TrainingConfig, step: int) -> None:
    output = Path(config.output)
    folder.cut_back(output, step)
    write_config(output / folder.CONFIG, config)


def _saved(processes: Processes, output: Path, watcher: Watcher) -> state.Found | None:
    """The newest checkpoint that can be read, the same in all processes."""
    path = processes.share(
        processes.together(lambda: state.newest(output, watcher.on_notice), first_only=True),
    )
    return None if path is None else processes.together(lambda: state.read(path))


def _parts(
    config: TrainingConfig,
    processes: Processes,
    data: TrainingData,
    saved: state.Found | None,
    callbacks: tuple[Progress, Watcher, Evaluate | None],
) -> Parts:
    shape = network_of(config.network, len(data.classes))
    if saved is not None:
        _check_fits(saved, shape, data, config)
    model = _model(config, shape, data, saved).train()
    if processes.size > 1 and config.machine.sync_batch_norm:
        use_global_batch_norm(model)
    if config.machine.compile:
        model.compile()
    module = TrainingModule(model, config.loss, processes.size)
    optimizer = make_optimizer(config.optimizer, model.parameters())
    wrapped, stepper = processes.fabric.setup(module, optimizer)
    scheduler = make_scheduler(config.schedule, optimizer)
    progress, watcher, evaluate = callbacks
    return Parts(config, processes, data, module, wrapped, optimizer, stepper, scheduler, watcher, progress, evaluate)


def _model(config: TrainingConfig, shape: HSTLConfig, data: TrainingData, saved: state.Found | None) -> HSTL:
    if saved is not None:
        return saved.checkpoint.model
    if config.network.start is not None:
        model = load_weights(config.network.start, shape, config.network.new_classifier, data.classes)
        if fault := fault_of_weights(model):
            raise ValueError(f"network.start: {config.network.start}: {fault}")
        return model
    return HSTL(shape)


def _restore(parts: Parts, saved: state.Found) -> None:
    """Set everything but the network to what the checkpoint holds, and say which configuration it goes on with."""
    checkpoint = saved.checkpoint
    training: Mapping[str, Any] = checkpoint.training or {}
    parts.optimizer.load_state_dict(checkpoint.optimizer or {})
    parts.scheduler.load_state_dict(checkpoint.scheduler or {})
    restore_rates(parts.config.optimizer, parts.optimizer, parts.scheduler)
    if parts.processes.scaler is not None and training["scaler"] is not None:
        parts.processes.scaler.load_state_dict(training["scaler"])
    state.restore_generators(training["generators"])
    found = differences(training["config"], config_dict(parts.config))
    now = surroundings(parts.data.sequences, parts.processes.size)
    found += differences(training.get("surroundings", now), now)
    if found and parts.processes.is_first:
        parts.watcher.on_notice(f"{saved.path}: the training goes on with other settings: {'; '.join(found)}")


def _check_fits(saved: state.Found, shape: HSTLConfig, data: TrainingData, config: TrainingConfig) -> None:
    training, before = saved.checkpoint.training or {}, saved.checkpoint.model.config
    classes = list(data.classes)
    if training["classes"] != classes:
        raise TrainingError(
            f"{saved.path}: expected the people that the training began with, {_described(training['classes'])}; "
            f"got {_described(classes)}{_first_difference(training['classes'], classes)}; with another output folder, "
            f"network.start={saved.path} and "
            "network.new_classifier=true a new training begins from these weights"
        )
    if before != shape:
        changed = [name for name, value in shape.to_dict().items() if before.to_dict()[name] != value]
        raise TrainingError(
            f"{saved.path}: expected the network that the training began with, got another {', '.join(changed)}; "
            "another network needs another output folder"
        )
    optimizer = training["config"]["optimizer"]["name"]
    if optimizer != config.optimizer.name:
        raise TrainingError(
            f"{saved.path}: optimizer.name: expected {optimizer}, whose state is stored, got {config.optimizer.name}"
        )


def _first_difference(before: list[str], now: list[str]) -> str:
    """Say where two lists of people differ, if their descriptions are the same."""
    if _described(before) != _described(now):
        return ""
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    return f" without {', '.join(gone[:3])}, but with {', '.join(new[:3])}" if gone else " in another order"


def _described(classes: list[str]) -> str:
    return f"{len(classes)} ({', '.join(classes[:3])}{', ...' if len(classes) > 3 else ''})"
