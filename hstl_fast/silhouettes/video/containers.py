"""The video's codec, read from the headers of MP4, QuickTime, AVI and Matroska files."""

from __future__ import annotations

import re
from pathlib import Path

# Headers are looked for in this many bytes at the start and at the end of the file.
HEADER_BYTES = 4 * 2**20
PRINTABLE = rb"[A-Za-z0-9 ._-]{4}"
# Patterns of the codec by the magic bytes of the file: in MP4 and QuickTime the sample description (version, flags, one
# entry with its size and codec), in AVI the stream header, in Matroska and WebM the codec's name.
CODEC_PATTERNS = (
    (rb"\x1a\x45\xdf\xa3", rb"V_([A-Z0-9]{3,}(?:/[A-Z0-9]+)*)"),
    (rb"RIFF", rb"strh.{4}vids(" + PRINTABLE + rb")"),
    (rb".{4}(?:ftyp|moov|mdat|wide|free|skip)", rb"stsd\0{4}\0{3}.\0.{3}(" + PRINTABLE + rb")\0{6}\0."),
)
# Names by which people know codecs.
NAMES = {
    "av01": "AV1",
    "avc1": "H.264",
    "h264": "H.264",
    "hev1": "H.265",
    "hvc1": "H.265",
    "hevc": "H.265",
    "mpegh/iso/hevc": "H.265",
    "mpeg4/iso/avc": "H.264",
    "mpg2": "MPEG-2",
    "vvc1": "H.266",
}
AUDIO = ("mp4a", "ac-3", "ec-3", "opus", "sowt", "twos", "alac", "samr", "tmcd", "text", "tx3g", "mett", "mebx")


def codec_in(path: Path) -> str | None:
    """Find the codec of a video file, `H.265 (hvc1)` or only the four letters, or None where no header names one."""
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
        file.seek(max(len(head), path.stat().st_size - HEADER_BYTES))
        data = head + file.read(HEADER_BYTES)
    for magic, pattern in CODEC_PATTERNS:
        codes = re.finditer(pattern, data, re.DOTALL) if re.match(magic, data, re.DOTALL) else ()
        for code in (found[1].decode("ascii").strip() for found in codes):
            if code.lower() not in AUDIO:
                return named(code)
    return None


def named(code: str) -> str:
    """Put the usual name of a codec before its code, where there is one.

    Args:
        code: Four letters, or Matroska's name.

    Returns:
        A phrase such as `H.265 (hvc1)`.
    """
    name = NAMES.get(code.lower())
    return f"{name} ({code})" if name else code
