"""Options that a caller sets by argument, by context or by the environment."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator
from typing import NamedTuple

from hstl_fast.names import one_of


class Option(NamedTuple):
    """A choice among `names`, "auto" by default: the argument wins over the context, the context over `variable`."""

    kind: str
    names: tuple[str, ...]
    variable: str
    context: contextvars.ContextVar[str | None]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Set the option to `name` in this context (this thread, this task).

        Raises:
            ValueError: the name is unknown; the nearest one is named.
        """
        token = self.context.set(self.checked(name, self.kind))
        try:
            yield
        finally:
            self.context.reset(token)

    def value(self, argument: str | None = None) -> str:
        """The option's value: the argument if there is one, else what the context or the environment says.

        Raises:
            ValueError: the name is unknown; the nearest one is named.
        """
        if argument is not None:
            return self.checked(argument, self.kind)
        name = self.context.get()
        return self.checked(os.environ.get(self.variable) or "auto", self.variable) if name is None else name

    def checked(self, name: str, source: str) -> str:
        """`name`, if it is one of `names`; ValueError naming `source` if not."""
        return one_of(name, self.names, source)


def option(kind: str, names: tuple[str, ...]) -> Option:
    """An option whose environment variable is HSTL_FAST_ and the kind in capitals."""
    return Option(kind, names, f"HSTL_FAST_{kind.upper()}", contextvars.ContextVar(f"hstl_fast_{kind}", default=None))
