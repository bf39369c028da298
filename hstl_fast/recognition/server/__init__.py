"""A local web page: the live picture, who was seen, and the gallery's people, to enrol and remove by a click."""

from hstl_fast.recognition.server.page import GalleryPage, LivePage
from hstl_fast.recognition.server.people import Keeping

__all__ = ["GalleryPage", "Keeping", "LivePage"]
