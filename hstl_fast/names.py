"""Names that a caller chooses from."""

import difflib
from collections.abc import Iterable


def one_of(name: str, choices: Iterable[str], source: str) -> str:
    """`name` if it is one of `choices`; otherwise ValueError naming `source`, the choices and the nearest of them."""
    names = list(choices)
    if name in names:
        return name
    raise ValueError(f"{source} must be one of {', '.join(names)}, got {name!r}{did_you_mean(name, names)}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest choice, or nothing if none is near."""
    near = difflib.get_close_matches(str(name), list(choices), n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else ""
