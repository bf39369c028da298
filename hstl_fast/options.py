"""What a caller asks for by argument, by context or by the environment."""

import contextlib
import contextvars
import os
from collections.abc import Iterator
from typing import NamedTuple

from hstl_fast.names import one_of


class Request(NamedTuple):
    """A choice among `names`, "auto" if nobody asks: an argument wins over the context, the context over `variable`."""

    kind: str
    names: tuple[str, ...]
    variable: str
    context: contextvars.ContextVar[str | None]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Ask for `name` in this context (this thread, this task); ValueError if it is unknown."""
        token = self.context.set(self.checked(name, self.kind))
        try:
            yield
        finally:
            self.context.reset(token)

    def of(self, argument: str | None) -> str:
        """What is asked for; ValueError for an unknown name, with the nearest one."""
        return self.standing() if argument is None else self.checked(argument, self.kind)

    def standing(self) -> str:
        """What the context or the environment asks for."""
        name = self.context.get()
        return self.checked(os.environ.get(self.variable) or "auto", self.variable) if name is None else name

    def checked(self, name: str, source: str) -> str:
        """`name`, if it is one of `names`."""
        return one_of(name, self.names, source)


def request(kind: str, names: tuple[str, ...]) -> Request:
    """A request with its environment variable, HSTL_FAST_ and the kind in capitals."""
    return Request(kind, names, f"HSTL_FAST_{kind.upper()}", contextvars.ContextVar(f"hstl_fast_{kind}", default=None))
