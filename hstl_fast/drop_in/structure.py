"""The structure of HSTL's layers; every check raises `Mismatch`, with the reason, for a layer that has another."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from hstl_fast._untouched import has_hooks, has_own_forward, inherits_forward
from hstl_fast.drop_in.forward import FastForward, is_accelerated
from hstl_fast.layout import FLOATING
from hstl_fast.reference import SMALLEST

CONV3D = {
    "kernel_size": (3, 3, 3),
    "stride": (1, 1, 1),
    "padding": (1, 1, 1),
    "dilation": (1, 1, 1),
    "groups": 1,
    "padding_mode": "zeros",
    "bias": None,
}
TEMPORAL_CONV3D = {**CONV3D, "kernel_size": (3, 1, 1), "stride": (3, 1, 1), "padding": (0, 0, 0)}
CONV2D = {"kernel_size": (1, 1), "stride": (1, 1), "padding": (0, 0), "groups": 1, "bias": None}
CONV1D = {"kernel_size": (1,), "stride": (1,), "padding": (0,), "groups": 1}
FP_3 = {
    "kernel_size": (3, 1, 1),
    "stride": (3, 1, 1),
    "padding": (0, 0, 0),
    "dilation": (1, 1, 1),
    "ceil_mode": False,
    "return_indices": False,
}
FP_5 = {**FP_3, "kernel_size": (5, 1, 1), "padding": (1, 0, 0)}


class Mismatch(Exception):
    """The reason why a layer is left alone."""


def holds_conv3d(module: nn.Module) -> bool:
    """Return whether `module` has one module named `conv3d`."""
    conv = getattr(module, "conv3d", None)
    return isinstance(conv, nn.Module) and not isinstance(conv, nn.ModuleList)


def has_regions(module: nn.Module, units: str) -> bool:
    """Return whether `module` has a split and a list named `units` of modules for its regions."""
    return hasattr(module, "split_param") and isinstance(getattr(module, units, None), nn.ModuleList)


def check_regions(module: Any, units: str, check_unit: Callable[[Any, str], None]) -> None:
    """Check the split, then the module of every region."""
    modules = getattr(module, units)
    _check_split(module, units, len(modules))
    for i, unit in enumerate(modules):
        check_unit(unit, f"{units}.{i}")


def _check_split(module: Any, units: str, count: int) -> None:
    split = module.split_param
    if not isinstance(split, (list, tuple)) or not split or not all(type(r) is int and r > 0 for r in split):
        raise Mismatch(f"split_param must be a list of row counts, got {split!r}")
    if len(split) != count:
        raise Mismatch(f"split_param has {len(split)} regions, {units} holds {count} modules")
    m = getattr(module, "m", count)
    if m != count:
        raise Mismatch(f"m must be the number of regions, {count}, got {m!r}")


def check_convolution(holder: nn.Module, name: str, expected: dict[str, Any] = CONV3D) -> None:
    """Check a module that holds one 3D convolution with these settings and nothing else."""
    if not holds_conv3d(holder):
        raise Mismatch(f"{name} is a {type(holder).__name__}, expected a module that holds one conv3d")
    others = [other for other, _ in holder.named_children() if other != "conv3d"]
    if others:
        raise Mismatch(f"{name} holds {', '.join(others)} beside its conv3d")
    check_torch_module(getattr(holder, "conv3d", None), f"{name}.conv3d", nn.Conv3d, expected)


def check_activation(module: nn.Module, name: str) -> None:
    """Check a LeakyReLU."""
    if not isinstance(module, nn.LeakyReLU):
        raise Mismatch(f"{name} is a {type(module).__name__}, expected nn.LeakyReLU")
    if not module.negative_slope >= 0:
        raise Mismatch(f"{name} has the slope {module.negative_slope}, expected at least 0")
    check_torch_module(module, name, nn.LeakyReLU, {})


def check_gated_maxima(unit: Any, name: str) -> None:
    """Check the two windows and the two gates of one region of FTA."""
    for pool, expected in (("FP_3", FP_3), ("FP_5", FP_5)):
        check_torch_module(getattr(unit, pool, None), f"{name}.{pool}", nn.MaxPool3d, expected)
    gates: Any = getattr(unit, "fcs", None)
    if not isinstance(gates, nn.ModuleList) or len(gates) != 2:
        raise Mismatch(f"{name}.fcs must be an nn.ModuleList of two nn.Conv1d")
    for k, gate in enumerate(gates):
        check_torch_module(gate, f"{name}.fcs.{k}", nn.Conv1d, CONV1D)
        if gate.bias is None:
            raise Mismatch(f"{name}.fcs.{k} has no bias")


def check_pool(pool: Any, name: str) -> None:
    """Check the settings of a generalised mean over equal strips."""
    prefix = f"{name}." if name else ""
    bins, p, eps = (getattr(pool, attribute, None) for attribute in ("bin_num", "p", "eps"))
    if not isinstance(bins, (list, tuple)) or len(bins) != 1 or type(bins[0]) is not int or bins[0] < 1:
        raise Mismatch(f"{prefix}bin_num must be a list of one number, got {bins!r}")
    if not isinstance(p, nn.Parameter) or tuple(p.shape) != (1,):
        got = list(p.shape) if isinstance(p, Tensor) else type(p).__name__
        raise Mismatch(f"{prefix}p must be a Parameter of shape [1], got {got}")
    if eps != SMALLEST:
        raise Mismatch(f"{prefix}eps must be {SMALLEST}, got {eps!r}")


def check_region_pool(pool: Any, name: str) -> None:
    """Check a generalised mean over a whole region."""
    check_pool(pool, name)
    if pool.bin_num[0] != 1:
        raise Mismatch(f"{name}.bin_num must be [1], got {list(pool.bin_num)}")


def check_torch_module(module: Any, name: str, kind: type[nn.Module], expected: dict[str, Any]) -> None:
    """Check that `module` is one of torch's, of this class and with these settings."""
    if not isinstance(module, kind):
        raise Mismatch(f"{name} is a {type(module).__name__}, expected nn.{kind.__name__}")
    if parametrize.is_parametrized(module):
        raise Mismatch(f"{name} is parametrized")
    if any(isinstance(parameter, UninitializedParameter) for parameter in module.parameters()):
        raise Mismatch(f"{name} is not initialised yet")
    check_class_forward(module, name, kind)
    for attribute, value in expected.items():
        found = getattr(module, attribute)
        if attribute == "bias" and found is not None:
            raise Mismatch(f"{name} has a bias")
        if attribute != "bias" and _for_every_axis(found, value) != value:
            raise Mismatch(f"{name} has {attribute} {found}, expected {value}")


