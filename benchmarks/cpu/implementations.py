"""The implementations that are measured: the baselines, and hstl_fast. A workload names those that compute it."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core import machine
from benchmarks.core.names import IN_CLIPS, ONE_THREAD, OURS, ZENTORCH
from benchmarks.core.plain import PlainLayer, frozen, plain
from benchmarks.cpu import runtimes
from benchmarks.cpu.runtimes import Unavailable
from hstl_fast import use_backend


class Implementation(NamedTuple):
    """One way to compute a workload.

    prepare(network, training): the module that is run, from an `HSTL` or one of its layers; it may raise Unavailable.
    context: entered around every call. layout: memory format of feature maps given to it, as its own layers would leave
    them. dtype: element type of its arithmetic, which decides what errors are allowed. inputs: other inputs than the
    workload's, with a float64 reference of their own; None for the workload's. ranked: rank changes are counted where a
    workload has a search; torch's float32 and its exports differ from float64 by rounding alone.
    """

    name: str
    prepare: Callable[[nn.Module, bool], nn.Module]
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    layout: torch.memory_format = torch.contiguous_format
    dtype: str = "float32"
    inputs: tuple[Tensor, ...] | None = None
    ranked: bool = False


class Autocast(nn.Module):
    """A network under bfloat16 autocast; losses and gradients stay outside, as torch advises."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Any:
        """The output of the network for `x`, in float32."""
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
            layer.register_forward_hook(_to_channels_last)
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


def zentorch(network: nn.Module, training: bool) -> nn.Module:
    """Plain torch through torch.compile with AMD's plug-in."""
    return _with_zentorch(plain(frozen(network, training)), training)


def zentorch_bfloat16(network: nn.Module, training: bool) -> nn.Module:
    """The same under bfloat16 autocast."""
    runtimes.require_bfloat16()
    return _with_zentorch(Autocast(plain(frozen(network, training))), training)


def ours(network: nn.Module, training: bool) -> nn.Module:
    """hstl_fast as its users call it."""
    return frozen(network, training)


def arranged(inputs: Iterable[Tensor], layout: torch.memory_format) -> list[Tensor]:
    """Feature maps in an implementation's layout, everything else as it is."""
    return [x.contiguous(memory_format=layout) if x.dim() == 5 else x for x in inputs]


def named(*names: str) -> tuple[Implementation, ...]:
    """The implementations with these names, in the order in which they are measured."""
    return tuple(implementation for implementation in IMPLEMENTATIONS if implementation.name in names)


def _to_channels_last(layer: nn.Module, inputs: Any, y: Tensor) -> Tensor:
    return y.contiguous(memory_format=torch.channels_last_3d) if y.dim() == 5 else y


def _compiled(module: nn.Module, training: bool) -> nn.Module:
    _set_up_inductor(training)
    module.compile(dynamic=False)
    return module


def _with_zentorch(module: nn.Module, training: bool) -> nn.Module:
    compiled_module = runtimes.zentorch(module, training)
    _set_up_inductor(training)
    return compiled_module


def _set_up_inductor(training: bool) -> None:
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise Unavailable("torch.compile needs a C++ compiler")
    torch._inductor.config.freezing = not training
    torch._dynamo.config.cache_size_limit = 64  # shapes; beyond it torch quietly returns to eager


# They are measured in this order, round by round.
IMPLEMENTATIONS = (
    Implementation("eager", eager),
    Implementation("eager channels_last_3d", eager_channels_last, layout=torch.channels_last_3d),
    Implementation("eager bf16 autocast", eager_bfloat16, dtype="bfloat16", ranked=True),
    Implementation("torch.compile", compiled),
    Implementation("torch.compile bf16", compiled_bfloat16, dtype="bfloat16", ranked=True),
    Implementation(ZENTORCH, zentorch, ranked=True),
    Implementation(f"{ZENTORCH} bf16", zentorch_bfloat16, dtype="bfloat16", ranked=True),
    Implementation("onnxruntime", runtimes.onnxruntime),
    Implementation("onnxruntime int8", runtimes.onnxruntime_int8, dtype="int8", ranked=True),
    Implementation("openvino", runtimes.openvino),
    Implementation("openvino bf16", runtimes.openvino_bfloat16, dtype="bfloat16", ranked=True),
    Implementation("openvino int8", runtimes.openvino_int8, dtype="int8", ranked=True),
    Implementation(OURS, ours, lambda: use_backend("cpu"), torch.channels_last_3d, ranked=True),
)

OPERATORS = named("eager", "eager channels_last_3d", "torch.compile", OURS)
# They take long to prepare for a shape, and are measured on one clip of `casia-b` only.
_ONCE = (ZENTORCH, f"{ZENTORCH} bf16", "onnxruntime int8", "openvino int8")
NETWORKS = tuple(implementation for implementation in IMPLEMENTATIONS if implementation.name not in _ONCE)
# Where everyone was measured on a workload like this before.
_STRONGEST = ("eager", "torch.compile", "torch.compile bf16", "openvino", "openvino bf16", OURS)
STRONGEST = named(*_STRONGEST)
SEARCHING = named(*_STRONGEST, *_ONCE)
# Those that train in float32 and are not slower than another one by design.
TRAINING = named("eager", "torch.compile", OURS)
# Where many shapes are measured: float32 alone, one of each kind.
SCALING = named("eager", "torch.compile", "openvino", OURS)


def against_one_thread() -> tuple[Implementation, ...]:
    """Our own on all threads and on one of them."""
    return (*named(OURS), _ours_as(ONE_THREAD)._replace(context=_one_thread))


def against_clips(clips: Iterable[Tensor]) -> tuple[Implementation, ...]:
    """Our own given the workload's inputs, and given these clips."""
    return (*named(OURS), _ours_as(IN_CLIPS)._replace(inputs=tuple(clips)))


def _ours_as(name: str) -> Implementation:
    (ours_,) = named(OURS)
    return ours_._replace(name=name)


@contextmanager
def _one_thread() -> Iterator[None]:
    with use_backend("cpu"), machine.threads(1):
        yield
