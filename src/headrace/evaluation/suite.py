"""Reading a suite: everything that is wrong with it is said before the first question is asked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from headrace.config.answering import AnswerOptions, RetrievalOptions
from headrace.config.reference import expected, find
from headrace.config.yaml import Lines, parse
from headrace.errors import ConfigError
from headrace.evaluation.format import (
    GIVEN,
    Gold,
    Question,
    QuestionFile,
    Suite,
    SuiteFile,
    convert,
    settings,
)
from headrace.evaluation.questions import Base, finished, read_questions
from headrace.pipeline.plan import MAX_QUESTION, AnswerRequest

__all__ = ["Gold", "Question", "Suite", "load_suite"]

MAX_BYTES = 1024 * 1024
"""Of the YAML file; more questions belong into a file of their own."""

DATA_VARIABLE = "HEADRACE_EVAL_DATA"
"""The folder that `$DATA/` means in a suite, unless `--data` says another."""


def load_suite(path: Path, data: Path | None = None) -> Suite:
    """The suite in a file. `data` is the folder that `$DATA/` means in it, by default that of the
    variable `HEADRACE_EVAL_DATA`; other paths start at the suite's folder. Raises `ConfigError`
    that names the file, the line or entry, and the field."""
    given, lines = _parsed(path)
    file = convert(given, SuiteFile, str(path), lines)
    _check_answer(file, path, lines)
    if isinstance(file.questions, QuestionFile):
        base = Base(path, data or _data_folder())
        questions = read_questions(file.questions, base, any_gold=file.gold == "any")
    else:
        questions = [
            (f"{path}:{lines.get(('questions', i), 0)}", question)
            for i, question in enumerate(
                finished(inline, any_gold=file.gold == "any") for inline in file.questions
            )
        ]
    _check_questions(questions, file, str(path))
    return Suite(
        name=file.name,
        collection=file.collection,
        questions=tuple(question for _, question in questions),
        about=file.about,
        kinds=tuple(dict.fromkeys(file.kinds)),
        access=frozenset(file.access),
        answer=file.answer,
        thresholds=file.thresholds,
    )


def _data_folder() -> Path | None:
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else None


def _parsed(path: Path) -> tuple[dict[str, Any], Lines]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(
            f"{path}: is larger than {MAX_BYTES // 1024} KiB; put the questions into a JSONL file "
            "and name it under `questions.file`"
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8; save the file as UTF-8") from error
    data, lines = parse(text, str(path))
    if not data:
        raise ConfigError(f"{path}: is empty; docs/evaluation.md shows what a suite looks like")
    return data, lines


def _check_answer(file: SuiteFile, path: Path, lines: Lines) -> None:
    known = [name for name in AnswerRequest.__struct_fields__ if name not in GIVEN]
    for name in file.answer:
        if name not in known:
            line = lines.get(("answer", name), 0)
            raise ConfigError(
                f"{path}:{line}: answer.{name}: there is no such setting of an answer; known: "
                f"{', '.join(known)}"
            )
    try:
        settings(file.answer)
    except msgspec.ValidationError as error:
        message = str(error)
        name = next((name for name in file.answer if f"$.{name}" in message), "")
        line = lines.get(("answer", name), lines.get(("answer",), 0))
        raise ConfigError(f"{path}:{line}: answer.{name}: {message}") from error
    for name, value in file.answer.items():
        for section, options in (("answer", AnswerOptions), ("retrieval", RetrievalOptions)):
            if value is None or name not in options.model_fields:
                continue
            try:
                options.model_validate({name: value})
            except ValidationError as error:
                line = lines.get(("answer", name), 0)
                must = expected(find((section, name)) or {})
                raise ConfigError(
                    f"{path}:{line}: answer.{name}: must be {must}, not {value!r}"
                ) from error


def _check_questions(questions: list[tuple[str, Question]], file: SuiteFile, name: str) -> None:
    """Raises `ConfigError` for the first question that cannot be asked or judged; each comes with
    the place where it stands."""
    if not questions:
        raise ConfigError(f"{name}: questions: there is none")
    seen: dict[str, str] = {}
    for where, question in questions:
        problem = _problem(question, file)
        if problem:
            raise ConfigError(f"{where}: question {question.id!r}: {problem}")
        if question.id in seen:
            raise ConfigError(
                f"{where}: id: {question.id!r} is given twice (first: {seen[question.id]})"
            )
        seen[question.id] = where
    if file.kinds == ("retrieval",) and not any(question.gold for _, question in questions):
        raise ConfigError(
            f"{name}: no question has `gold`, so nothing can be said of retrieval; name the "
            "passages that answer, or ask for the kind `answers`"
        )


_ASK = " (with `incomplete: ask` in the suite, it is asked as far as it goes)"


def _problem(question: Question, file: SuiteFile) -> str:
    if not _is_text(question):
        return "holds half of a character (a lone surrogate); write the text anew, as UTF-8"
    if not question.id.strip():
        return "id: is empty"
    gaps = file.incomplete == "ask"
    if not question.text.strip() and not (gaps and question.choices):
        return "text: is empty" + _ASK
    if len(question.text) > MAX_QUESTION:
        return f"text: has {len(question.text)} characters; the limit is {MAX_QUESTION}"
    if not all(_names(gold) for need in question.gold for gold in need):
        return "gold: an entry names no passage, or holds an empty text"
    if question.answerable is False and (question.gold or question.answers):
        return "answerable: is false, but gold passages or answers are given"
    if "choice" in file.kinds and not question.choices and not gaps:
        return "choices: are missing, and the suite asks for the kind `choice`" + _ASK
    if question.choices and not 1 <= (question.correct or 0) <= len(question.choices):
        return f"correct: must be a number from 1 to {len(question.choices)}"
    return ""


def _names(gold: Gold) -> bool:
    """Whether it says something of a passage; an empty text stands in every one."""
    one = [text for text in (gold.document, gold.title, gold.place) if text]
    texts = [*one, *gold.path, *gold.contains]
    return bool(texts) and all(map(str.strip, texts))


def _is_text(question: Question) -> bool:
    try:
        msgspec.json.encode(question)
    except UnicodeEncodeError:
        return False
    return True
