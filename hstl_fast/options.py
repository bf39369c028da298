"""Options that a caller sets by argument, by context or by the environment."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import NamedTuple

from hstl_fast import environment
from hstl_fast.names import one_of


class Option(NamedTuple):
    """A choice among names: the argument wins over the context, the context over the environment.

    Attributes:
        kind: The argument's name, for messages.
        names: The values that it takes.
        from_environment: Reads and checks the environment variable.
        context: Holds the value that a context sets.
    """

    kind: str
    names: tuple[str, ...]
    from_environment: Callable[[], str]
    context: contextvars.ContextVar[str | None]

    @contextlib.contextmanager
    def use(self, name: str) -> Iterator[None]:
        """Set the option in this context (this thread, this task).

        Args:
            name: One of `names`.

        Yields:
            None, while the option is set.

        Raises:
            ValueError: The name is unknown; the nearest one is named.
        """
        token = self.context.set(one_of(name, self.names, self.kind))
        try:
            yield
        finally:
            self.context.reset(token)

    def value(self, argument: str | None = None) -> str:
        """Find the option's value: the argument if there is one, else that of the context or the environment.

        Args:
            argument: The caller's argument.

        Returns:
            One of `names`.

        Raises:
            ValueError: The name is unknown; the nearest one is named.
        """
        if argument is not None:
            return one_of(argument, self.names, self.kind)
        name = self.context.get()
        return self.from_environment() if name is None else name


def _option(kind: str, variable: environment.Variable, read: Callable[[], str]) -> Option:
    return Option(kind, variable.choices, read, contextvars.ContextVar(f"hstl_fast_{kind}", default=None))


BACKEND = _option("backend", environment.BACKEND, environment.backend)
ALGORITHM = _option("algorithm", environment.ALGORITHM, environment.algorithm)
