"""Models in wrappers, and models of which several processes hold parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from hstl_fast.distributed import ProcessError
from hstl_fast.models import HSTL

# Where DistributedDataParallel, DataParallel, AveragedModel, Lightning Fabric and torch.compile keep the model.
_INSIDE = ("_orig_mod", "module")
_FLAT = "FullyShardedDataParallel"


def unwrapped(model: nn.Module) -> HSTL:
    """Find the network in its wrappers.

    Args:
        model: An `HSTL`, alone or in `DistributedDataParallel`, `DataParallel`, `AveragedModel`, `torch.compile` or
            Lightning Fabric's module, also in several of them.

    Returns:
        The network.

    Raises:
        TypeError: It is not such a model; the message says what to give.
    """
    given: Any = model
    while not isinstance(model, HSTL):
        if type(model).__name__ == _FLAT:
            raise TypeError(f"model must keep its tensors, got {_FLAT}, which flattens them; fully_shard keeps them")
        inside = (getattr(model, name, None) for name in _INSIDE)
        found = next((each for each in inside if isinstance(each, nn.Module)), None)
        if found is None:
            raise TypeError(f"model must be an HSTL, alone or in a wrapper of torch; got {_kind_of(given)}")
        model = found
    return model


def _kind_of(model: object) -> str:
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        return kind
    places = [name for name, module in model.named_modules() if isinstance(module, HSTL)]
    return f"{kind}; its HSTL is its {places[0]}, give that" if places else kind


def once(model: nn.Module, action: Callable[[], None]) -> None:
    """Do something in the first of the processes that share a model; in every process where none share it.

    Args:
        model: The network; a `DTensor` among its parameters says which processes share it.
        action: What to do.

    Raises:
        ProcessError: It failed in the first process; there it raises its own error.
    """
    mesh: Any = next((p.device_mesh for p in model.parameters() if hasattr(p, "device_mesh")), None)
    if mesh is None or mesh.size() == 1:
        action()
        return
    failure = None
    if not any(mesh.get_coordinate()):
        try:
            action()
        except Exception as error:
            failure = error
    sentence = _shared(mesh, None if failure is None else f"{type(failure).__name__}: {failure}")
    if failure is not None:
        raise failure
    if sentence is not None:
        raise ProcessError(sentence)


def _shared(mesh: Any, value: str | None) -> str | None:
    """Send a value from the first process of a mesh to all others, one dimension after another."""
    from torch.distributed import broadcast_object_list, get_global_rank

    values = [value]
    for dimension in range(mesh.ndim):
        group = mesh.get_group(dimension)
        broadcast_object_list(values, src=get_global_rank(group, 0), group=group)
    return values[0]
