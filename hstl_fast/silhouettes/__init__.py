"""Silhouettes: reading and writing sequences, alignment, people cut out of video, rendered walkers.

The base install is enough; Pillow (extra `[cli]`), OpenCV and the tracker (extra `[video]`) are imported when a
function that uses them is called.
"""

from hstl_fast.silhouettes import walkers
from hstl_fast.silhouettes.align import align, align_sequence
from hstl_fast.silhouettes.errors import SilhouetteError, SilhouetteWarning
from hstl_fast.silhouettes.io import Found, Reading, find, find_sequences, is_sequence, read, read_sequence, write
from hstl_fast.silhouettes.left_out import LeftOut, by_reason
from hstl_fast.silhouettes.video import (
    Progress,
    SavedTrack,
    Segmenter,
    Summary,
    Track,
    contact_sheet,
    extract,
    open_segmenter,
    video_to_silhouettes,
)

__all__ = [
    "Found",
    "LeftOut",
    "Progress",
    "Reading",
    "SavedTrack",
    "Segmenter",
    "SilhouetteError",
    "SilhouetteWarning",
    "Summary",
    "Track",
    "align",
    "align_sequence",
    "by_reason",
    "contact_sheet",
    "extract",
    "find",
    "find_sequences",
    "is_sequence",
    "open_segmenter",
    "read",
    "read_sequence",
    "video_to_silhouettes",
    "walkers",
    "write",
]
