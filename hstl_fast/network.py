"""A model together with what names its preset and its weights, so that results say what computed them."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import torch

from hstl_fast.models import HSTL
from hstl_fast.models.recognition import preset_of

# The name of a network that is none of the published ones.
CUSTOM = "custom"


class Network(NamedTuple):
    """A model with the names of its preset and of its weights.

    Attributes:
        model: The network.
        preset: A key of `hstl_fast.PRESETS`, or "custom" for a network of another shape.
        weights: `sha256:<digest of the checkpoint file>`, or `seed:<number>` for untrained weights.
    """

    model: HSTL
    preset: str
    weights: str

    @property
    def untrained(self) -> bool:
        """Whether the weights are random."""
        return self.weights.startswith("seed:")

    @classmethod
    def from_checkpoint(cls, path: Path, preset: str | None = None) -> "Network":
        """Read a released or trained checkpoint.

        Args:
            path: The `.pt` file.
            preset: The preset of the checkpoint, or "custom"; None takes what the file says, or else finds it from the
                shapes of the weights.

        Returns:
            The network; its weights are named by the SHA-256 digest of the file.

        Raises:
            ValueError: The file is no checkpoint of HSTL, or not one of `preset`.
        """
        model = HSTL.from_official_checkpoint(path, None if preset == CUSTOM else preset)
        found = preset_of(model.config) or CUSTOM
        if preset == CUSTOM != found:
            raise ValueError(f"{path}: holds the network {found}, not a custom one")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        return cls(model, preset or found, f"sha256:{digest}")

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
