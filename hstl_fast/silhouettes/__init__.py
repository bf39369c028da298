"""Silhouettes: reading and writing sequences, alignment, and people cut out of video. Needs numpy only; Pillow and OpenCV are
imported when a function that uses them is called."""

from hstl_fast.silhouettes.align import align, align_sequence
from hstl_fast.silhouettes.errors import SilhouetteError
from hstl_fast.silhouettes.video import SavedTrack, Summary, video_to_silhouettes

__all__ = ["SavedTrack", "SilhouetteError", "Summary", "align", "align_sequence", "video_to_silhouettes"]
