"""The time of each layer of a model, by its own forward and by ours, on the input that one call gives it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hstl_fast._torch_private import buffers_of
from hstl_fast.drop_in.forward import FastForward

# Each way is timed this often, the two in turns; more often while a layer takes less than this many seconds in all.
ROUNDS = 5
SECONDS = 0.05
MOST_ROUNDS = 50


class Timing(NamedTuple):
    """Measured seconds of a layer.

    Attributes:
        shape: The shape of its input.
        training: Whether a step was timed, the forward and the backward pass, or else the forward pass alone.
        own: By its own forward, on a contiguous input.
        ours: By the forward that it was given, on the input as it came.
        by_operator: Whether that used the operator; else it left the call to the layer's own forward.
    """

    shape: tuple[int, ...]
    training: bool
    own: float
    ours: float
    by_operator: bool

    @property
    def gain(self) -> float:
        """How many times as fast our forward is."""
        return self.own / self.ours


class Call(NamedTuple):
    """The arguments of a layer's first call in a call of the model."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def first_calls(model: nn.Module, example: Sequence[Any], layers: Sequence[nn.Module]) -> dict[nn.Module, Call]:
    """Call a model and note what its layers are called with.

    Buffers and the states of random generators are left as they were.

    Args:
        model: The model.
        example: Its arguments.
        layers: Modules inside it.

    Returns:
        The first call of every layer that was called.
    """
    calls: dict[nn.Module, Call] = {}

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.setdefault(module, Call(args, kwargs))

    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    handles = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with torch.random.fork_rng(devices=devices), _buffers_kept(model), torch.no_grad():
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    objects = [(buffers_of(module), buffers_of(module).copy()) for module in model.modules()]
    try:
        yield
    finally:
        for buffers, before in objects:  # a model may put others in their place
            buffers.clear()
            buffers.update(before)
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)


def timing(forward: FastForward, call: Call) -> Timing | None:
    """Time a layer in its own way and in ours.

    Args:
        forward: Our forward of the layer.
        call: Its arguments.

    Returns:
        The medians; None where the call is none that our forward computes.
    """
    values = forward.bind(call.args, call.kwargs)
    if values is None or not forward.accepts(*values):
        return None
    module = forward.module
    contiguous = [value.contiguous() if isinstance(value, Tensor) else value for value in call.args]
    own = _runner(lambda *args: type(module).forward(module, *args, **call.kwargs), contiguous, module)
    ours = _runner(lambda *args: forward(*args, **call.kwargs), list(call.args), module)
    times: tuple[list[float], list[float]] = ([], [])
    own(), ours()  # what is made once is made here
    start = time.perf_counter()
    while len(times[0]) < ROUNDS or (time.perf_counter() - start < SECONDS and len(times[0]) < MOST_ROUNDS):
        for run, found in zip((own, ours), times):
            found.append(run())
    with torch.set_grad_enabled(module.training):
        by_operator = forward.pays(values[0])
    return Timing(tuple(values[0].shape), module.training, median(times[0]), median(times[1]), by_operator)


def _runner(forward: Callable[..., Any], args: Sequence[Any], module: nn.Module) -> Callable[[], float]:
    """Return a function that times one call; a layer in training mode takes a backward pass as well, if it has one."""
    training = module.training

    def run() -> float:
        inputs = [_copied(value, training) for value in args]
        with torch.set_grad_enabled(training):
            start = time.perf_counter()
            y = forward(*inputs)
            if training:
                wanted: list[Tensor] = [p for p in module.parameters() if p.requires_grad]
                wanted += [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
                if wanted and y.requires_grad:
                    torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)
            return time.perf_counter() - start

    return run


def _copied(value: Any, training: bool) -> Any:
    """Return a copy that a layer may change in place, so it is no leaf where it gets a gradient."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    # Silhouettes and the like, of one channel, get no gradient.
    leaf = value.detach().requires_grad_(training and value.dim() > 1 and value.shape[1] > 1)
    with torch.set_grad_enabled(training):
        return leaf.clone()
