"""Questions of data sets: files read line by line, each entry mapped to a `Question`."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from headrace.errors import ConfigError
from headrace.evaluation.format import (
    Field,
    Gold,
    GoldFields,
    Inline,
    Lookup,
    Question,
    QuestionFile,
    convert,
)
from headrace.types import Message

MAX_BYTES = 1024 * 1024 * 1024
"""Of a data file, unpacked; a small `.gz` may unpack to very much."""

Rows = dict[str, Any]


class Base:
    """Where the paths of a suite start."""

    def __init__(self, suite: Path, data: Path | None) -> None:
        self._suite, self._data = suite, data

    def path(self, given: str) -> Path:
        """Raises `ConfigError` where the data folder is needed and unknown."""
        if not given.startswith("$DATA/"):
            return self._suite.parent / given
        if self._data is None:
            raise ConfigError(
                f"{self._suite}: {given} needs the folder of the data: set HEADRACE_EVAL_DATA to "
                "it (`headrace eval` also takes --data DIR)"
            )
        return self._data / given.removeprefix("$DATA/")


def finished(inline: Inline, *, any_gold: bool) -> Question:
    """An inline question with its needs."""
    return Question(
        id=inline.id,
        text=inline.text,
        history=inline.history,
        gold=_needs(inline.gold, any_gold=any_gold),
        answers=inline.answers,
        answerable=inline.answerable,
        choices=inline.choices,
        correct=inline.correct,
    )


def _needs(gold: tuple[Gold, ...], *, any_gold: bool) -> tuple[tuple[Gold, ...], ...]:
    """One need that any passage satisfies, or one for each different passage."""
    if any_gold:
        return (gold,) if gold else ()
    return tuple((one,) for one in dict.fromkeys(gold))


def read_questions(
    given: QuestionFile, base: Base, *, any_gold: bool
) -> list[tuple[str, Question]]:
    """The questions of the files, each with the place where it stands. Raises `ConfigError` that
    names file, line or entry, and field."""
    files = (given.file,) if isinstance(given.file, str) else given.file
    if not files:
        raise ConfigError("questions.file: names no file")
    looked_up = _read_lookup(given.gold, base)
    unseen, first = _optional(given), None
    found = []
    for name in files:
        path = base.path(name)
        stem = path.name.split(".")[0]
        for number, (where, entry) in enumerate(entries(path, given.under), 1):
            values = _Entry(entry, where)
            first = first or values
            unseen = {kind: field for kind, field in unseen.items() if not values.knows(field)}
            found.append(
                (where, _question(given, values, f"{stem}-{number}", looked_up, any_gold=any_gold))
            )
    if first is not None:
        for kind, field in unseen.items():  # a part of the entries may lack it, not all of them
            first(field, Any, kind)
    return found


def _optional(given: QuestionFile) -> dict[str, Field]:
    """Where the parts stand that an entry may lack."""
    gold = given.gold.field if isinstance(given.gold, GoldFields) else given.gold
    fields = {
        "gold": gold,
        "answers": given.answers,
        "answerable": given.answerable,
        "history": given.history,
    }
    return {kind: field for kind, field in fields.items() if field is not None}


class _Entry:
    """One entry of a file: an object or an array."""

    def __init__(self, entry: Any, where: str) -> None:
        self._entry, self.where = entry, where

    def __call__(self, field: Field, kind: Any, name: str) -> Any:
        """The field as a `kind`; `name` is what it is for the suite."""
        return convert(at(self._entry, field, self.where, name), kind, f"{self.where}: {name}")

    def knows(self, field: Field) -> bool:
        """Whether there is such a field, be it empty."""
        return _value(self._entry, field) is not _ABSENT

    def has(self, field: Field) -> bool:
        """Whether there is a value; `null` and `NaN` (a gap in a table) are none."""
        value = _value(self._entry, field)
        return value is not _ABSENT and value is not None and value == value


_ABSENT = object()


def _value(entry: Any, field: Field) -> Any:
    """The entry's field, or `_ABSENT`."""
    if field == "":
        return entry
    if isinstance(field, int) and isinstance(entry, list):
        return entry[field] if 0 <= field < len(entry) else _ABSENT
    return entry.get(str(field), _ABSENT) if isinstance(entry, dict) else _ABSENT


def at(entry: Any, field: Field, where: str, name: str) -> Any:
    """The entry's field. Raises `ConfigError` if there is none."""
    value = _value(entry, field)
    if value is not _ABSENT:
        return value
    if isinstance(field, int) and isinstance(entry, list):
        raise ConfigError(f"{where}: {name}: the array has {len(entry)} entries, no [{field}]")
    what = f"fields {', '.join(map(str, entry))[:200]}" if isinstance(entry, dict) else "no fields"
    raise ConfigError(f"{where}: {name}: there is no field {field!r}; the entry has {what}")


