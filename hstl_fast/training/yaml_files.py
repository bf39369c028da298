"""Configurations as YAML files, with overrides. Needs the extra `[train]`."""

from __future__ import annotations

import inspect
import os
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hstl_fast.files import atomic_file
from hstl_fast.silhouettes import extras
from hstl_fast.training.checks import Plain, is_null
from hstl_fast.training.config import TrainingConfig
from hstl_fast.training.plain import Given, all_fields, flat, unknown, with_values

COMMAND_LINE = "command line"
_LONGEST_FILE = 2**20
# Nodes of a file, each alias counted as what it stands for.
_MOST_NODES = 10_000
# Lists and dicts within one another. PyYAML calls itself for each, and how often it may is the interpreter's setting.
_MOST_LEVELS = 32
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "seq", "map")}
_COMMENT_WIDTH = 100


class Document(NamedTuple):
    """The content of a YAML file.

    Attributes:
        source: The name of the file.
        content: Dicts, lists and text; text that was written without quotes is `Plain`, whatever it looks like.
        lines: The line of each key, by its path with dots.
    """

    source: str
    content: dict[str, Any]
    lines: dict[str, int]

    def where(self, path: str) -> str:
        """Say where a key stands.

        Args:
            path: The key with those above it, joined by dots.

        Returns:
            The name of the file and the line.
        """
        return f"{self.source}, line {self.lines[path]}" if path in self.lines else self.source


def load_config(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (), overrides: Iterable[str] = ()
) -> TrainingConfig:
    """Make a configuration: the defaults of the preset, then the values of YAML files, then overrides.

    Args:
        path: A YAML file or several, of which the later ones win; each holds sections with fields, such as
            `schedule: {steps: 500}`.
        overrides: Texts such as `schedule.steps=500`.

    Returns:
        The configuration; its preset is the last one that is given.

    Raises:
        ValueError: A file is no YAML, a field does not exist, or a value has a wrong type or is out of range; the
            message says where it stands.
        OSError: A file cannot be read.
        ImportError: PyYAML is missing, from the extra `[train]`.
    """
    files = [path] if isinstance(path, (str, os.PathLike)) else list(path)
    layers = [yaml_values(read_yaml(file)) for file in files]
    return resolve([*layers, override_values(overrides)])


def resolve(layers: Iterable[Mapping[str, Given]]) -> TrainingConfig:
    """Make a configuration of the defaults of the preset and layers of values.

    Args:
        layers: Values by the paths of their fields; later layers win.

    Returns:
        The configuration; its preset is the last one that is given.

    Raises:
        ValueError: A value has a wrong type or is out of range; the message says where it stands.
    """
    values = {path: given for layer in layers for path, given in layer.items()}
    chosen = {path: given for path, given in values.items() if path == "network.preset"}
    return with_values(TrainingConfig.from_preset(with_values(TrainingConfig(), chosen).network.preset), values)


def override_values(assignments: Iterable[str], where: str = COMMAND_LINE) -> dict[str, Given]:
    """Read overrides.

    Args:
        assignments: Texts such as `schedule.steps=500`; a list is written `[1, 2]` or `1,2`, nothing as `null`.
        where: Where they stand, for messages.

    Returns:
        The values by the paths of their fields.

    Raises:
        ValueError: A text is no assignment, or the field does not exist.
    """
    annotations = {field.path: field.annotation for field in all_fields()}
    values = {}
    for assignment in assignments:
        path, sign, text = (part.strip() for part in assignment.partition("="))
        if not sign:
            raise ValueError(f"{where}: expected FIELD=VALUE, such as schedule.steps=500, got {assignment!r}")
        if path not in annotations:
            raise unknown(path, where)
        values[path] = Given(_listed(text) if annotations[path].startswith("tuple") else Plain(text), where)
    return values


def _listed(text: str) -> Any:
    """A list that is written with or without brackets; other text as it is."""
    bare = text.removeprefix("[").removesuffix("]").strip()
    items = [Plain(item.strip()) for item in bare.split(",")] if bare else []
    is_list = text.startswith("[") or len(items) > 1 or all(item.isdecimal() for item in items)
    return items if is_list and text else Plain(text)


def yaml_values(document: Document) -> dict[str, Given]:
    """List the values of a configuration's file.

    Args:
        document: The file.

    Returns:
        The values by the paths of their fields.

    Raises:
        ValueError: A key is no field; the message has its line and the nearest field. Or the file is one of OpenGait,
            which `hstl_fast.training.opengait` reads.
    """
    foreign = [key for key in document.content if key.endswith("_cfg")]
    if foreign:
        raise ValueError(
            f"{document.where(foreign[0])}: expected fields of the configuration, got {foreign[0]} of OpenGait; "
            "`hstl-fast train --opengait` and hstl_fast.training.opengait read such files"
        )
    return dict(flat(document.content, document.where))


