"""The reasons for which bodies in a video do not become silhouettes, as phrases that are counted."""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

# Counts of bodies by reason, one for each frame in which a body was left out.
Rejections: TypeAlias = Counter[str]

TOO_SMALL = "lower than min_height"
AT_THE_BORDER = "cut off by the border of the picture"
NO_BODY = "not of a standing person's shape, or torn"
TOUCHING = "touching another person"
UNSTEADY = "height or area changes at once"
TORN = "head or trunk incomplete"
TOO_SHORT = "in tracks shorter than min_frames"
MOTIONLESS = "in tracks that do not move from their place"
RIGID = "in tracks that never change their shape"
PAIR = "in tracks of two people side by side"
