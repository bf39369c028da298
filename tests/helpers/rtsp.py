"""A camera on the network that speaks RTSP: MPEG transport packets in RTP over the connection itself."""

from __future__ import annotations

import base64
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

USER, PASSWORD = "me", "sec/ret"
PACKET, PACKETS = 188, 7
# The payload type of MPEG transport streams.
MP2T = 33
DESCRIPTION = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nt=0 0\r\nm=video 0 RTP/AVP {MP2T}\r\na=control:video\r\n"


class _Camera(socketserver.StreamRequestHandler):
    """Answers the requests of one client, who has to log in, and then sends until he has gone."""

    server: _Server

    def handle(self) -> None:
        while (request := self._request()) is not None:
            method, fields = request
            login = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            if method != "OPTIONS" and fields.get("authorization") != f"Basic {login}":
                self._answer(fields, "401 Unauthorized", 'WWW-Authenticate: Basic realm="door"')
            elif method == "DESCRIBE":
                self._answer(fields, "200 OK", "Content-Type: application/sdp", body=DESCRIPTION)
            elif method == "SETUP":
                self._answer(fields, "200 OK", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 7")
            elif method == "PLAY":
                self._answer(fields, "200 OK", "Session: 7")
                return self._play()
            else:
                self._answer(fields, "200 OK", "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        return None

    def _request(self) -> tuple[str, dict[str, str]] | None:
        first = self.rfile.readline().decode()
        fields = {}
        while (line := self.rfile.readline().decode().strip()) != "":
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        return (first.split()[0], fields) if first else None

    def _answer(self, fields: dict[str, str], status: str, *headers: str, body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {fields['cseq']}", *headers, f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def _play(self) -> None:
        stream = self.server.stream
        chunk, number = PACKETS * PACKET, 0
        while not self.server.over.wait(0.002):
            start = number * chunk % len(stream)
            rtp = struct.pack(">BBHII", 0x80, MP2T, number % 65536, 90 * 2 * number, 1) + stream[start : start + chunk]
            try:
                self.wfile.write(struct.pack(">cBH", b"$", 0, len(rtp)) + rtp)
            except OSError:
                return
            number += 1


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, stream: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Camera)
        self.stream, self.over = stream, threading.Event()


@contextmanager
def rtsp_server(folder: Path) -> Iterator[str]:
    """Run a server for a block; yield its address, with the password."""
    cv2 = pytest.importorskip("cv2")
    path = folder / "door.ts"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(100):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    with _Server(path.read_bytes()) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"rtsp://{USER}:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{server.server_address[1]}/door"
        finally:
            server.over.set()
            server.shutdown()
