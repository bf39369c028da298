"""Checks of names that a caller chooses from a list."""

import difflib
from collections.abc import Iterable


def one_of(name: str, choices: Iterable[str], source: str) -> str:
    """Check that a name is one of a list.

    Args:
        name: The name to check.
        choices: The names that are allowed.
        source: Where the name comes from, such as an argument or a variable; the error begins with it.

    Returns:
        `name`.

    Raises:
        ValueError: `name` is not one of `choices`; the message lists them and names the nearest one.
    """
    names = list(choices)
    if name in names:
        return name
    raise ValueError(f"{source} must be one of {', '.join(names)}, got {name!r}{did_you_mean(name, names)}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Write the end of a message about an unknown name.

    Args:
        name: The name that was given.
        choices: The names that are allowed.

    Returns:
        A question such as `; did you mean 'cpu'?` with the nearest choice, where upper and lower case count as the
        same, or nothing if none is near.
    """
    lower_case = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(str(name).lower(), lower_case, n=1, cutoff=0.5)
    return f"; did you mean {lower_case[near[0]]!r}?" if near else ""
