"""Checks of names that a caller chooses from a list, and of fields by name."""

import difflib
from collections.abc import Collection, Iterable, Mapping


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


def check_fields(name: str, content: object, fields: Collection[str], optional: Collection[str] = ()) -> None:
    """Check that values are given by the names of known fields, such as those of a JSON object.

    Args:
        name: What the fields belong to; the error begins with it.
        content: The values by name.
        fields: The names that are allowed.
        optional: Those of them that may be missing.

    Raises:
        ValueError: `content` is no mapping, has another field or lacks one; the message lists the names.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{name} must be fields by name, got {content!r}")
    for unknown in (str(key) for key in content if key not in fields):
        raise ValueError(f"{name} must hold {', '.join(fields)}; got {unknown!r}{did_you_mean(unknown, fields)}")
    if missing := [field for field in fields if field not in content and field not in optional]:
        raise ValueError(f"{name} must hold {', '.join(fields)}; {', '.join(missing)} is missing")
