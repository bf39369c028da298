"""Whether a tensor was changed in place since a forward pass, by torch's version counters."""

from torch import Tensor

from hstl_fast._torch_private import version_of


class VersionProbe:
    """Tells whether a tensor was changed in place since the probe was made, without keeping the tensor's memory."""

    def __init__(self, x: Tensor) -> None:
        # A detached tensor shares the version counter, and goes on sharing it when it is given other memory.
        self._follower = x.detach()
        self._follower.data = x.new_empty(0)
        self._made_at = version_of(self._follower)

    def is_changed(self) -> bool:
        """Whether the tensor, or any view of it, was changed in place."""
        return version_of(self._follower) != self._made_at
