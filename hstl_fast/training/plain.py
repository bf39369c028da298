"""Configurations as dicts of plain values, and their making from values of several sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

from hstl_fast.names import did_you_mean
from hstl_fast.training.checks import KINDS, ConfigError, checked, got, is_null
from hstl_fast.training.config import TrainingConfig


class Given(NamedTuple):
    """A value that somebody has given for a field.

    Attributes:
        value: The value, of any type.
        where: Where it stands, such as `mine.yaml, line 3`, for messages; empty where there is nothing to say.
    """

    value: object
    where: str = ""


class Field(NamedTuple):
    """A field of the configuration.

    Attributes:
        path: Its name with those of its sections, such as `data.augmentation.flip`.
        annotation: Its type, a key of `hstl_fast.training.checks.KINDS`.
    """

    path: str
    annotation: str


def all_fields() -> tuple[Field, ...]:
    """List the fields of the configuration in their order.

    Returns:
        The fields of all sections.
    """
    return tuple(_fields_of(TrainingConfig(), ""))


def _fields_of(section: Any, prefix: str) -> Iterator[Field]:
    for each in fields(section):
        if each.type in KINDS:
            yield Field(prefix + each.name, str(each.type))
        else:
            yield from _fields_of(getattr(section, each.name), f"{prefix}{each.name}.")


def config_dict(config: TrainingConfig) -> dict[str, Any]:
    """Describe a configuration by dicts, lists and plain values, as YAML, JSON and checkpoints hold it.

    Args:
        config: The configuration.

    Returns:
        The sections by name, each with its fields by name; `config_from_dict` reads them.
    """
    return _plain(config)


def _plain(section: Any) -> dict[str, Any]:
    values = {each.name: getattr(section, each.name) for each in fields(section)}
    for name, value in values.items():
        if is_dataclass(value):
            values[name] = _plain(value)
        elif isinstance(value, tuple):
            values[name] = list(value)
    return values


def config_from_dict(content: Mapping[str, Any], source: str = "") -> TrainingConfig:
    """Read what `config_dict` has written.

    Args:
        content: The sections by name; a field that is missing gets the value that it has by default, for files of
            older versions.
        source: Where the content comes from, such as the name of a file; an error begins with it.

    Returns:
        The configuration.

    Raises:
        ValueError: A key is unknown, whose nearest one is named, or a value has a wrong type or is out of range.
    """
    return with_values(TrainingConfig(), dict(flat(content, lambda path: source)))


def flat(content: Mapping[str, Any], where: Callable[[str], str]) -> Iterator[tuple[str, Given]]:
    """List the values of a dict of sections by their paths.

    Args:
        content: The sections by name.
        where: Tells where a path stands, for messages.

    Yields:
        Pairs of a path such as `schedule.steps` and the value.

    Raises:
        ValueError: A key is unknown, stands twice, or a section is no dict.
    """
    known = {field.path for field in all_fields()}
    sections = {path[:i] for path in known for i, letter in enumerate(path) if letter == "."}
    seen: set[str] = set()
    pending: list[tuple[str, Mapping[str, Any]]] = [("", content)]
    while pending:
        prefix, section = pending.pop()
        for key, value in section.items():
            path = f"{prefix}{key}"
            if path in sections:
                if isinstance(value, Mapping):
                    pending.append((f"{path}.", value))
                elif not is_null(value):
                    raise ValueError(located(where(path), f"{path}: expected fields by name, got {got(value)}"))
            elif path not in known:
                raise unknown(path, where(path))
            elif path in seen:
                raise ValueError(located(where(path), f"{path}: expected one value, got two"))
            else:
                seen.add(path)
                yield path, Given(value, where(path))


def located(where: str, problem: str) -> str:
    """Put the place of a problem before it.

    Args:
        where: The place; empty where there is nothing to say.
        problem: The sentence.

    Returns:
        The message.
    """
    return f"{where}: {problem}" if where else problem


def unknown(path: str, where: str) -> ValueError:
    """Make the error for a field that does not exist.

    Args:
        path: The name that was given.
        where: Where it stands; empty where there is nothing to say.

    Returns:
        The error; it names the nearest field: one of the same name in another section before others.
    """
    known = [field.path for field in all_fields()]
    inside = [name for name in known if name.startswith(f"{path}.")]
    if inside:
        problem = f"{path}: expected a field of the configuration, such as {inside[0]}, got a section"
        return ValueError(located(where, problem))
    leaf = path.rpartition(".")[2]
    same = [name for name in known if name.rpartition(".")[2] == leaf]
    hint = f"; did you mean {same[0]!r}?" if same else _near(path, known)
    return ValueError(located(where, f"{path}: expected a field of the configuration, got none of that name{hint}"))


def _near(path: str, known: list[str]) -> str:
    """The nearest field or section of the same section, or else the nearest field of all."""
    section = path.rpartition(".")[0]
    start = f"{section}." if section else ""
    beside = {name[len(start) :].partition(".")[0] for name in known if name.startswith(start)}
    if section:
        near = did_you_mean(path.rpartition(".")[2], beside)
        return near.replace("'", f"'{section}.", 1) if near else did_you_mean(path, known)
    return did_you_mean(path, [*beside, *known])


def with_values(config: TrainingConfig, values: Mapping[str, Given]) -> TrainingConfig:
    """Replace fields of a configuration.

    Args:
        config: The configuration; it stays as it is.
        values: The new values by the paths of their fields, such as `schedule.steps`.

    Returns:
        The new configuration.

    Raises:
        ValueError: A value has a wrong type or is out of range; the message says where it stands.
    """
    annotations = {field.path: field.annotation for field in all_fields()}
    try:
        converted = {path: checked(path, annotations[path], given.value) for path, given in values.items()}
        return _replaced(config, "", converted)  # type: ignore[no-any-return]
    except ConfigError as error:
        where = values[error.path].where if error.path in values else ""
        raise ValueError(located(where, str(error))) from None


def _replaced(section: Any, prefix: str, values: Mapping[str, Any]) -> Any:
    arguments = {}
    for each in fields(section):
        path, value = prefix + each.name, getattr(section, each.name)
        arguments[each.name] = _replaced(value, f"{path}.", values) if is_dataclass(value) else values.get(path, value)
    return type(section)(**arguments)
