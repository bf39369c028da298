"""Silhouette sequences on disk: the names of the reader, the writer and the search in one place."""

from hstl_fast.silhouettes.collecting import Reading
from hstl_fast.silhouettes.finding import Found, find, find_sequences, is_sequence
from hstl_fast.silhouettes.folders import CONTACT_SHEET, FILE_SUFFIXES, PICTURE_SUFFIXES
from hstl_fast.silhouettes.reading import read, read_sequence
from hstl_fast.silhouettes.writing import write

__all__ = [
    "CONTACT_SHEET",
    "FILE_SUFFIXES",
    "PICTURE_SUFFIXES",
    "Found",
    "Reading",
    "find",
    "find_sequences",
    "is_sequence",
    "read",
    "read_sequence",
    "write",
]
