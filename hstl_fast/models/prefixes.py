"""The beginnings that wrappers and other models give to the names of a network's tensors."""

from __future__ import annotations

# Of DistributedDataParallel, DataParallel and AveragedModel; of torch.compile; of modules that hold a network.
PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "backbone.")
# What wrappers of a part of a model put inside: torch.compile, activation checkpointing, FullyShardedDataParallel.
_INSIDE = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")


def unwrapped_name(name: str) -> str:
    """Remove what wrappers of a model's parts put into the name of a tensor or module.

    Args:
        name: The name in `model.state_dict()`.

    Returns:
        The name in a model without wrappers.
    """
    for wrapper in _INSIDE:
        name = name.replace(wrapper, "")
    return name


def split_prefix(name: str) -> tuple[str, str]:
    """Separate known prefixes, several in any order, from a tensor's name.

    Args:
        name: The name in a file.

    Returns:
        The prefixes, empty if there are none, and the network's own name of the tensor.
    """
    rest = unwrapped_name(name)
    while found := next((prefix for prefix in PREFIXES if rest.startswith(prefix)), None):
        rest = rest.removeprefix(found)
    return unwrapped_name(name)[: len(unwrapped_name(name)) - len(rest)], rest
