"""The suite format: what is asked of which collection, and what a good answer holds.

A suite is one YAML file. Its questions stand in it, or in a JSON, JSONL or YAML file (`.gz` too)
that it names with a mapping of fields, so that data sets are used where they lie. `docs/
evaluation.md` explains the format; these types are all of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from headrace.config.yaml import Key
from headrace.errors import ConfigError
from headrace.pipeline.plan import AnswerRequest
from headrace.types import ALL_ACCESS, Call, Filter, Message

Kind: TypeAlias = Literal["retrieval", "answers", "choice"]
Field: TypeAlias = str | int
"""A key of an object, or a place (from 0) in an array."""

GIVEN = ("collection", "question", "where", "history", "call")
"""What a suite's `answer` may not set of an `AnswerRequest`: the suite says it elsewhere."""

T = TypeVar("T")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base: unknown fields are refused."""


class Gold(Strict, frozen=True, kw_only=True):
    """A passage that answers, named by what is known of it; all that is given must hold.

    `document` is a source or its last parts (`laws/civil.md`, `civil.md`); `title` the document's
    title; `place` what one title of the path (an article, a heading) or the text itself begins
    with, or a cell of a table's row; `path` titles in this order, others may stand between;
    `contains` words that stand in the text.
    """

    document: str = ""
    title: str = ""
    place: str = ""
    path: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()


class Question(Strict, frozen=True, kw_only=True):
    """`gold` are needs: each is satisfied by any of its passages. `correct` counts from 1."""

    id: str
    text: str
    history: tuple[Message, ...] = ()
    gold: tuple[tuple[Gold, ...], ...] = ()
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    choices: tuple[str, ...] = ()
    correct: int | None = None

    @property
    def has_answer(self) -> bool | None:
        """Whether the documents answer it; `None` if the suite does not say."""
        if self.answerable is not None:
            return self.answerable
        return True if self.gold or self.answers else None


class Lookup(Strict, frozen=True, kw_only=True):
    """Items are keys of objects that stand in another file, under their field `key`."""

    file: str
    key: Field


class GoldFields(Strict, frozen=True, kw_only=True):
    """Where a question's gold passages stand: `field` holds items; each matcher of `Gold` names
    the item's field that it takes (`""`: the item itself)."""

    field: Field
    lookup: Lookup | None = None
    document: Field | None = None
    title: Field | None = None
    place: Field | None = None
    path: tuple[Field, ...] = ()
    contains: tuple[Field, ...] = ()


class QuestionFile(Strict, frozen=True, kw_only=True):
    """Questions in files, and which field is what; what is `None` is not there. `under` is the key
    of the list in a JSON or YAML object. Without `id`, it is the file's name and the entry's
    number."""

    file: str | tuple[str, ...]
    under: str = ""
    id: Field | None = None
    text: Field = "text"
    gold: Field | GoldFields | None = None
    answers: Field | None = None
    answerable: Field | None = None
    choices: Field | None = None
    correct: Field | None = None
    history: Field | None = None


class Inline(Strict, frozen=True, kw_only=True):
    """A question as it stands in a suite or in a file of the suite's own format."""

    id: str
    text: str
    history: tuple[Message, ...] = ()
    gold: tuple[Gold, ...] = ()
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    choices: tuple[str, ...] = ()
    correct: int | None = None


class SuiteFile(Strict, frozen=True, kw_only=True):
    """The YAML file as it is written. `gold: any` says that one entry of a question's gold is
    enough (the same fact stands in several places), `all` that each of them is wanted. `answer`
    holds fields of `AnswerRequest`; `thresholds` what `headrace eval gate` demands. Data sets have
    gaps: with `incomplete: ask`, a question whose text or options are empty is asked all the same
    (the other part stands for it) instead of being refused."""

    name: Annotated[str, Meta(pattern=r"^\w[\w.-]{0,63}$")]
    collection: str
    questions: tuple[Inline, ...] | QuestionFile
    about: str = ""
    kinds: Annotated[tuple[Kind, ...], Meta(min_length=1)] = ("retrieval",)
    access: Annotated[tuple[str, ...], Meta(min_length=1)] = tuple(ALL_ACCESS)
    gold: Literal["all", "any"] = "all"
    incomplete: Literal["refuse", "ask"] = "refuse"
    answer: dict[str, Any] = {}
    thresholds: dict[str, Annotated[str, Meta(pattern=r"^(>=|<=) *-?\d+(\.\d+)?$")]] = {}


class Suite(Strict, frozen=True, kw_only=True):
    """A suite with its questions read and checked."""

    name: str
    collection: str
    questions: tuple[Question, ...]
    about: str = ""
    kinds: tuple[Kind, ...] = ("retrieval",)
    access: frozenset[str] = ALL_ACCESS
    answer: dict[str, Any] = {}
    thresholds: dict[str, str] = {}

    @property
    def where(self) -> Filter:
        return Filter(access=self.access)

    def request(self, question: Question, text: str, call: Call) -> AnswerRequest:
        """What the pipeline is asked; `text` is the question as it is put."""
        request = AnswerRequest(
            self.collection, text, self.where, history=question.history, call=call
        )
        return msgspec.structs.replace(request, **settings(self.answer))

    def fingerprint(self) -> str:
        """Changes with everything that an answer depends on (not with `thresholds`, `about`)."""
        kept = msgspec.structs.replace(self, about="", thresholds={})
        return hashlib.sha256(msgspec.json.encode(kept, order="sorted")).hexdigest()[:16]

    def some(self, count: int) -> Suite:
        """The suite with at most `count` of its questions, spread evenly."""
        total = len(self.questions)
        if count >= total:
            return self
        chosen = tuple(self.questions[i * total // count] for i in range(count))
        return msgspec.structs.replace(self, questions=chosen)


_PATH = re.compile(r"^(.*?)(?: - at `(?:key in )?\$(.*)`)?$", re.S)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")


def convert(given: Any, kind: type[T], name: str, lines: Mapping[Key, int] | None = None) -> T:
    """`given` as a `kind`. Raises `ConfigError`: `name`, the line if `lines` know it, the field,
    what was expected."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        found = _PATH.match(str(error))
        assert found is not None, "the expression matches every text"
        what, at = found[1], found[2] or ""
        key: Key = tuple(
            step[1] if step[1] is not None else int(step[2])
            for step in _STEP.finditer(at)
            if step[1] is not None or step[2] is not None
        )
        line = next(
            (lines[key[:end]] for end in range(len(key), 0, -1) if key[:end] in lines)
            if lines
            else iter(()),
            0,
        )
        where = f"{name}:{line}" if line else name
        field = at.lstrip(".")
        raise ConfigError(f"{where}: {field}{': ' if field else ''}{what}") from error


def settings(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of an `AnswerRequest` in the types that it has. Raises `msgspec.ValidationError`."""
    whole = {"collection": "", "question": "", "where": {}, **answer}
    request = msgspec.convert(whole, AnswerRequest)
    return {name: getattr(request, name) for name in answer}
