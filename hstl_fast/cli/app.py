"""The program: its commands, and the conversion of every failure to one sentence and an exit code."""

import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

import hstl_fast
from hstl_fast import environment
from hstl_fast._starting import INTERRUPTED
from hstl_fast.cli.bench import bench
from hstl_fast.cli.demo import demo
from hstl_fast.cli.embed import embed
from hstl_fast.cli.enroll import enroll
from hstl_fast.cli.evaluate import evaluate
from hstl_fast.cli.gallery import gallery
from hstl_fast.cli.hierarchy import hierarchy
from hstl_fast.cli.identify import identify
from hstl_fast.cli.info import info
from hstl_fast.cli.output import name_full_output, print_any_name, warn
from hstl_fast.cli.prepare import prepare
from hstl_fast.cli.silhouettes import silhouettes
from hstl_fast.cli.train import train
from hstl_fast.cli.tune import tune
from hstl_fast.cli.watch import watch
from hstl_fast.recognition.errors import GalleryWarning
from hstl_fast.silhouettes import SilhouetteWarning


class _Program(click.Group):
    """Reports an exception as `Error: <sentence>` with exit code 1, and Ctrl-C as shells do.

    `--debug` prints the traceback, too.
    """

    def invoke(self, ctx: click.Context) -> Any:
        print_any_name()
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except (KeyboardInterrupt, click.Abort) as interrupt:
            # A question that is interrupted raises the second.
            if isinstance(interrupt, click.Abort) and not isinstance(interrupt.__context__, KeyboardInterrupt):
                raise
            warn("Aborted!")
            raise click.exceptions.Exit(INTERRUPTED) from interrupt
        except Exception as error:
            if ctx.params["debug"]:
                traceback.print_exc()
            name_full_output(error)
            raise click.ClickException(_sentence(error)) from error


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show the warnings of hstl_fast to the user on one line each; those of other packages stay as they are."""
    with warnings.catch_warnings():
        shown_by_default = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, (SilhouetteWarning, GalleryWarning)):
                warn(f"Warning: {message}")
            else:
                shown_by_default(message, category, *where, **more)

        warnings.simplefilter("always", SilhouetteWarning)
        warnings.simplefilter("always", GalleryWarning)
        warnings.showwarning = show
        yield


def _debug(_: click.Context, __: click.Parameter, given: bool) -> bool:
    """The option, or else the variable."""
    try:
        return given or environment.debug()
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


@click.group(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(hstl_fast.__version__, prog_name="hstl-fast")
@click.option("--debug", is_flag=True, callback=_debug, help="Print the traceback of an error, too.")
def program(debug: bool) -> None:
    """Gait recognition with HSTL: who walks here, judged by silhouettes alone."""


_DATA = (silhouettes, prepare, embed, evaluate)
_RECOGNITION = (enroll, identify, gallery, watch)
for command in (demo, info, *_DATA, *_RECOGNITION, train, hierarchy, bench, tune):
    program.add_command(command)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    message = " ".join(str(error).split())
    if isinstance(error, (ValueError, OSError, ImportError, TypeError, RuntimeError)) and message:
        return message
    return f"unexpected {type(error).__name__}: {message}; `hstl-fast --debug ...` shows where"
