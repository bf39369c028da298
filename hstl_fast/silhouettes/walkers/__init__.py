"""Rendered walkers: silhouettes of articulated bodies, for machines without data. Needs numpy only.

They show that a system works and how fast it is; recognition rates on them say nothing about people.
"""

from hstl_fast.silhouettes.walkers.body import CONDITIONS
from hstl_fast.silhouettes.walkers.rendering import (
    CASIA_B_TAKES,
    CASIA_B_VIEWS,
    SIZE,
    Recording,
    recordings,
    render,
)

__all__ = ["CASIA_B_TAKES", "CASIA_B_VIEWS", "CONDITIONS", "SIZE", "Recording", "recordings", "render"]
