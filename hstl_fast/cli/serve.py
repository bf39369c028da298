"""`hstl-fast gallery serve`: the people of a gallery on a local web page."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from hstl_fast.cli.galleries import gallery_option
from hstl_fast.recognition.gallery import Gallery
from hstl_fast.recognition.server import GalleryPage
from hstl_fast.recognition.server.address import DEFAULT_PORT, LOOPBACK


@click.command(short_help="Show the people on a local web page.")
@gallery_option
@click.option("--host", default=LOOPBACK, show_default=True, help="What the page listens at: this machine alone.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="Port; 0 takes any."
)
@click.option("--token", help="What others need to see the page.  [default: one is made where others can reach it]")
def serve(gallery: str, host: str, port: int, token: str | None) -> None:
    """Show the people of a gallery on a local web page, to rename and remove them, until Ctrl-C.

    `hstl-fast watch --serve` shows the live picture, too, and enrols.
    """
    with Gallery(gallery, create=False) as known, GalleryPage(known, host=host, port=port, token=token) as page:
        click.echo(page.address.announcement)
        with _ended_by_signals():
            page.wait()
    click.echo("The page has ended.")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """End the block without an error when the process is interrupted or asked to end."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
