"""Recognition in use: a gallery of people, names or "nobody" for walks, live. Needs the extra `[recognition]`."""

from hstl_fast.recognition.errors import GalleryError, GalleryWarning
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.records import Answer, Clip, Fingerprint, GalleryVectors, Match, Person, Recording

__all__ = [
    "Answer",
    "Clip",
    "Fingerprint",
    "Gallery",
    "GalleryError",
    "GalleryVectors",
    "GalleryWarning",
    "Match",
    "Person",
    "Recording",
]
