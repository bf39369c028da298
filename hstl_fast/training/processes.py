"""The processes of a training: how Lightning Fabric starts them or finds those that torchrun or SLURM has started."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist

from hstl_fast.distributed import ProcessError
from hstl_fast.silhouettes import extras
from hstl_fast.training.config import MachineConfig

_Result = TypeVar("_Result")
# A process that waits so long for another one gives up.
TIMEOUT = timedelta(minutes=30)
# While the first process evaluates, the others wait so long for it.
LONG_TIMEOUT = timedelta(days=1)
_PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed", "float16": "16-mixed"}


class Layout(NamedTuple):
    """Processes, one for each device.

    Attributes:
        devices: Their number on each machine, or the devices' indices.
        nodes: Number of machines.
    """

    devices: int | list[int]
    nodes: int

    @property
    def processes(self) -> int:
        """The number of all processes."""
        return self.nodes * (self.devices if isinstance(self.devices, int) else len(self.devices))


class Processes:
    """This process and those beside it.

    `hstl_fast.distributed.Processes` shares out independent work through a store alone; these train one network in a
    process group, which Fabric has made.

    Attributes:
        fabric: Lightning Fabric, which moves the network to the device, wraps it and sets the precision.
        scaler: The scaler of float16's gradients, or None.
    """

    def __init__(self, fabric: Any, scaler: torch.amp.GradScaler | None) -> None:
        self.fabric, self.scaler = fabric, scaler
        self.size: int = fabric.world_size
        self.rank: int = fabric.global_rank
        self.device: torch.device = fabric.device
        self._waiting = dist.new_group(backend="gloo", timeout=LONG_TIMEOUT) if self.size > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0

    def together(self, work: Callable[[], _Result], *, first_only: bool = False) -> _Result | None:
        """Do some work in every process, and wait for all; an error in one process is an error in all.

        Args:
            work: A function.
            first_only: Whether the first process alone does it.

        Returns:
            The result of this process, or None if it did nothing.

        Raises:
            ProcessError: Another process failed.
            Exception: Whatever `work` raises here.
        """
        if self.size == 1:
            return work()
        result, error = None, None
        if self.is_first or not first_only:
            try:
                result = work()
            except Exception as raised:
                error = raised
        sentence = None if error is None else " ".join(str(error).split()) or type(error).__name__
        sentences: list[str | None] = [None] * self.size
        dist.all_gather_object(sentences, sentence, group=self._waiting)
        if error is not None:
            raise error
        for rank, other in enumerate(sentences):
            if other is not None:
                raise ProcessError(f"process {rank} of {self.size}: {other}")
        return result

    def share(self, value: _Result) -> _Result:
        """Return the value that the first process gives.

        Args:
            value: The value; only that of the first process counts.

        Returns:
            The first process's value.
        """
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._waiting)
        return values[0]

    def means(self, values: list[float]) -> list[float]:
        """Compute the means of some numbers over processes.

        Args:
            values: The numbers of this process.

        Returns:
            The means.
        """
        if self.size == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums, group=self._waiting)
        means: list[float] = (sums / self.size).tolist()
        return means


@contextmanager
def launch(machine: MachineConfig) -> Iterator[Processes]:
    """Start the processes of a training, or join those that torchrun or SLURM has started.

    Args:
        machine: Devices and number format.

    Yields:
        The processes; where several are started from here, each runs the program from its beginning.

    Raises:
        ImportError: Lightning Fabric is missing, from the extra `[train]`.
        ValueError: The devices are not there, or are not as many as the processes that were started.
        RuntimeError: The processes cannot find one another.
    """
    lightning = extras.fabric()
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    accelerator = _accelerator(machine)
    layout = _layout(machine, accelerator)
    scaler = torch.amp.GradScaler(accelerator) if machine.precision == "float16" else None
    fabric = lightning.Fabric(
        accelerator=accelerator,
        devices=layout.devices,
        num_nodes=layout.nodes,
        strategy=_strategy(layout),
        **_precision(machine, accelerator, scaler),
    )
    was_initialised = _is_initialised()
    try:
        with _sentences():
            fabric.launch()
        yield Processes(fabric, scaler)
    finally:
        if _is_initialised() and not was_initialised:
            dist.destroy_process_group()


def is_lost_connection(error: RuntimeError) -> bool:
    """Return whether an error says that another process has ended or does not answer.

    Args:
        error: An error of a collective operation, or another one.

    Returns:
        Whether it is one of torch's backends of collectives.
    """
    return _is_initialised() and (isinstance(error, dist.DistError) or "gloo" in str(error).lower())


def _is_initialised() -> bool:
    return dist.is_available() and dist.is_initialized()


def _accelerator(machine: MachineConfig) -> str:
    if machine.accelerator in ("cuda", "gpu", "auto"):
        if torch.cuda.is_available():
            return "cuda"
        if machine.accelerator != "auto":
            raise ValueError("machine.accelerator: expected a GPU that torch can use, got none; use cpu or auto")
        return "cpu"
    return machine.accelerator


def _layout(machine: MachineConfig, accelerator: str) -> Layout:
    asked = _devices(machine.devices)
    started = _started()
    if started is None:
        count = asked if asked is not None else (torch.cuda.device_count() if accelerator == "cuda" else 1)
        return Layout(count, machine.nodes)
    program, layout = started
    found = None if asked is None else Layout(asked, machine.nodes)
    if found is not None and found.processes != layout.processes:
        raise ValueError(
            f"machine.devices: expected auto, or as many as {program} has started, {layout.processes} in all; "
            f"got {machine.devices} on each of {machine.nodes} machines"
        )
    return layout if found is None else found


def _devices(text: str) -> int | list[int] | None:
    """The devices as Fabric takes them; None for all."""
    if text == "auto":
        return None
    return [int(index) for index in text.split(",") if index] if "," in text else int(text)


def _started() -> tuple[str, Layout] | None:
    """The processes that another program has started, and its name."""
    try:
        if "TORCHELASTIC_RUN_ID" in os.environ:
            local = int(os.environ["LOCAL_WORLD_SIZE"])
            return "torchrun", Layout(local, int(os.environ["WORLD_SIZE"]) // local)
        if "SLURM_NTASKS" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
            nodes = int(os.environ.get("SLURM_NNODES", "1"))
            return "SLURM", Layout(int(os.environ["SLURM_NTASKS"]) // nodes, nodes)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"expected the numbers of processes that torchrun or SLURM sets, got none: {error}") from None
    return None


def _strategy(layout: Layout) -> Any:
    if layout.processes == 1:
        return "auto"
    from lightning_fabric.strategies.ddp import DDPStrategy

    return DDPStrategy(timeout=TIMEOUT, gradient_as_bucket_view=True)


def _precision(machine: MachineConfig, accelerator: str, scaler: torch.amp.GradScaler | None) -> dict[str, Any]:
    if scaler is None:
        return {"precision": _PRECISIONS[machine.precision]}
    from lightning_fabric.plugins.precision.amp import MixedPrecision

    return {"plugins": [MixedPrecision("16-mixed", accelerator, scaler)]}


@contextmanager
def _sentences() -> Iterator[None]:
    """Say why processes cannot find one another."""
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        place = f"{os.environ.get('MASTER_ADDR', 'localhost')}:{os.environ.get('MASTER_PORT', '?')}"
        if "EADDRINUSE" in text or "address already in use" in text.lower():
            raise RuntimeError(
                f"the processes cannot meet at {place}: another program uses that port; "
                "choose another one, such as torchrun --master-port 29555, or none for a free one"
            ) from error
        if isinstance(error, dist.DistNetworkError):
            raise RuntimeError(f"the processes cannot meet at {place}: {text}") from error
        raise
