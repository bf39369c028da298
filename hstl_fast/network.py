"""A model together with what names its preset and its weights, so that results say what computed them."""

import functools
import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from hstl_fast.models import HSTL
from hstl_fast.models.recognition import preset_of

# The name of a network that is none of the published ones.
CUSTOM = "custom"
# The name of the trained network that the package brings along: it knows rendered walkers only.
SHIPPED = "walkers"
SHIPPED_FILE = Path(__file__).parent / "weights" / "walkers.pt"


class Network(NamedTuple):
    """A model with the names of its preset and of its weights.

    Attributes:
        model: The network.
        preset: A key of `hstl_fast.PRESETS`, "walkers" for the network that the package brings along, or "custom" for
            another one.
        weights: `sha256:<digest of the checkpoint file>`, or `seed:<number>` for untrained weights.
    """

    model: HSTL
    preset: str
    weights: str

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.weights.startswith("seed:")

    @property
    def knows_walkers_only(self) -> bool:
        """Whether it is the network that the package brings along, which was trained on rendered walkers."""
        return self.preset == SHIPPED

    @classmethod
    def from_checkpoint(cls, path: Path, preset: str | None = None) -> "Network":
        """Read a released or trained checkpoint.

        Args:
            path: The `.pt` file.
            preset: The preset of the checkpoint, "walkers" or "custom"; None takes what the file says, or else
                finds it from the shapes of the weights.

        Returns:
            The network; its weights are named by the SHA-256 digest of the file.

        Raises:
            ValueError: The file is no checkpoint of HSTL, or not one of `preset`.
        """
        named = preset in (CUSTOM, SHIPPED)
        model = HSTL.from_official_checkpoint(path, None if named else preset)
        weights = _digest(path)
        found = SHIPPED if weights == shipped_weights() else preset_of(model.config) or CUSTOM
        if named and preset != found:
            wanted = "a custom one" if preset == CUSTOM else f"that of {SHIPPED_FILE.name}"
            raise ValueError(f"{path}: holds the network {found}, not {wanted}")
        return cls(model, preset or found, weights)

    @classmethod
    def shipped(cls) -> "Network":
        """Read the trained network that the package brings along.

        It was trained on rendered walkers alone by `python -m hstl_fast.demo.training`, and knows nothing about people.
        The checkpoint says in `training` what it was trained on.

        Returns:
            The network.
        """
        return cls.from_checkpoint(SHIPPED_FILE, SHIPPED)

    @classmethod
    def from_seed(cls, preset: str, seed: int) -> "Network":
        """Make a network with random weights.

        Args:
            preset: A key of `hstl_fast.PRESETS`.
            seed: The same seed gives the same weights; torch's own generator stays as it is.

        Returns:
            The network; its classifier has one class.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            # The classifier is no part of an embedding, and as large as the rest of the network for many identities.
            model = HSTL.from_preset(preset, num_classes=1)
        return cls(model, preset, f"seed:{seed}")


@functools.cache
def shipped_weights() -> str | None:
    """Name the weights of the network that the package brings along.

    Returns:
        `sha256:<digest of its file>`, or None where the file is missing.
    """
    return _digest(SHIPPED_FILE) if SHIPPED_FILE.exists() else None


def _digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
