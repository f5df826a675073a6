"""What the options are, in words: for error messages, the reference document and `config init`.

Everything here is derived from the JSON schema of `Config`; nothing is declared a second time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from textwrap import wrap
from typing import Any, TypeAlias

from headrace.config.model_options import default_models
from headrace.config.options import Config

Schema: TypeAlias = dict[str, Any]


@cache
def json_schema() -> Schema:
    """The JSON schema of the configuration file, for editors."""
    schema = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def resolve(node: Schema) -> Schema:
    """The node that `$ref` points to, with the description of the place that refers to it."""
    if "$ref" not in node:
        return node
    name = node["$ref"].rpartition("/")[2]
    target: Schema = json_schema()["$defs"][name]
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _branches(node: Schema) -> list[Schema]:
    node = resolve(node)
    return [resolve(part) for part in node["anyOf"]] if "anyOf" in node else [node]


def entries(node: Schema) -> Schema | None:
    """What a value is in a mapping by name, or None if the node is not one."""
    if "patternProperties" in node:
        first: Schema = next(iter(node["patternProperties"].values()))
        return resolve(first)
    extra = node.get("additionalProperties")
    return resolve(extra) if isinstance(extra, dict) else None


def find(path: Sequence[str | int]) -> Schema | None:
    """The schema of the option at `path`; None if there is no such option."""
    node: Schema | None = json_schema()
    for part in path:
        node = next((n for branch in _branches(node or {}) if (n := _step(branch, part))), None)
        if node is None:
            return None
    return node


def _step(node: Schema, part: str | int) -> Schema | None:
    if isinstance(part, int):
        return resolve(node["items"]) if "items" in node else None
    if part in node.get("properties", {}):
        return resolve(node["properties"][part])
    return entries(node)


def known_options(path: Sequence[str | int]) -> list[str]:
    """The names of the options in the section at `path`."""
    node = find(path)
    return [name for branch in _branches(node or {}) for name in branch.get("properties", {})]


# In words ----------------------------------------------------------------------------------------


def expected(node: Schema) -> str:
    """What a value must be: `a whole number from 0 to 65535`."""
    return " or ".join(dict.fromkeys(_one(branch) for branch in _branches(node)))


def _one(node: Schema) -> str:
    if "const" in node:
        return f"`{node['const']}`"
    if "enum" in node:
        return " or ".join(f"`{value}`" for value in node["enum"])
    kind = node.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(node)
    if kind == "array":
        some = "a list, not empty," if node.get("minItems") else "a list"
        return f"{some} of: {expected(node['items'])}"
    if kind == "string":
        return f"text matching `{node['pattern']}`" if "pattern" in node else _text(node)
    if kind == "object":
        return "entries by name" if entries(node) else "a section of options"
    return {"boolean": "`true` or `false`", "null": "`null`"}.get(str(kind), "a value")


def _text(node: Schema) -> str:
    return "a path" if node.get("format") == "path" else "text"


def _range(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"of at least {low}")
    if "exclusiveMinimum" in node:
        parts.append(f"above {node['exclusiveMinimum']}")
    if high is not None:
        parts.append(f"of at most {high}")
    return (" " if parts else "") + " and ".join(parts)


# The file that `config init` writes --------------------------------------------------------------


def commented_file() -> str:
    """A file with every option at its default, commented out. It loads to the defaults, and so
    does the file in which every line that starts with `# ` is uncommented; `##` starts help."""
    blocks = [_FILE_HEAD]
    values = Config().model_dump(mode="json")
    for name, node in json_schema()["properties"].items():
        node = resolve(node)
        lines = _help(node, "")
        if name == "models":
            lines += ["models:", *_model_lines()]
        elif name == "collections":
            lines += ["collections:", *_COLLECTION_EXAMPLE]
        elif "properties" in node:
            lines.append(f"{name}:")
            for key, option in node["properties"].items():
                lines += [*_help(resolve(option), "  "), f"#   {key}: {_yaml(values[name][key])}"]
        else:
            lines.append(f"# {name}: {_yaml(values[name])}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


_FILE_HEAD = """\
## Headrace's configuration. Every option stands here with its default; to change one, take away
## the `# ` before it and edit. `headrace config check` says whether the file is right.
## Relative paths are relative to the folder of this file."""

_COLLECTION_EXAMPLE = (
    "##   laws:",
    "##     chunker: statute",
    "##     retrieval:",
    "##       hits: 8",
)


