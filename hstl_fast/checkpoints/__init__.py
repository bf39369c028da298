"""Checkpoints in the released form: reading, writing, and going on from them."""

from hstl_fast.checkpoints.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hstl_fast.checkpoints.optimizer_state import load_optimizer_state, official_optimizer_state
from hstl_fast.checkpoints.starting import load_weights, with_new_classifier

__all__ = [
    "Checkpoint",
    "load_checkpoint",
    "load_optimizer_state",
    "load_weights",
    "official_optimizer_state",
    "save_checkpoint",
    "with_new_classifier",
]