def _question(
    given: QuestionFile, entry: _Entry, number: str, looked_up: Rows | None, *, any_gold: bool
) -> Question:
    """Fields that a part of the entries may lack (gold, answers, answerable, history) are empty
    there; the others must be in every entry."""
    name = entry(given.id, str | int, "id") if given.id is not None else number
    answers: str | tuple[str, ...] = ()
    if given.answers is not None and entry.has(given.answers):
        answers = entry(given.answers, str | tuple[str, ...], "answers")
    answerable = None
    if given.answerable is not None and entry.has(given.answerable):
        answerable = entry(given.answerable, bool, "answerable")
    history: tuple[Message, ...] = ()
    if given.history is not None and entry.has(given.history):
        history = entry(given.history, tuple[Message, ...], "history")
    choices: tuple[str, ...] = ()
    if given.choices is not None:
        choices = entry(given.choices, tuple[str, ...], "choices")
    return Question(
        id=str(name),
        text=entry(given.text, str, "text"),
        history=history,
        gold=_needs(_gold(given.gold, entry, looked_up), any_gold=any_gold),
        answers=(answers,) if isinstance(answers, str) else answers,
        answerable=answerable,
        choices=choices,
        correct=None if given.correct is None else _number(entry, given.correct),
    )


def _number(entry: _Entry, field: Field) -> int:
    """ORAN-Bench writes the number of the right answer as a text."""
    value = entry(field, str | int, "correct")
    if isinstance(value, str) and not (value.strip().isdecimal() and len(value) < 20):
        raise ConfigError(f"{entry.where}: correct: {value[:60]!r} is not a number")
    return int(value)


# Gold passages -----------------------------------------------------------------------------------


def _gold(
    given: Field | GoldFields | None, entry: _Entry, looked_up: Rows | None
) -> tuple[Gold, ...]:
    if given is None:
        return ()
    if not isinstance(given, GoldFields):  # in the suite's own form
        return tuple(entry(given, tuple[Gold, ...], "gold")) if entry.has(given) else ()
    if not entry.has(given.field):
        return ()
    items = entry(given.field, list[Any], "gold")
    return tuple(_one_gold(given, item, entry.where, looked_up) for item in items)


def _one_gold(given: GoldFields, item: Any, where: str, looked_up: Rows | None) -> Gold:
    if looked_up is not None:
        assert given.lookup is not None
        if str(item) not in looked_up:
            raise ConfigError(f"{where}: gold: {given.lookup.file} has no entry {item!r}")
        item = looked_up[str(item)]

    def text(field: Field | None) -> str:
        if field is None:
            return ""
        return convert(at(item, field, where, "gold"), str, f"{where}: gold.{field}")

    return Gold(
        document=text(given.document),
        title=text(given.title),
        place=text(given.place),
        path=tuple(map(text, given.path)),
        contains=tuple(map(text, given.contains)),
    )


def _read_lookup(given: Field | GoldFields | None, base: Base) -> Rows | None:
    if not isinstance(given, GoldFields) or given.lookup is None:
        return None
    lookup: Lookup = given.lookup
    return {
        str(at(entry, lookup.key, where, "gold.lookup.key")): entry
        for where, entry in entries(base.path(lookup.file), "")
    }


# Files -------------------------------------------------------------------------------------------


def entries(path: Path, under: str) -> Iterator[tuple[str, Any]]:
    """The entries of a file, each with its place: `file:line` in JSON lines, `file: entry N` in
    JSON and YAML. `.gz` is unpacked. Raises `ConfigError`."""
    kind = (path.with_suffix("") if path.suffix == ".gz" else path).suffix
    if kind in (".jsonl", ".ndjson"):
        yield from _lines(path)
    elif kind in (".json", ".yaml", ".yml"):
        yield from _listed(path, under, kind)
    else:
        raise ConfigError(
            f"{path}: questions stand in .jsonl, .json or .yaml files (or those with .gz)"
        )


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_read(path).split(b"\n"), 1):
        if not line.strip():
            continue
        yield f"{path}:{number}", _json(line, f"{path}:{number}")


def _listed(path: Path, under: str, kind: str) -> Iterator[tuple[str, Any]]:
    raw = _read(path)
    data = _json(raw, str(path)) if kind == ".json" else _yaml(raw, path)
    if under:
        data = at(data, under, str(path), "questions.under")
    if not isinstance(data, list):
        hint = "" if under else "; if it stands under a key, `questions.under` names it"
        raise ConfigError(f"{path}: must be a list of questions{hint}")
    for number, entry in enumerate(data, 1):
        yield f"{path}: entry {number}", entry


def _json(raw: bytes, where: str) -> Any:
    """With the standard library, since data sets hold `NaN`, which is no JSON."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: is not JSON: {str(error)[:200]}") from error


def _yaml(raw: bytes, path: Path) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(raw.decode("utf-8-sig"))
    except (YAMLError, ValueError, RecursionError) as error:  # dates and numbers that are none
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())[:300]}") from error


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            raw: bytes = file.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path}: has more than {MAX_BYTES >> 20} MiB; is it the right file?")
    return raw.removeprefix(b"\xef\xbb\xbf")
