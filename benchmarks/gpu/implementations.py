"""The implementations: plain torch in every setting that a user could pick, torch.compile, and this package."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.core.plain import frozen, plain
from benchmarks.gpu.numerics import Numerics
from benchmarks.gpu.runtimes import RUNTIMES, Runtime
from hstl_fast import use_backend
from hstl_fast.backends import ON_GPUS
from hstl_fast.nn import ARME
from hstl_fast.ops import _dispatch

# The names of our own implementations begin with this.
OURS = "hstl_fast "


class Implementation(NamedTuple):
    """One way to run a network.

    layout: memory format of the feature maps given to a layer, as the layers before it would leave them. backend: the
    backend of our own, None for a baseline. compiled: whether torch.compile runs it, with max-autotune. runtime: the
    library of others that runs it, if it is not torch itself.
    """

    name: str
    numerics: Numerics
    layout: torch.memory_format = torch.contiguous_format
    backend: str | None = None
    compiled: bool = False
    runtime: Runtime | None = None

    @property
    def precision(self) -> str:
        """The narrowest type in its products."""
        return self.numerics.precision if self.runtime is None else self.runtime.precision

    def prepare(self, network: nn.Module, training: bool) -> nn.Module:
        """The module that is run, from an `HSTL` or one of its layers; parameters are copies."""
        copy = frozen(network, training).to(self.numerics.parameters)
        if self.backend is not None:
            return copy
        if self.layout == torch.channels_last_3d:
            _channels_last(copy)
        module = plain(copy)
        if self.runtime is not None:
            return self.runtime.prepare(module, self.numerics.dtype)
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
            "precision": self.precision,
            "tf32": numerics.tf32,
            "cudnn_benchmark": numerics.benchmark,
            "cudnn_deterministic": numerics.deterministic,
            "layout": str(self.layout).removeprefix("torch."),
            "torch_compile": "max-autotune" if self.compiled else None,
            "runtime": self.runtime and self.runtime.version(),
            "backends": self.backend and resolved(self.backend, device, numerics.dtype),
        }


def implementations(device: torch.device) -> list[Implementation]:
    """All implementations in the order of measuring; those that compile come last."""
    found = [*EAGER, *_ours(device), *OTHERS, *COMPILED]
    return [c for c in found if device.type == "cuda" or not c.numerics.tf32]


def is_ours(key: str) -> bool:
    """True if the row of this key is about this package."""
    return key.rsplit(" | ", 1)[-1].startswith(OURS)


def backends(device: torch.device, dtype: torch.dtype) -> list[str]:
    """The backends that can compute a network on this device and in this type, each at least one of its operators."""
    found = {name: resolved(name, device, dtype) for name in _dispatch.BACKENDS[1:]}
    return [name for name, operators in found.items() if operators is not None and name in operators.values()]


def with_kernels(device: torch.device) -> list[str]:
    """The backends with kernels of their own that can run on this device, those compiled ahead of time first."""
    found = [name for name in backends(device, torch.bfloat16) if name != "reference"]
    return sorted(found, key=[*ON_GPUS, *found].index)


def resolved(backend: str, device: torch.device, dtype: torch.dtype) -> dict[str, str] | None:
    """The backend that each operator really runs on where a context names this one; None if one cannot run."""
    try:
        with use_backend(backend):
            return {name: _dispatch.choose(name, device.type, dtype, None) for name in _dispatch.OPERATORS}
    except (RuntimeError, ValueError):
        return None


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


# Libraries of others, which say themselves where they cannot run.
OTHERS = tuple(Implementation(r.name, r.numerics, torch.channels_last_3d, runtime=r) for r in RUNTIMES)


def _ours(device: torch.device) -> list[Implementation]:
    """`auto`, and every backend that "auto" would not have picked throughout, in every arithmetic."""
    others = [name for name in backends(device, torch.bfloat16) if not _is_automatic(name, device)]
    ordered = ["auto", *(name for name in others if name != "reference"), *(n for n in others if n == "reference")]
    return [_our(name, numerics) for name in ordered for numerics in (BFLOAT16, FLOAT16, FLOAT32, TF32)]


def _our(backend: str, numerics: Numerics) -> Implementation:
    return Implementation(f"{OURS}{backend}, {numerics}", numerics, torch.channels_last_3d, backend)


def _is_automatic(backend: str, device: torch.device) -> bool:
    found = resolved("auto", device, torch.bfloat16)
    return found is not None and set(found.values()) == {backend}


def _channels_last(network: nn.Module) -> None:
    """Every region's convolution weights in channels_last_3d, which makes the maps after it so too."""
    for layer in network.modules():
        if isinstance(layer, ARME):
            with torch.no_grad():
                weight = layer.weight.permute(0, 1, 3, 4, 5, 2).contiguous().permute(0, 1, 5, 2, 3, 4)
                layer.weight.data = weight
