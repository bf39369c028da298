"""The implementations: plain torch in every setting that a user could pick, torch.compile, and this package."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core.plain import frozen, plain
from benchmarks.gpu.numerics import Numerics
from hstl_fast import use_backend
from hstl_fast.nn import ARME
from hstl_fast.ops import _dispatch

# The names of our own implementations begin with this.
OURS = "hstl_fast "


class Implementation(NamedTuple):
    """One way to run a network.

    layout: memory format of the feature maps given to a layer, as the layers before it would leave them. backend: the
    backend of our own, None for a baseline. compiled: whether torch.compile runs it, with max-autotune.
    """

    name: str
    numerics: Numerics
    layout: torch.memory_format = torch.contiguous_format
    backend: str | None = None
    compiled: bool = False

    def prepare(self, network: nn.Module, training: bool) -> nn.Module:
        """The module that is run, from an `HSTL` or one of its layers; parameters are copies."""
        copy = frozen(network, training).to(self.numerics.parameters)
        if self.backend is not None:
            return copy
        if self.layout == torch.channels_last_3d:
            _channels_last(copy)
        module = plain(copy)
        if self.compiled:
            torch._dynamo.reset()
            torch._inductor.config.freezing = not training
            module.compile(dynamic=False, mode="max-autotune")
        return module

    @contextlib.contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Run the block in this implementation's arithmetic and on its backend."""
        with self.numerics.on(device), use_backend(self.backend or "auto"):
            yield

    def arranged(self, x: Tensor) -> Tensor:
        """A feature map in this implementation's type and layout."""
        return x.to(self.numerics.dtype).contiguous(memory_format=self.layout)

    def settings(self, device: torch.device) -> dict[str, Any]:
        """The settings that belong beside the times."""
        numerics = self.numerics
        return {
            "arithmetic": str(numerics),
            "precision": numerics.precision,
            "tf32": numerics.tf32,
            "cudnn_benchmark": numerics.benchmark,
            "cudnn_deterministic": numerics.deterministic,
            "layout": str(self.layout).removeprefix("torch."),
            "torch_compile": "max-autotune" if self.compiled else None,
            "backends": self.backend and _resolved(self.backend, device, numerics.dtype),
        }


def implementations(device: torch.device) -> list[Implementation]:
    """All implementations in the order of measuring; those that compile come last."""
    found = [*EAGER, *_ours(device), *COMPILED]
    return [c for c in found if device.type == "cuda" or not c.numerics.tf32]


def is_ours(key: str) -> bool:
    """True if the row of this key is about this package."""
    return key.rsplit(" | ", 1)[-1].startswith(OURS)


def backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """The backends that can compute every operator for tensors of this device and type."""
    return [
        name
        for name in _dispatch.BACKENDS[1:]
        if all(
            _dispatch.why_not(operator, name, device.type, dtype, longest=1) is None for operator in _dispatch.OPERATORS
        )
    ]


# The released code trains so: float16 autocast, cuDNN deterministic and without benchmark.
RELEASED = Numerics(torch.float16, autocast=True, deterministic=True)
FLOAT16 = Numerics(torch.float16, autocast=True, benchmark=True)
BFLOAT16 = Numerics(torch.bfloat16, autocast=True, benchmark=True)
FLOAT32 = Numerics(torch.float32, benchmark=True)
TF32 = Numerics(torch.float32, tf32=True, benchmark=True)

EAGER = (
    Implementation("eager float16 autocast, released setting", RELEASED),
    Implementation("eager float16 autocast, cuDNN benchmark", FLOAT16),
    Implementation("eager bfloat16 autocast, channels_last_3d, cuDNN benchmark", BFLOAT16, torch.channels_last_3d),
    Implementation("eager float32, cuDNN benchmark", FLOAT32),
    Implementation("eager float32 with TF32, cuDNN benchmark", TF32),
)
COMPILED = (
    Implementation("torch.compile max-autotune, bfloat16 autocast", BFLOAT16, compiled=True),
    Implementation(
        "torch.compile max-autotune, bfloat16 autocast, channels_last_3d",
        BFLOAT16,
        torch.channels_last_3d,
        compiled=True,
    ),
)


def _ours(device: torch.device) -> list[Implementation]:
    """`auto` in every arithmetic, and so every backend with kernels that "auto" would not have picked throughout;
    the reference in bfloat16."""
    others = [name for name in backends(device, torch.bfloat16) if not _is_automatic(name, device)]
    kernels = ["auto", *(name for name in others if name != "reference")]
    found = [_our(name, numerics) for name in kernels for numerics in (BFLOAT16, FLOAT16, FLOAT32, TF32)]
    return found + [_our(name, BFLOAT16) for name in others if name == "reference"]


def _our(backend: str, numerics: Numerics) -> Implementation:
    return Implementation(f"{OURS}{backend}, {numerics}", numerics, torch.channels_last_3d, backend)


def _is_automatic(backend: str, device: torch.device) -> bool:
    return set(_resolved("auto", device, torch.bfloat16).values()) == {backend}


def _resolved(backend: str, device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """The backend that each operator really runs on."""
    return {
        operator: next(
            name
            for name in (_dispatch.candidates(device.type) if backend == "auto" else (backend,))
            if _dispatch.why_not(operator, name, device.type, dtype, longest=1) is None
        )
        for operator in _dispatch.OPERATORS
    }


def _channels_last(network: nn.Module) -> None:
    """Every region's convolution weights in channels_last_3d, which makes the maps after it so too."""
    for layer in network.modules():
        if isinstance(layer, ARME):
            with torch.no_grad():
                weight = layer.weight.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4)
                layer.weight.data = weight
