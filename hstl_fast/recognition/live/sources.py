"""Sources of frames by what a person types: a camera's number, an address, or a file."""

from __future__ import annotations

import re
import socket
import sys
import threading
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from hstl_fast.names import did_you_mean
from hstl_fast.recognition.live.events import Source
from hstl_fast.recognition.live.files import FileSource
from hstl_fast.recognition.live.grabbing import GrabbingProcess
from hstl_fast.recognition.live.stream import Connect, LiveSource, Report, SourceError, silent_report

# Protocols that FFmpeg brings for live streams, each with the port that is meant where an address names none.
PROTOCOLS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443, "rtmp": 1935, "rtmps": 443, "srt": 0, "udp": 0}
# Protocols over TCP answer a connection before anything else is said.
ANSWERING = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps")
# Seconds that are given to find out why a stream does not deliver.
ASKING = 3.0
_CAMERA = re.compile(r"\d{1,3}|/dev/video\d+")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# Secrets in an address: all that stands before its last @, all that is asked for, and such fields of a path as some
# cameras have. Rather too much is hidden than too little.
_SECRETS = (
    (re.compile(r"(?<=://)\S*@"), "***@"),
    (re.compile(r"(://[^\s?]*\?)\S+"), r"\1***"),
    (
        re.compile(r"\b((?:user|usr|login|pass|pwd|passwd|password|token|key|auth)\w*[=:])[^&/\s]+", re.IGNORECASE),
        r"\1***",
    ),
)


def open_source(
    text: str, *, loop: bool = False, pace: bool = False, timeout: float = 10.0, report: Report = silent_report
) -> Source:
    """Open a camera, a stream or a video file.

    Files are opened at once, cameras and streams when their frames are first asked for.

    Args:
        text: A camera such as `0` or `/dev/video0`; a stream such as `rtsp://user:password@host/path` or
            `http://host/video.mjpg`; or the path of a video file.
        loop: Whether a file begins again at its end.
        pace: Whether a file comes at its own rate like a camera, so that frames are dropped where nobody takes them.
            Cameras and streams always do.
        timeout: Seconds without a frame after which a camera or a stream counts as lost, and is opened again.
        report: Called with a sentence when a camera or a stream is lost, and when it is found again.

    Returns:
        The source. Its name has no password in it.

    Raises:
        SourceError: There is no such camera, nothing reads such an address, or `loop` is set for a camera or a stream.
        SilhouetteError: The file cannot be opened, or no frame in it decodes.
        ValueError: `timeout` is not positive. (The others are ValueErrors, too.)
        ImportError: OpenCV is missing; it comes with the extra `[video]`.
    """
    if not timeout > 0:
        raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")
    address = _ADDRESS.match(text)
    if address and address[1].lower() == "file":
        text, address = unquote(urlsplit(text).path), None
    if address is None and not _CAMERA.fullmatch(text):
        return FileSource(text, loop=loop, pace=pace)
    name = without_password(text) if address else f"camera {text}"
    if loop:
        raise SourceError(f"loop: expected a video file, which has an end, got {name}")
    if address is None:
        return LiveSource(name, _camera(text, name), timeout, report, lambda: "another program may be using it")
    parts = _checked(text, name)
    return LiveSource(name, lambda: GrabbingProcess(text, timeout), timeout, report, lambda: _asked(parts))


def without_password(text: str) -> str:
    """Take user and password out of an address.

    Args:
        text: The address.

    Returns:
        The address with `***` in their place.
    """
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _camera(text: str, name: str) -> Connect:
    device = Path(text if text.startswith("/") else f"/dev/video{text}")
    if sys.platform == "linux" and not device.exists():
        found = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*")))
        raise SourceError(f"{name}: expected a camera at {device}, got none; cameras here: {found or 'none'}")
    number: str | int = text if text.startswith("/") else int(text)
    return lambda: GrabbingProcess(number, None)


def _checked(address: str, name: str) -> SplitResult:
    """The parts of an address that FFmpeg can read."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # it may quote a piece of a password
        raise SourceError(
            f"{name}: expected an address such as rtsp://user:password@host:554/path, got another form; signs such as "
            f"/ and @ in a password are written as %2F and %40"
        ) from None
    if parts.scheme not in PROTOCOLS:
        protocols = ", ".join(f"{each}://" for each in PROTOCOLS)
        hint = did_you_mean(parts.scheme, PROTOCOLS)
        raise SourceError(f"{name}: expected an address that begins with {protocols}; got {parts.scheme}://{hint}")
    if not parts.hostname or port == 0:
        raise SourceError(f"{name}: expected an address with a host, got none")
    return parts


def _asked(parts: SplitResult) -> str:
    """Find out what a host says to a connection; no longer than some seconds, though names can take longer."""
    port = parts.port or PROTOCOLS[parts.scheme]
    if parts.scheme not in ANSWERING:
        return "is it sending?"
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(_connect(str(parts.hostname), port)), daemon=True)
    thread.start()
    thread.join(ASKING)
    return answers[0] if answers else f"port {port} of the host does not answer"


def _connect(host: str, port: int) -> str:
    try:
        socket.create_connection((host, port), timeout=ASKING).close()
    except socket.gaierror:
        return "the host's name is not known"
    except ConnectionRefusedError:
        return f"the host refuses connections at port {port}"
    except OSError as error:
        return f"port {port} of the host does not answer ({error.strerror or 'no answer in time'})"
    return f"port {port} of the host answers, so look at the path, the user and the password"