def read_yaml(path: str | os.PathLike[str]) -> Document:
    """Read a YAML file; no value is converted yet, since YAML 1.1 takes `1e-4` for text and `no` for false.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ValueError: It is not the YAML of a dict, has a key twice, or a tag; the message has the line.
        OSError: It cannot be read.
        ImportError: PyYAML is missing, from the extra `[train]`.
    """
    source = os.fspath(path)
    if Path(path).stat().st_size > _LONGEST_FILE:
        raise ValueError(f"{source}: expected a configuration of at most {_LONGEST_FILE} bytes, got a larger file")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{source}: expected YAML in UTF-8, got a file in another encoding ({error})") from error
    yaml = extras.pyyaml()
    try:
        _check_levels(source, yaml.parse(text, yaml.SafeLoader))
        return _Reader(source, yaml.SafeLoader(text)).document()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise ValueError(f"{source}{line}: expected YAML, got what is none ({reason})") from error


def _check_levels(source: str, events: Iterable[Any]) -> None:
    levels = 0
    for event in events:
        kind = type(event).__name__
        levels += kind in ("MappingStartEvent", "SequenceStartEvent")
        levels -= kind in ("MappingEndEvent", "SequenceEndEvent")
        if levels > _MOST_LEVELS:
            raise _nested_too_deeply(source)


def _nested_too_deeply(source: str) -> ValueError:
    return ValueError(f"{source}: expected a configuration, got YAML that is nested too deeply")


class _Reader:
    def __init__(self, source: str, loader: Any) -> None:
        self._source, self._loader, self._count = source, loader, 0
        self._lines: dict[str, int] = {}

    def document(self) -> Document:
        node = self._loader.get_single_node()
        content = {} if node is None else self._value(node, "", 0)
        if is_null(content):
            content = {}
        if not isinstance(content, dict):
            raise ValueError(f"{self._source}: expected fields by name, got a {node.id}")
        return Document(self._source, content, self._lines)

    def _value(self, node: Any, path: str, levels: int) -> Any:
        if levels > _MOST_LEVELS:
            raise _nested_too_deeply(self._source)
        self._count += 1
        if self._count > _MOST_NODES:
            raise ValueError(f"{self._source}: expected a configuration, got more than {_MOST_NODES} values")
        if node.tag not in _TAGS:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise ValueError(f"{self._place(node)}: expected plain values, got the tag {tag}")
        if node.id == "scalar":
            return str(node.value) if node.style else Plain(node.value)
        if node.id == "sequence":
            return [self._value(each, f"{path}[{i}]", levels + 1) for i, each in enumerate(node.value)]
        return dict(self._pairs(node, path, levels + 1))

    def _pairs(self, node: Any, path: str, levels: int) -> Iterator[tuple[str, Any]]:
        names: list[str] = []
        for key, _ in node.value:
            if key.id != "scalar":
                raise ValueError(f"{self._place(key)}: expected a name as key, got a {key.id}")
            if key.value in names:
                raise ValueError(f"{self._place(key)}: expected every key once, got {key.value!r} more than once")
            names.append(key.value)
        self._loader.flatten_mapping(node)
        for key, value in node.value:
            whole = f"{path}.{key.value}" if path else str(key.value)
            self._lines[whole] = key.start_mark.line + 1
            yield str(key.value), self._value(value, whole, levels)

    def _place(self, node: Any) -> str:
        return f"{self._source}, line {node.start_mark.line + 1}"


def to_yaml(config: TrainingConfig) -> str:
    """Write a configuration as YAML, every field with a comment on what it means.

    Args:
        config: The configuration.

    Returns:
        The text of a file that `load_config` reads as the same configuration.

    Raises:
        ImportError: PyYAML is missing, from the extra `[train]`.
    """
    return "\n".join(_written(config, 0)) + "\n"


def write_config(path: Path, config: TrainingConfig) -> None:
    """Write a configuration to a file, atomically.

    Args:
        path: The file; an earlier one is replaced.
        config: The configuration.

    Raises:
        OSError: The file cannot be written.
        ImportError: PyYAML is missing, from the extra `[train]`.
    """
    text = to_yaml(config)
    with atomic_file(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def _written(section: Any, depth: int) -> Iterator[str]:
    meanings, indent = _meanings(type(section)), "  " * depth
    for each in fields(section):
        value = getattr(section, each.name)
        if is_dataclass(value) and not depth:
            yield ""
        for line in textwrap.wrap(meanings.get(each.name, ""), _COMMENT_WIDTH):
            yield f"{indent}# {line}"
        if is_dataclass(value):
            yield f"{indent}{each.name}:"
            yield from _written(value, depth + 1)
        else:
            yield f"{indent}{each.name}: {_scalar(value)}"


def _meanings(section: type) -> dict[str, str]:
    """The descriptions of a section's fields, from its docstring; none where Python has left docstrings out."""
    attributes = (inspect.getdoc(section) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.MULTILINE)
    return {name: re.sub(r"\bNone\b", "null", " ".join(text.split())) for name, text in found}


def _scalar(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    if isinstance(value, float):
        # A number without a point before its exponent is text in YAML 1.1.
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))
    options: dict[str, Any] = {"allow_unicode": True, "width": float("inf")}
    if isinstance(value, str) and not value.isprintable():
        options["default_style"] = '"'
    return str(extras.pyyaml().safe_dump(value, **options)).removesuffix("...\n").strip("\n")
