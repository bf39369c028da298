"""Types of options that several commands share."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from hstl_fast.names import did_you_mean

_Function = TypeVar("_Function", bound=Callable[..., Any])


def choice(flag: str, choices: Iterable[str], **attributes: Any) -> Callable[[_Function], _Function]:
    """Make an option that takes one of a few names; the error for another name lists them and says the nearest."""
    names = list(choices)

    def check(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
        if value is None or value in names:
            return value
        raise click.BadParameter(f"expected one of {', '.join(names)}; got {value!r}{did_you_mean(value, names)}")

    return click.option(flag, metavar=f"[{'|'.join(names)}]", callback=check, **attributes)


def new_file(suffix: str) -> Callable[[str], Path]:
    """Make the type of a file to be written, which refuses a wrong folder or suffix before the work begins."""

    def convert(value: str) -> Path:
        path = Path(value)
        if path.suffix.lower() != suffix or path.is_dir():
            raise click.BadParameter(f"expected the name of a file that ends in {suffix}; got {value!r}")
        if not path.parent.is_dir():
            raise click.BadParameter(f"the folder {str(path.parent)!r} does not exist")
        _try_writing(path.parent, value)
        return path

    return convert


def _try_writing(folder: Path, value: str) -> None:
    # Permissions do not tell enough: a file system may be read-only.
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise click.BadParameter(f"{value!r} cannot be written: {error.strerror}") from error


def several(*options: Callable[[_Function], _Function]) -> Callable[[_Function], _Function]:
    """Join several options to one decorator; --help shows them in this order."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
