"""A camera on the network: Motion JPEG over HTTP at this machine, which can stall, break off and come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

HEIGHT, WIDTH = 48, 64


class MjpegServer:
    """A server whose pictures are of one grey value each, 40, 41, ... 199 and again.

    Attributes:
        fps: Pictures a second.
        sending: Whether pictures are sent; else connections are open, and nothing comes.
        answering: Whether a request is answered at all.
        sent: The number of pictures sent so far.
        requests: The number of requests so far.
        leaves: Pictures after which a connection is broken off, or None.
    """

    def __init__(self) -> None:
        self.fps = 100.0
        self.sending, self.answering, self.over = threading.Event(), threading.Event(), threading.Event()
        self.sending.set()
        self.answering.set()
        self.sent = self.requests = 0
        self.leaves: int | None = None
        self.progress = threading.Condition()
        cv2 = pytest.importorskip("cv2")
        pictures = (np.full((HEIGHT, WIDTH, 3), value, np.uint8) for value in range(40, 200))
        self._jpegs = [cv2.imencode(".jpg", picture)[1].tobytes() for picture in pictures]
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server._wait(server.answering)
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                server._send(self)

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"

    def wait_for(self, sent: int) -> None:
        """Wait until so many pictures have been sent."""
        with self.progress:
            assert self.progress.wait_for(lambda: self.sent >= sent, timeout=20)

    def close(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def _wait(self, flag: threading.Event) -> None:
        while not (flag.wait(0.01) or self.over.is_set()):
            pass

    def _send(self, handler: BaseHTTPRequestHandler) -> None:
        count = 0
        while not self.over.is_set() and count != self.leaves:
            self._wait(self.sending)
            jpeg = self._jpegs[self.sent % len(self._jpegs)]
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            try:
                handler.wfile.write(head.encode() + jpeg + b"\r\n")
            except OSError:
                return
            count += 1
            with self.progress:
                self.sent += 1
                self.progress.notify_all()
            self.over.wait(1 / self.fps)
        handler.close_connection = True


@contextmanager
def mjpeg_server() -> Iterator[MjpegServer]:
    """Run a server for a block."""
    server = MjpegServer()
    try:
        yield server
    finally:
        server.close()
