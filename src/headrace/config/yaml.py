"""YAML text -> plain data, with the line of every value.

Accepts what a configuration needs and nothing more: one document of mappings, lists and plain
scalars. Aliases, tags and deep nesting are refused, so a small file cannot become a large one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, DocumentStartEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from headrace.errors import ConfigError

MAX_DEPTH = 16

Key: TypeAlias = tuple[str | int, ...]
Lines: TypeAlias = dict[Key, int]


def parse(text: str, name: str) -> tuple[dict[str, Any], Lines]:
    """The mapping in `text`, and the line (from 1) of every key and list item by its path.

    An empty text is an empty mapping. Raises `ConfigError` that begins with `name:line:`.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        _refuse_tricks(yaml, text, name)
        root = yaml.compose(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{name}:{line}: character {chr(error.character)!r} is not allowed"
        ) from error
    except MarkedYAMLError as error:
        raise ConfigError(_syntax_message(error, name)) from error
    except YAMLError as error:
        raise ConfigError(f"{name}: is not YAML: {error}") from error
    if root is None:
        return {}, {}
    if not isinstance(root, MappingNode):
        if isinstance(root, ScalarNode) and root.value == "":
            return {}, {}
        line = root.start_mark.line + 1
        raise ConfigError(f"{name}:{line}: must be a mapping of options (`name: value`)")
    reader = _Reader(name, yaml)
    data: dict[str, Any] = reader.value(root, ())
    return data, reader.lines


def _refuse_tricks(yaml: YAML, text: str, name: str) -> None:
    depth = documents = 0
    for event in yaml.parse(text):
        line = event.start_mark.line + 1
        kind = type(event).__name__
        depth += kind.endswith(("MappingStartEvent", "SequenceStartEvent"))
        depth -= kind.endswith(("MappingEndEvent", "SequenceEndEvent"))
        documents += isinstance(event, DocumentStartEvent)
        if documents > 1:
            raise ConfigError(f"{name}:{line}: holds a second document; one file, one document")
        if depth > MAX_DEPTH:
            raise ConfigError(f"{name}:{line}: is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, AliasEvent):
            raise ConfigError(f"{name}:{line}: aliases (`*{event.anchor}`) are not allowed")
        if tag := getattr(event, "tag", None):
            raise ConfigError(f"{name}:{line}: tags (`{tag}`) are not allowed")


def _syntax_message(error: MarkedYAMLError, name: str) -> str:
    mark = error.problem_mark or error.context_mark
    where = f"{name}:{mark.line + 1}" if mark else name
    problem = error.problem or "is not YAML"
    if "'\\t'" in problem:
        problem = "a tab indents the line; YAML wants spaces"
    return f"{where}: {problem}"


class _Reader:
    """Turns nodes into data and remembers where each stood."""

    def __init__(self, name: str, yaml: YAML) -> None:
        self.name = name
        self.lines: Lines = {}
        self._constructor = yaml.constructor

    def value(self, node: Node, path: Key) -> Any:
        if isinstance(node, MappingNode):
            return {key: self.value(child, (*path, key)) for key, child in self._pairs(node, path)}
        if isinstance(node, SequenceNode):
            for index, child in enumerate(node.value):
                self.lines[(*path, index)] = child.start_mark.line + 1
            return [self.value(child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, ScalarNode), "YAML has three kinds of nodes"
        return self._scalar(node)

    def _pairs(self, node: MappingNode, path: Key) -> Iterator[tuple[str, Node]]:
        for key_node, child in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise ConfigError(f"{self.name}:{line}: a name must be a word, not a list or map")
            key = str(key_node.value)
            if (*path, key) in self.lines:
                first = self.lines[(*path, key)]
                option = ".".join(map(str, (*path, key)))
                raise ConfigError(
                    f"{self.name}:{line}: {option} is given twice (first: line {first})"
                )
            self.lines[(*path, key)] = line
            yield key, child

    def _scalar(self, node: ScalarNode) -> str | int | float | bool | None:
        kind = str(node.tag).rpartition(":")[2]
        if kind == "null":
            return None
        if kind == "bool":
            return bool(self._constructor.construct_yaml_bool(node))
        if kind in ("int", "float"):
            return self._number(node, kind)
        text = str(node.value)
        try:
            text.encode()
        except UnicodeEncodeError as error:
            line = node.start_mark.line + 1
            raise ConfigError(
                f"{self.name}:{line}: holds half of a character (an escape such as \\ud800); write "
                "the character itself"
            ) from error
        return text

    def _number(self, node: ScalarNode, kind: str) -> int | float:
        """The resolver takes more for numbers than can be read: `-_`, `._`, 5,000 digits."""
        line, shown = node.start_mark.line + 1, str(node.value)[:40]
        try:
            if kind == "int":
                return int(self._constructor.construct_yaml_int(node))
            number = float(self._constructor.construct_yaml_float(node))
        except ValueError as error:
            raise ConfigError(
                f"{self.name}:{line}: {shown} cannot be read as a number; put a text into quotes"
            ) from error
        if not math.isfinite(number):
            raise ConfigError(f"{self.name}:{line}: {shown} is not a finite number")
        return number
