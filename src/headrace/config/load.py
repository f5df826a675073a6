"""The configuration file: where it is found, how it is read, and how it is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from platformdirs import user_config_path
from pydantic import ValidationError

from headrace.config.options import Config
from headrace.config.reference import expected, find, known_options
from headrace.config.yaml import Key, Lines, parse
from headrace.errors import ConfigError

FILE_NAME = "headrace.yaml"
FILE_VARIABLE = "HEADRACE_CONFIG"
OVERRIDES = {"HEADRACE_DATA_DIR": "data_dir", "HEADRACE_CACHE_DIR": "cache_dir"}
MAX_BYTES = 256 * 1024
MAX_PROBLEMS = 8


def find_file(
    given: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Path | None:
    """The file to read: `given`, `HEADRACE_CONFIG`, `headrace.yaml` in `folder` (the current one)
    or in the user's configuration folder; None if there is none. Raises `ConfigError` if one that
    was named does not exist."""
    named = given or (Path(environment[FILE_VARIABLE]) if environment.get(FILE_VARIABLE) else None)
    if named is not None:
        named = named.expanduser()
        if not named.exists():
            source = "" if given else f" (from {FILE_VARIABLE})"
            raise ConfigError(
                f"{named}: there is no such configuration file{source}; "
                f"`headrace config init {named}` writes one"
            )
        return named
    for place in (folder or Path.cwd(), user_config_path("headrace")):
        if (place / FILE_NAME).is_file():
            return place / FILE_NAME
    return None


def load(
    given: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Config:
    """The configuration in force: defaults, the file's values over them, then the variables of
    `OVERRIDES`. Raises `ConfigError` with one line per problem: file, line, option, what was
    expected."""
    path = find_file(given, environment=environment, folder=folder)
    return adjusted(read_file(path) if path else Config(), environment)


def adjusted(config: Config, environment: Mapping[str, str]) -> Config:
    """`config` with the folders that the variables of `OVERRIDES` name."""
    overrides = {
        option: Path(environment[variable]).expanduser().absolute()
        for variable, option in OVERRIDES.items()
        if environment.get(variable)
    }
    return config.model_copy(update=overrides)


def read_file(path: Path) -> Config:
    """The configuration in one file. Raises `ConfigError`."""
    return read_text(file_text(path), str(path), path.absolute().parent)


def file_text(path: Path) -> str:
    """What a configuration file holds. Raises `ConfigError`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    return _decoded(raw, str(path))


def read_bytes(raw: bytes, name: str, base: Path) -> Config:
    """The configuration in a file's content; see `read_text`. Raises `ConfigError`."""
    return read_text(_decoded(raw, name), name, base)


def _decoded(raw: bytes, name: str) -> str:
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{name}: is larger than {MAX_BYTES // 1024} KiB; is it the right file?")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: is not UTF-8; save the file as UTF-8") from error


def read_text(text: str, name: str, base: Path) -> Config:
    """The configuration in `text`; `name` stands in messages, `base` is where relative paths
    start. Raises `ConfigError`."""
    data, lines = parse(text, name)
    data = {key: value for key, value in data.items() if value is not None or find([key]) is None}
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(_join(_problems(error, name, lines))) from error
    wrong = list(_coerced(data, config.model_dump(mode="json"), ()))
    if wrong:
        raise ConfigError(_join(_line(name, lines, path, _must(path, v)) for path, v in wrong))
    return _from_folder(config, base)


def config_version(config: Config) -> str:
    """A short hash of all values: it stands in every answer that the configuration produced."""
    canonical = json.dumps(config.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# Problems in words -------------------------------------------------------------------------------


def _join(problems: Iterable[tuple[int, str]]) -> str:
    """The first problems by line, one a line of text."""
    found = [text for _, text in sorted(set(problems))]
    more = len(found) - MAX_PROBLEMS
    return "\n".join(found[:MAX_PROBLEMS] + ([f"... and {more} more"] if more > 0 else []))


def _problems(error: ValidationError, name: str, lines: Lines) -> Iterator[tuple[int, str]]:
    for problem in error.errors(include_url=False):
        path = _known_prefix(problem["loc"], lines)
        kind = problem["type"]
        if kind == "extra_forbidden":
            what = _unknown_option(path)
        elif kind == "missing":
            path = problem["loc"]
            what = f"is missing; must be {expected(find(path) or {})}"
        elif kind == "value_error":
            what = problem["msg"].removeprefix("Value error, ")
            path, what = _own_path(path, what, lines)
        elif "[key]" in problem["loc"]:
            what = "is not a name: letters, digits, `_`, `.` and `-`, at most 64"
        else:
            what = _must(path, problem["input"])
        yield _line(name, lines, path, what)


def _known_prefix(loc: Key, lines: Lines) -> Key:
    """`loc` without what pydantic adds to it for branches of unions."""
    for end in range(len(loc), 0, -1):
        if loc[:end] in lines:
            return loc[:end]
    return ()


def _own_path(path: Key, message: str, lines: Lines) -> tuple[Key, str]:
    """Rules over several options name theirs first: `defaults.generator: there is no ...`."""
    start, separator, rest = message.partition(": ")
    for known in lines:
        if separator and ".".join(map(str, known)) == start:
            return known, rest
    return path, message


def _line(name: str, lines: Lines, path: Key, what: str) -> tuple[int, str]:
    """The line (0 if the file has none for it) and the whole message of one problem."""
    line = lines.get(_known_prefix(path, lines), 0)
    where = f"{name}:{line}" if line else name
    option = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return line, f"{where}: {option.lstrip('.')}{': ' if option else ''}{what}"


def _unknown_option(path: Key) -> str:
    known = known_options(path[:-1])
    near = get_close_matches(str(path[-1]), known, n=1, cutoff=0.6)
    hint = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
    return f"there is no such option; {hint}"


def _must(path: Key, value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"must be {expected(find(path) or {})}, not {shown}"


def _coerced(given: object, got: object, path: Key) -> Iterator[tuple[Key, object]]:
    """Values that pydantic turned into another type: `"80"`, `yes`, `1.0` for a whole number."""
    if isinstance(given, dict) and isinstance(got, dict):
        for key, value in given.items():
            yield from _coerced(value, got.get(key), (*path, key))
    elif isinstance(given, list) and isinstance(got, list):
        for index, (value, into) in enumerate(zip(given, got, strict=True)):
            yield from _coerced(value, into, (*path, index))
    elif type(given) is not type(got) and not (type(given) is int and type(got) is float):
        yield path, given


def _from_folder(config: Config, base: Path) -> Config:
    """Paths of the file, made absolute from its folder."""

    def absolute(path: Path) -> Path:
        return base / path.expanduser()

    models: dict[str, Any] = {}
    for name, model in config.models.items():
        kind, _, rest = model.source.partition(":")
        source = f"file:{absolute(Path(rest))}" if kind == "file" else model.source
        python = absolute(model.python) if model.python else None
        models[name] = model.model_copy(update={"source": source, "python": python})
    trace = config.server.trace_file
    server = {"trace_file": absolute(trace) if trace else None}
    update = {
        "server": config.server.model_copy(update=server),
        "data_dir": absolute(config.data_dir),
        "cache_dir": absolute(config.cache_dir),
        "models": models,
    }
    return config.model_copy(update=update)
