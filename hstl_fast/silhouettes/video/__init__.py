"""People cut out of footage from a fixed camera. Needs the extra `[video]`, which is imported at the first call."""

from hstl_fast.silhouettes.video.extraction import Progress, SavedTrack, Summary, Track, extract, video_to_silhouettes
from hstl_fast.silhouettes.video.sheet import contact_sheet

__all__ = ["Progress", "SavedTrack", "Summary", "Track", "contact_sheet", "extract", "video_to_silhouettes"]
