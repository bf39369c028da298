"""The HSTL network: its configuration, the network itself, and the ways through it."""

from hstl_fast.models.config import PRESETS, HSTLConfig, Stage, preset
from hstl_fast.models.hstl import HSTL, HSTLOutput

__all__ = ["HSTL", "PRESETS", "HSTLConfig", "HSTLOutput", "Stage", "preset"]
