"""People cut out of footage. Needs the extra `[video]`, which is imported at the first call."""

from hstl_fast.progress import Progress
from hstl_fast.silhouettes.video.extraction import extract, video_to_silhouettes
from hstl_fast.silhouettes.video.segmenters import Segmenter, open_segmenter
from hstl_fast.silhouettes.video.sheet import contact_sheet
from hstl_fast.silhouettes.video.tracks import SavedTrack, Summary, Track

__all__ = [
    "Progress",
    "SavedTrack",
    "Segmenter",
    "Summary",
    "Track",
    "contact_sheet",
    "extract",
    "open_segmenter",
    "video_to_silhouettes",
]
