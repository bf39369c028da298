"""Who is measured. A rival is a name and a way to prepare a network; add one to `RIVALS` and every workload has it."""

import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.plain import frozen, plain
from hstl_fast import use_backend

OURS = "hstl_fast cpu"


class Unavailable(Exception):
    """This rival cannot run here or not do this; the message says why."""


class Rival(NamedTuple):
    """One way to compute a workload.

    prepare(network, training): the module that is run, from an `HSTL` or one of its layers; it may raise Unavailable.
    context: what is entered around every call. layout: of the feature maps given to it, as its own layers would leave
    them.
    """

    name: str
    prepare: Callable[[nn.Module, bool], nn.Module]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    layout: torch.memory_format = torch.contiguous_format


def eager(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch; without gradients in evaluation."""
    return plain(frozen(network, training))


def compiled(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch through torch.compile for these very shapes, its weights constants in evaluation."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Unavailable("torch.compile needs a C++ compiler")
    torch._dynamo.reset()
    torch._inductor.config.freezing = not training
    module = plain(frozen(network, training))
    module.compile(dynamic=False)
    return module


def ours(network: nn.Module, training: bool) -> nn.Module:
    """hstl_fast as its users call it."""
    return frozen(network, training)


def arranged(inputs: Iterable[Tensor], layout: torch.memory_format) -> list[Tensor]:
    """Feature maps in a rival's layout, everything else as it is."""
    return [x.contiguous(memory_format=layout) if x.dim() == 5 else x for x in inputs]


RIVALS = (
    Rival("eager", eager),
    Rival("torch.compile", compiled),
    Rival(OURS, ours, lambda: use_backend("cpu"), torch.channels_last_3d),
)
"""In the order of their turns. `OURS` is the one that the others are compared with."""