def _model_lines() -> Iterator[str]:
    for name, model in default_models().items():
        yield f"#   {name}:"
        for key, value in model.model_dump(mode="json", exclude_defaults=True).items():
            yield f"#     {key}: {_yaml(value)}"
    yield "##   Options that every model may have besides:"
    for key, node in resolve({"$ref": "#/$defs/ModelOptions"})["properties"].items():
        if key not in ("role", "engine", "source"):
            yield f"##   - {key}: {expected(resolve(node))}"


def _meaning(node: Schema) -> str:
    text = str(node.get("description", ""))
    return f"{text} A change takes effect at the next start." if node.get("restart") else text


def _help(node: Schema, indent: str) -> list[str]:
    text = _meaning(node)
    must = expected(node)
    if not must.endswith(("section of options", "by name")):
        text = f"{text} ({must})"
    return [f"## {indent}{line}" for line in wrap(text, 94 - len(indent), break_on_hyphens=False)]


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


# The reference document --------------------------------------------------------------------------


def markdown() -> str:
    """`docs/configuration.md`."""
    schema = json_schema()
    top = [(name, resolve(node)) for name, node in schema["properties"].items()]
    parts = [_DOCUMENT_HEAD, _table([(n, s) for n, s in top if _is_value(s)])]
    for name, node in top:
        if not _is_value(node):
            parts += _section(name, node)
    return "\n\n".join(parts) + "\n"


def _is_value(node: Schema) -> bool:
    return "properties" not in node and entries(node) is None


def _section(name: str, node: Schema) -> Iterator[str]:
    inner = entries(node)
    yield f"## `{name}`" if inner is None else f"## `{name}.NAME`"
    yield str(node["description"])
    properties = (inner or node)["properties"]
    yield _table([(key, resolve(option)) for key, option in properties.items()])
    for key, option in properties.items():
        item = resolve(resolve(option).get("items", {}))
        if "properties" in item:
            yield f"### `{name}.{key}[]`"
            yield str(item["description"])
            yield _table([(k, resolve(o)) for k, o in item["properties"].items()])


def _table(options: Sequence[tuple[str, Schema]]) -> str:
    rows = ["| option | value | default | meaning |", "|---|---|---|---|"]
    for name, node in options:
        cells = (f"`{name}`", expected(node), _default(name, node), _meaning(node))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _default(name: str, node: Schema) -> str:
    if name in _FOLDERS:
        return _FOLDERS[name]
    if "default" not in node:
        return "required"
    text = _yaml(node["default"])
    return f"`{text}`" if len(text) <= 60 else f"`{text[:56]}...`"


_FOLDERS = {
    "data_dir": "the user's data folder, `~/.local/share/headrace` on Linux",
    "cache_dir": "the user's cache folder, `~/.cache/headrace` on Linux",
}

_DOCUMENT_HEAD = """\
# Configuration

<!-- Made by scripts/make_docs.py from src/headrace/config; do not edit. -->

Headrace works without a configuration file. To change something, write one:

    headrace config init      # writes headrace.yaml with every option, commented out
    headrace config check     # says which line is wrong, and what was expected
    headrace config show      # the values in force, and the file they come from
    headrace config schema    # the JSON schema, for editors

The file is the first of: `--config FILE`, the environment variable `HEADRACE_CONFIG`,
`headrace.yaml` in the current folder, `headrace.yaml` in the user's configuration folder
(`~/.config/headrace` on Linux). `HEADRACE_DATA_DIR` and `HEADRACE_CACHE_DIR` override the two
folders; no other variable changes an option. Paths in the file are relative to the file's folder,
and `~` is the home folder.

A file is refused as a whole if a line of it is wrong: unknown options, options given twice, values
of another type (`"80"` is text, not a number), YAML aliases and tags. A section may be left empty.

A running server watches its file. A change is checked as a whole and then takes effect at once, in
all its processes, for requests that begin from then on; requests in progress end as they began. An
option that waits for the next start says so below. A file that is wrong changes nothing; the
server's log and `GET /admin/config` say why. Every answer names the version of the configuration
that produced it, in the header `X-Headrace-Config`.

`headrace config import liveconfigs.json` translates the file of an Agile Rag Server, as that
server's own guide and loaders describe it, and reports every option that has no equivalent here.
What stands in its `configs.py` is set by hand: `HOST` and `PORT` are `server.host` and
`server.port`, `TOTAL_CUDA_MEMORY` is `devices.cuda:0.limit`; no margin need be left, since memory
is measured.

## Folders"""
