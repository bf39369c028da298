"""The loop of a training: steps, and what is written between them."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from hstl_fast import checkpoints
from hstl_fast.data import IdentityBalancedSampler, TrainingBatch, TrainingData, Workers, training_loader
from hstl_fast.distributed import ProcessError
from hstl_fast.models import HSTL
from hstl_fast.progress import Progress
from hstl_fast.signals import Ending
from hstl_fast.training import folder, state
from hstl_fast.training.batch_norm import plain_batch_norm
from hstl_fast.training.clock import Clock
from hstl_fast.training.config import TrainingConfig
from hstl_fast.training.log import Log, peak_memory
from hstl_fast.training.module import TrainingModule
from hstl_fast.training.plain import config_dict
from hstl_fast.training.processes import Processes, is_lost_connection
from hstl_fast.training.stopping import outlive_signals
from hstl_fast.training.surroundings import surroundings
from hstl_fast.training.watch import Watch, fault_of_weights, first_fault, gradient_norm
from hstl_fast.training.watcher import Status, TrainingError, TrainingStopped, Watcher

# Called as `evaluate(model, config, step)`; it returns results by name, which JSON can hold.
Evaluate = Callable[[HSTL, TrainingConfig, int], dict[str, Any]]


@dataclass
class Parts:
    """The parts of a training.

    Attributes:
        config: Its configuration.
        processes: This process and those beside it.
        data: The windows of the training people's sequences.
        module: The network and its losses.
        wrapped: The module as Lightning Fabric wraps it.
        optimizer: The optimiser itself.
        stepper: The optimiser as Fabric wraps it.
        scheduler: The learning rates.
        watcher: Told what happens; used in the first process.
        progress: Called with the number of the step; used in the first process.
        evaluate: Evaluates the network, or None.
    """

    config: TrainingConfig
    processes: Processes
    data: TrainingData
    module: TrainingModule
    wrapped: Any
    optimizer: torch.optim.Optimizer
    stepper: Any
    scheduler: LambdaLR
    watcher: Watcher
    progress: Progress
    evaluate: Evaluate | None

    @property
    def output(self) -> Path:
        """The folder of the training."""
        return Path(self.config.output)

    @property
    def model(self) -> HSTL:
        """The network."""
        return self.module.model


class Loop:
    """The steps of a training from the one that its parts stand at.

    Args:
        parts: The parts, which have been restored where the training goes on.
        step: Number of steps that were made.
        saved: The checkpoint that it goes on from, or None.
    """

    def __init__(self, parts: Parts, step: int, saved: state.Found | None) -> None:
        self._parts, self._step, self._start = parts, step, step
        self._last = None if saved is None else saved.path
        saving, is_first = parts.config.saving, parts.processes.is_first
        self._log = Log(parts.output, saving.log_every, step, saving.tensorboard and is_first, parts.watcher)
        self._watch = Watch(parts.config.loss.margin)
        self._clock = Clock(parts.processes.device)
        self._weights = list(parts.model.parameters())
        self._begun = time.perf_counter()
        if saved is not None:
            training = saved.checkpoint.training or {}
            self._log.restore(training["log"])
            self._watch.restore(training["watch"])
        parts.module.mark = self._clock.mark

    def run(self) -> Path:
        """Make all steps.

        Returns:
            The last checkpoint.

        Raises:
            TrainingError: A loss or gradient is not finite.
            TrainingStopped: A signal came.
            ProcessError: Another process has ended.
        """
        steps = self._parts.config.schedule.steps
        try:
            with Ending() as stopping:
                self._evaluate_what_is_missing()
                if self._step < steps:
                    self._make_steps(stopping)
                if self._last != self._path:
                    self._save()
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise ProcessError(
                f"step {self._step}: another process has ended or cannot be reached; {self._where_to_go_on()}, and the "
                f"same command goes on from there ({' '.join(str(error).split())})"
            ) from error
        finally:
            self._log.close()
        if self._step < steps:
            stopped = TrainingStopped(
                f"stopped{_by(stopping)} after {self._step} of {steps} steps; the checkpoint {self._path} is written, "
                "and the same command goes on from there"
            )
            stopped.signal = stopping.signal
            raise stopped
        return self._path

    @property
    def _path(self) -> Path:
        """The checkpoint of the steps that were made."""
        return folder.checkpoint_path(self._parts.output, self._step)

    def _batches(self) -> Iterator[TrainingBatch]:
        parts, config = self._parts, self._parts.config
        sampler = IdentityBalancedSampler(
            parts.data.sequences.labels,
            config.batch.people,
            config.batch.sequences,
            seed=config.seed,
            steps=config.schedule.steps,
            first_step=self._step,
            rank=parts.processes.rank,
            processes=parts.processes.size,
        )
        workers = Workers(config.data.workers, pin_memory=parts.processes.device.type == "cuda")
        loader = training_loader(parts.data, sampler, workers)
        loader.worker_init_fn = outlive_signals
        # A loader draws the seed of its workers from torch's generator, where a training that goes on must find what
        # one that was not stopped finds.
        before = torch.get_rng_state()
        batches = iter(loader)
        torch.set_rng_state(before)
        return batches

    def _make_steps(self, stopping: Ending) -> None:
        batches = self._batches()
        try:
            self._clock.start()
            for batch in _with_plain_errors(batches):
                if self._make_step(batch, stopping):
                    break
                self._clock.start()
        finally:
            del batches  # and with it the processes that read, which an exception would keep otherwise

    def _make_step(self, batch: TrainingBatch, stopping: Ending) -> bool:
        """Make a step, write what is due after it, and return whether to stop."""
        parts, clock = self._parts, self._clock
        silhouettes = batch.silhouettes.to(parts.processes.device, non_blocking=True)
        targets = batch.targets.to(parts.processes.device, non_blocking=True)
        clock.mark("data")
        parts.optimizer.zero_grad(set_to_none=True)
        losses = parts.wrapped(silhouettes, targets)
        parts.processes.fabric.backward(losses["loss"])
        clock.mark("backward")
        if parts.processes.scaler is not None:
            parts.processes.scaler.unscale_(parts.optimizer)
        norm = gradient_norm(self._weights)
        # This is the only place where the host waits for the device.
        *values, norm_value = torch.stack([*losses.values(), norm]).tolist()
        *values, stop = parts.processes.means([*values, float(stopping.signal is not None)])
        found = dict(zip(losses, values))
        self._check(found, norm_value, silhouettes, targets)
        lr = parts.optimizer.param_groups[0]["lr"]
        parts.stepper.step()
        with nullcontext() if parts.processes.scaler is None else _skipped_steps_are_fine():
            parts.scheduler.step()
        clock.mark("optimizer")
        self._step += 1
        self._log.add({**found, "gradient_norm": norm_value} if math.isfinite(norm_value) else found)
        self._write_what_is_due(found, lr, silhouettes.shape[1])
        return stop > 0

    def _check(self, losses: dict[str, float], norm: float, silhouettes: Tensor, targets: Tensor) -> None:
        """Stop at a value that is not finite, before any weight changes."""
        parts = self._parts
        fault = self._watch.fault(losses, norm, parts.processes.scaler is not None)
        if fault is None:
            return

        def compute() -> None:
            with parts.processes.fabric.autocast():
                loss = parts.module(silhouettes, targets)["loss"]
            (loss if parts.processes.scaler is None else parts.processes.scaler.scale(loss)).backward()

        where = first_fault(parts.module, compute)
        raise TrainingError(
            f"step {self._step}: {fault}; {where}; nothing of this step is saved, {self._where_to_go_on()}"
        )

    def _where_to_go_on(self) -> str:
        return "there is no checkpoint yet" if self._last is None else f"the last good checkpoint is {self._last}"

    def _write_what_is_due(self, losses: dict[str, float], lr: float, frames: int) -> None:
        parts, steps = self._parts, self._parts.config.schedule.steps
        saving = parts.config.saving
        notice = self._watch.collapse(losses.get("triplet"))
        if parts.processes.is_first:
            if notice is not None:
                self._log.notice(self._step, notice)
            if self._log.is_due(self._step):
                self._log.write(self._step, self._measured(lr, frames))
            parts.watcher.on_step(Status(self._step, steps, losses["loss"], lr, self._seconds_left()))
            parts.progress("training", self._step, steps)
        if self._step % saving.every == 0:
            self._save()
        if self._is_time_to_evaluate():
            self._evaluate()

    def _measured(self, lr: float, frames: int) -> dict[str, float]:
        times = self._clock.medians()
        batch = self._parts.config.batch
        speed = batch.people * batch.sequences * frames / times["step_s"] if times else 0.0
        memory = peak_memory(self._parts.processes.device)
        return {"lr": lr, **times, "frames_per_s": speed, "peak_memory": memory}

    def _seconds_left(self) -> float:
        """The time until the end by the steps so far, but for the first one, which starts readers and kernels."""
        now, made = time.perf_counter(), self._step - self._start
        per_step = (now - self._begun) / max(1, made - 1)
        if made == 1:
            self._begun = now
        return per_step * (self._parts.config.schedule.steps - self._step)

    def _save(self) -> None:
        self._parts.processes.together(self._write_checkpoint, first_only=True)
        self._last = self._path

    def _write_checkpoint(self) -> None:
        parts = self._parts
        fault = fault_of_weights(parts.model)
        if fault is not None:
            raise TrainingError(f"step {self._step}: {fault}; nothing of this step is saved, {self._where_to_go_on()}")
        training = {
            "config": config_dict(parts.config),
            "classes": list(parts.data.classes),
            "surroundings": surroundings(parts.data.sequences, parts.processes.size),
            "generators": state.generators(),
            "scaler": None if parts.processes.scaler is None else parts.processes.scaler.state_dict(),
            "log": self._log.state(),
            "watch": self._watch.state(),
        }
        optimizer, scheduler = parts.optimizer.state_dict(), parts.scheduler.state_dict()
        checkpoints.save_checkpoint(self._path, parts.model, optimizer, scheduler, self._step, training)
        folder.remove_old_checkpoints(parts.output, parts.config.saving.keep)

    def _is_time_to_evaluate(self) -> bool:
        every = self._parts.config.evaluation.every
        return self._parts.evaluate is not None and every > 0 and self._step > 0 and self._step % every == 0

    def _evaluate_what_is_missing(self) -> None:
        """Evaluate the checkpoint that the training goes on from, if it was stopped before that was done."""
        if not self._is_time_to_evaluate():
            return
        lines = folder.read_lines(self._parts.output / folder.EVALUATION)
        if not self._parts.processes.share(any(line["step"] == self._step for line in lines)):
            self._evaluate()

    def _evaluate(self) -> None:
        """Evaluate in the first process, after a checkpoint, since it may take long."""
        if self._last != self._path:
            self._save()
        self._parts.processes.together(self._evaluate_here, first_only=True)

    def _evaluate_here(self) -> None:
        parts = self._parts
        assert parts.evaluate is not None
        with plain_batch_norm(parts.model), state.seeded(parts.config.seed):
            parts.model.eval()
            results = parts.evaluate(parts.model, parts.config, self._step)
        parts.model.train()
        self._log.evaluation(self._step, results)


def _with_plain_errors(batches: Iterator[TrainingBatch]) -> Iterator[TrainingBatch]:
    """Yield the batches; an error of a process that reads says what it said there, without the traceback."""
    try:
        yield from batches
    except Exception as error:
        name = type(error).__name__
        said = re.match(rf"Caught {name} in DataLoader worker process \d+\.\n.*\n[\w.]*{name}: (.*)", str(error), re.S)
        if said is None:
            raise
        raise type(error)(said[1].strip()) from error


@contextmanager
def _skipped_steps_are_fine() -> Iterator[None]:
    """Keep torch from taking a step that the scaler of float16 has skipped for a mistake in the order of calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        yield


def _by(stopping: Ending) -> str:
    return "" if stopping.signal is None else f" by {stopping.signal.name}"
