"""Values put into the text of a configuration file, and one model's entry put in or taken out.

The rest of the text keeps its order and its comments.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from headrace.config.yaml import parse


def with_model(text: str, name: str, options: Mapping[str, Any]) -> str:
    """`text` with `options` as its only entry of that name. Raises `ConfigError` if `text` is not
    a configuration file's."""
    document = _document(text)
    if not isinstance(document.get("models"), CommentedMap):
        document["models"] = CommentedMap()
    document["models"][name] = CommentedMap(options)
    return _dumped(document)


def without_model(text: str, name: str) -> str | None:
    """`text` without that entry; None if it has none. Raises `ConfigError`."""
    document = _document(text)
    models = document.get("models")
    if not isinstance(models, CommentedMap) or name not in models:
        return None
    del models[name]
    return _dumped(document)


def with_values(text: str, values: Mapping[tuple[str, ...], Any]) -> str:
    """`text` with these values at their paths (`("answer", "max_tokens")`); sections that are not
    there are made. Raises `ConfigError` if `text` is not a configuration file's."""
    document = _document(text)
    for path, value in values.items():
        section = document
        for name in path[:-1]:
            if not isinstance(section.get(name), CommentedMap):
                section[name] = CommentedMap()
            section = section[name]
        section[path[-1]] = value
    return _dumped(document)


def _yaml() -> YAML:
    yaml = YAML(typ="rt", pure=True)
    yaml.preserve_quotes = True
    yaml.width = 4096  # lines are not folded
    return yaml


def _document(text: str) -> CommentedMap:
    parse(text, "the configuration file")  # nothing but plain mappings, lists and values
    document = _yaml().load(text)
    if isinstance(document, CommentedMap):
        return document
    empty = CommentedMap()
    if text.strip():  # a file of comments alone
        empty.yaml_set_start_comment(
            "\n".join(line.lstrip().removeprefix("#") for line in text.strip().splitlines())
        )
    return empty


def _dumped(document: CommentedMap) -> str:
    out = io.StringIO()
    _yaml().dump(document, out)
    return out.getvalue()
