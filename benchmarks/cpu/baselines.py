"""Who is measured. A rival is a name and a way to prepare a network; a workload names those that run on it."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core import machine
from benchmarks.core.names import IN_CLIPS, ONE_THREAD, OURS
from benchmarks.core.plain import PlainLayer, frozen, plain
from benchmarks.cpu import runtimes
from benchmarks.cpu.runtimes import Unavailable
from hstl_fast import use_backend


class Rival(NamedTuple):
    """One way to compute a workload.

    prepare(network, training): the module that is run, from an `HSTL` or one of its layers; it may raise Unavailable.
    context: what is entered around every call. layout: of the feature maps given to it, as its own layers would leave
    them. dtype: of its arithmetic, which decides what errors are allowed. given: other inputs than the workload's, with
    a truth of their own; None for the workload's.
    """

    name: str
    prepare: Callable[[nn.Module, bool], nn.Module]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    layout: torch.memory_format = torch.contiguous_format
    dtype: str = "float32"
    given: tuple[Tensor, ...] | None = None


class Autocast(nn.Module):
    """A network under bfloat16 autocast; losses and gradients stay outside, as torch advises."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """What the network makes of `x`, in float32."""
        with torch.autocast("cpu", torch.bfloat16):
            y = self.network(x)
        return y.float() if isinstance(y, Tensor) else tuple(z if z is None else z.float() for z in y)


def eager(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch; without gradients in evaluation."""
    return plain(frozen(network, training))


def eager_channels_last(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch with the channels last in weights and maps."""
    module = plain(frozen(network, training))
    for parameter in module.parameters():
        if parameter.dim() == 6:  # one convolution per region
            regions = [weight.contiguous(memory_format=torch.channels_last_3d) for weight in parameter.data]
            strides = (regions[0].numel(), *regions[0].stride())
            parameter.data = torch.cat([r.permute(0, 2, 3, 4, 1).flatten() for r in regions]).as_strided(
                parameter.shape, strides
            )
    for layer in module.modules():
        if isinstance(layer, PlainLayer):  # torch's small convolutions and its maxima leave the channels first
            layer.register_forward_hook(_last)
    return module


def eager_bfloat16(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch under bfloat16 autocast."""
    runtimes.require_bfloat16()
    return Autocast(plain(frozen(network, training)))


def compiled(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch through torch.compile for these very shapes, its weights constants in evaluation."""
    return _compiled(plain(frozen(network, training)), training)


def compiled_bfloat16(network: nn.Module, training: bool) -> nn.Module:
    """The same under bfloat16 autocast, the rounded weights constants in evaluation."""
    runtimes.require_bfloat16()
    return _compiled(Autocast(plain(frozen(network, training))), training)


def ours(network: nn.Module, training: bool) -> nn.Module:
    """hstl_fast as its users call it."""
    return frozen(network, training)


def arranged(inputs: Iterable[Tensor], layout: torch.memory_format) -> list[Tensor]:
    """Feature maps in a rival's layout, everything else as it is."""
    return [x.contiguous(memory_format=layout) if x.dim() == 5 else x for x in inputs]


def named(*names: str) -> tuple[Rival, ...]:
    """The rivals with these names, in the order of their turns."""
    return tuple(rival for rival in RIVALS if rival.name in names)


def _last(layer: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return y.contiguous(memory_format=torch.channels_last_3d) if y.dim() == 5 else y


def _compiled(module: nn.Module, training: bool) -> nn.Module:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Unavailable("torch.compile needs a C++ compiler")
    torch._inductor.config.freezing = not training
    torch._dynamo.config.cache_size_limit = 64  # shapes; beyond it torch quietly returns to eager
    module.compile(dynamic=False)
    return module


RIVALS = (
    Rival("eager", eager),
    Rival("eager channels_last_3d", eager_channels_last, layout=torch.channels_last_3d),
    Rival("eager bf16 autocast", eager_bfloat16, dtype="bfloat16"),
    Rival("torch.compile", compiled),
    Rival("torch.compile bf16", compiled_bfloat16, dtype="bfloat16"),
    Rival("onnxruntime", runtimes.onnxruntime),
    Rival("openvino", runtimes.openvino),
    Rival("openvino bf16", runtimes.openvino_bfloat16, dtype="bfloat16"),
    Rival(OURS, ours, lambda: use_backend("cpu"), torch.channels_last_3d),
)
"""In the order of their turns. `OURS` is the one that the others are compared with."""

OPERATORS = named("eager", "eager channels_last_3d", "torch.compile", OURS)
NETWORKS = RIVALS
STRONGEST = named("eager", "torch.compile", "torch.compile bf16", "openvino", "openvino bf16", OURS)
"""Where the same was measured of everybody before."""
SCALING = named("eager", "torch.compile", "openvino", OURS)
"""Where many shapes are measured: in float32, one of a kind."""


def against_one_thread() -> tuple[Rival, ...]:
    """Ours on all threads and on one of them."""
    return (*named(OURS), _ours_as(ONE_THREAD)._replace(context=_one_thread))


def against_clips(clips: Iterable[Tensor]) -> tuple[Rival, ...]:
    """Ours given the workload's inputs, and given these."""
    return (*named(OURS), _ours_as(IN_CLIPS)._replace(given=tuple(clips)))


def _ours_as(name: str) -> Rival:
    (rival,) = named(OURS)
    return rival._replace(name=name)


@contextmanager
def _one_thread() -> Iterator[None]:
    with use_backend("cpu"), machine.threads(1):
        yield
