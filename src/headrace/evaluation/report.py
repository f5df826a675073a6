"""The result of a run: what was asked of what, the metrics, the times; and its files."""

from __future__ import annotations

import datetime
import platform
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from headrace.config.options import Config
from headrace.errors import ConfigError
from headrace.evaluation.format import Suite
from headrace.evaluation.journal import OTHER_FOLDER, Identity, Record
from headrace.evaluation.metrics import Metric, Values, means, measure
from headrace.retrieval.database import translated
from headrace.retrieval.files import replace_file

JSON = "report.json"
QUESTIONS = "questions.jsonl"
P99_NEEDS = 1000
"""Fewer values say nothing about the slowest in a hundred."""


class Times(msgspec.Struct, frozen=True):
    """Milliseconds of one stage over `n` questions."""

    n: int
    p50: float
    p95: float
    p99: float | None = None


class Row(msgspec.Struct, frozen=True):
    """One question in `questions.jsonl`."""

    id: str
    text: str
    values: dict[str, float]
    record: Record


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`rows` stand in a file of their own, not in `report.json`."""

    name: str
    about: str
    kinds: tuple[str, ...]
    date: str
    program: str
    machine: str
    collection: str
    generation: int
    config_version: str
    suite: str
    models: dict[str, str]
    questions: int
    concurrency: int
    seconds: float
    metrics: dict[str, Metric]
    times: dict[str, Times]
    thresholds: dict[str, str] = {}
    chosen_by: dict[str, int] = {}
    skipped: dict[str, int] = {}
    failures: dict[str, int] = {}
    notes: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()


def summarise(
    config: Config,
    suite: Suite,
    identity: Identity,
    records: Sequence[Record],
    concurrency: int,
    seconds: float,
    embedder: str,
    notes: Sequence[str] = (),
) -> Report:
    """Everything that can be said of the records. `seconds` are those of the last session,
    `embedder` is the one that the collection has, be another one configured."""
    values = measure(suite, records)
    texts = {question.id: question.text for question in suite.questions}
    options = config.collection(suite.collection)
    models = {
        "embedder": embedder,
        "reranker": options.reranker,
        "generator": options.generator,
    }
    return Report(
        name=suite.name,
        about=suite.about,
        kinds=suite.kinds,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        program=identity.program,
        machine=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        collection=identity.collection,
        generation=identity.generation,
        config_version=identity.config_version,
        suite=identity.suite,
        models={role: name for role, name in models.items() if name},
        questions=len(records),
        concurrency=concurrency,
        seconds=round(seconds, 1),
        metrics=means(values),
        times=times(records),
        thresholds=suite.thresholds,
        chosen_by=dict(Counter(r.chosen_by or "none" for r in records)) if _choice(suite) else {},
        skipped=dict(Counter(what for record in records for what in record.skipped)),
        failures=dict(Counter(r.failed.partition(":")[0] for r in records if r.failed)),
        notes=(*_notes(suite), *notes),
        rows=tuple(_rows(texts, values, records)),
    )


def _choice(suite: Suite) -> bool:
    return "choice" in suite.kinds


def _notes(suite: Suite) -> Iterator[str]:
    """What is missing in the suite itself."""
    if _choice(suite):
        optionless = sum(not question.choices for question in suite.questions)
        if optionless:
            yield f"{optionless} questions have no options; they were asked and are not counted"
    textless = sum(not question.text.strip() for question in suite.questions)
    if textless:
        yield f"{textless} questions have no text; their options alone were asked"


def _rows(texts: dict[str, str], values: Values, records: Sequence[Record]) -> Iterator[Row]:
    for record in records:
        if record.id in values:
            yield Row(record.id, texts[record.id], values[record.id], record)


def times(records: Sequence[Record]) -> dict[str, Times]:
    """By stage, over the questions that had it."""
    collected: dict[str, list[float]] = {}
    for record in records:
        for stage, ms in record.timings.items():
            collected.setdefault(stage, []).append(ms)
    return {stage: times_of(found) for stage, found in collected.items()}


def times_of(found: Sequence[float], p99_needs: int = P99_NEEDS) -> Times:
    """Of at least one value, linear between neighbours."""
    if len(found) == 1:
        return Times(1, found[0], found[0])
    cuts = statistics.quantiles(found, n=100, method="inclusive")
    p99 = round(cuts[98], 3) if len(found) >= p99_needs else None
    return Times(len(found), round(cuts[49], 3), round(cuts[94], 3), p99)


# Files -------------------------------------------------------------------------------------------


def write(report: Report, folder: Path) -> None:
    """`report.json` and `questions.jsonl`. Blocks. Raises `StorageError`."""
    summary: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(report, rows=()))
    del summary["rows"]
    encoder = msgspec.json.Encoder()
    with translated(folder, OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / QUESTIONS, encoder.encode_lines(report.rows))
        whole = msgspec.json.format(encoder.encode(summary), indent=2) + b"\n"
        replace_file(folder / JSON, whole)


def read(path: Path, *, rows: bool = True) -> Report:
    """The report in a folder or in its `report.json`, with its rows where they are beside it.
    Raises `ConfigError`."""
    file = path / JSON if path.is_dir() else path
    try:
        report = msgspec.json.decode(file.read_bytes(), type=Report)
        beside = file.parent / QUESTIONS
        if rows and beside.is_file():
            lines = beside.read_bytes().splitlines()
            found = [msgspec.json.decode(line, type=Row) for line in lines]
            report = msgspec.structs.replace(report, rows=tuple(found))
    except OSError as error:
        raise ConfigError(
            f"{file}: cannot be read: {error.strerror}; `headrace eval run` writes one"
        ) from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{file}: is not a report of `headrace eval run`: {error}") from error
    return report
