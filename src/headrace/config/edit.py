"""Values put into the text of a configuration file, and one model's entry put in or taken out.

The rest of the text keeps its order and its comments.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from headrace.config.load import read_text
from headrace.config.yaml import parse


def with_model(text: str, name: str, options: Mapping[str, Any]) -> str:
    """`text` with `options` as its only entry of that name. Raises `ConfigError` if `text` is not
    a configuration file's."""
    document = _document(text)
    if not isinstance(document.get("models"), CommentedMap):
        document["models"] = CommentedMap()
    document["models"][name] = CommentedMap(options)
    return _dumped(document, text)


def without_model(text: str, name: str) -> str | None:
    """`text` without that entry; None if it has none. Raises `ConfigError`."""
    document = _document(text)
    models = document.get("models")
    if not isinstance(models, CommentedMap) or name not in models:
        return None
    del models[name]
    return _dumped(document, text)


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
    return _dumped(document, text)


def moved(text: str, base: Path) -> str:
    """`text` for a file in another folder: relative paths still start at `base`. Raises
    `ConfigError`."""
    given, _ = parse(text, "the configuration file")
    config = read_text(text, "the configuration file", base)
    found: dict[tuple[str, ...], object] = {
        ("data_dir",): config.data_dir,
        ("cache_dir",): config.cache_dir,
        ("server", "trace_file"): config.server.trace_file,
    }
    for name, model in config.models.items():
        found[("models", name, "source")] = model.source
        found[("models", name, "python")] = model.python
    return with_values(
        text,
        {
            path: str(now)
            for path, now in found.items()
            if (_at(given, path) or str(now)) != str(now)
        },
    )


def _at(given: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        given = given.get(name) if isinstance(given, Mapping) else None
    return given


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


def _dumped(document: CommentedMap, before: str) -> str:
    """With the line ends that the text had before."""
    out = io.StringIO()
    _yaml().dump(document, out)
    text = out.getvalue().replace("\r\n", "\n")
    return text.replace("\n", "\r\n") if "\r\n" in before else text