def check_class_forward(module: nn.Module, name: str, kind: type[nn.Module]) -> None:
    """Check that the class of `module` computes as torch's does."""
    if not inherits_forward(module, kind):
        subject = f"{name} is a {type(module).__name__} with" if name else f"{type(module).__name__} has"
        raise Mismatch(f"{subject} a forward of its own")


def _for_every_axis(found: Any, like: Any) -> Any:
    """Return a setting that torch takes for all axes written for every axis, as in `like`."""
    return (found,) * len(like) if isinstance(like, tuple) and type(found) is int else found


def argument_names(kind: type[FastForward], module: nn.Module) -> Sequence[str]:
    """Return the names of the arguments of the module's forward, after checking that it takes what `kind` does."""
    try:
        parameters = list(inspect.signature(type(module).forward).parameters.values())[1:]
    except (TypeError, ValueError):
        raise Mismatch("its forward has no signature that can be read") from None
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional[kind.arguments :] if p.default is p.empty]
    required += [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(positional) < kind.arguments or required:
        taken = ", ".join(p.name for p in parameters)
        plural = "s" * (kind.arguments > 1)
        raise Mismatch(f"its forward takes ({taken}), expected {kind.arguments} argument{plural}")
    return [p.name for p in positional[: kind.arguments]]


def check_layer(module: nn.Module) -> None:
    """Check that nothing has been put in place of the layer's own forward and parameters."""
    if has_own_forward(module) and not isinstance(vars(module)["forward"], FastForward):
        raise Mismatch("its forward has been replaced on the instance")
    if parametrize.is_parametrized(module):
        raise Mismatch("it is parametrized")


def check_inside(kind: type[FastForward], module: nn.Module) -> None:
    """Check that the layer holds no hooks, forwards, parameters or buffers that our forward would pass over."""
    for name, inner in module.named_modules():
        if inner is not module and has_hooks(inner):
            raise Mismatch(f"{name} has hooks, which would not be called")
        if inner is not module and has_own_forward(inner) and not is_accelerated(inner):
            raise Mismatch(f"{name} has a forward replaced on the instance")
    used = kind.used(module)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name in [*parameters, *(name for name, _ in module.named_buffers(remove_duplicate=False))]:
        if name not in used:
            raise Mismatch(f"{name} is no part of a layer of this kind")
    for name, parameter in parameters.items():
        _check_parameter(parameter, name)
    if len({(parameter.device, parameter.dtype) for parameter in parameters.values()}) != 1:
        raise Mismatch("its parameters differ in device or dtype")


def _check_parameter(parameter: Tensor, name: str) -> None:
    if parameter.is_meta:
        raise Mismatch(f"{name} is on the meta device, where nothing can be compared; accelerate it once it has values")
    if type(parameter) is not nn.Parameter:
        raise Mismatch(f"{name} is a {type(parameter).__name__}, expected nn.Parameter")
    if parameter.dtype not in FLOATING:
        raise Mismatch(f"{name} is of {parameter.dtype}")
