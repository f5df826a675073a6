"""All questions of a suite through the pipeline, a few at once, each exactly once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import headrace
from headrace.errors import (
    BadRequest,
    DeadlineExceeded,
    HeadraceError,
    ModelFailed,
    Overloaded,
    UpstreamError,
)
from headrace.evaluation.asking import ask
from headrace.evaluation.format import Question, Suite
from headrace.evaluation.gold import nowhere
from headrace.evaluation.journal import Identity, Journal, Record
from headrace.evaluation.metrics import require
from headrace.evaluation.report import Report, summarise
from headrace.evaluation.taught import taught
from headrace.pipeline.calibration import fitted
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.rows import all_ids, batches
from headrace.serving.models import together
from headrace.types import Filter, Hit

CONCURRENCY = 4
"""Questions at once. More fill the encoder's batches better, and make every single one slower."""

TRIES = 3
"""How often a question is put whose model fails; the pauses between are 1 s and 2 s."""

FAILURES_IN_A_ROW = 10
"""When so many questions after one another fail for the models, it is not the questions."""

PASSING = (ModelFailed, Overloaded, UpstreamError, DeadlineExceeded)
"""What may be better at the next try."""

SHOWN = 5
"""Ids of questions in a note."""

Progress = Callable[[int, int], None]
"""Told the number of questions that are answered, and of all."""


async def run_suite(
    services: Services,
    suite: Suite,
    folder: Path,
    *,
    concurrency: int = CONCURRENCY,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Ask what the journal in `folder` does not have yet, and sum everything up.

    A question that fails by itself counts as failed. Raises what stops the whole run: `BadRequest`
    if the journal is of another suite, configuration or state of the collection (or the collection
    changes meanwhile), `Busy` if another run is at work in the folder, `ConfigError`,
    `UnknownCollection`, `StorageError`, and `ModelFailed` after ten failures in a row. Whatever
    stops it, the same call goes on."""
    require()
    identity = await identity_of(services, suite)
    journal = await asyncio.to_thread(Journal, folder, identity, fresh=fresh)
    with journal:
        began = time.monotonic()
        answered = await asyncio.to_thread(journal.done)
        left = [question for question in suite.questions if question.id not in answered]
        keeper = _Keeper(journal, identity, len(suite.questions), progress)
        keeper.tell(len(suite.questions) - len(left))
        for first in left[:1]:  # asked for nothing: else its time, and others', held loading models
            await _tried(services, suite, first)
        turns = iter(left)
        await together(
            *(_work(services, suite, turns, keeper) for _ in range(min(concurrency, len(left))))
        )
        await keeper.settle()
        await _check_same(services, suite, identity)
        seconds = time.monotonic() - began
        records = await asyncio.to_thread(lambda: list(journal.records()))
    index, held = await asyncio.to_thread(services.collections.opened, suite.collection)
    notes = await asyncio.to_thread(_notes, index, suite, records)
    given = services.config, suite, identity, records, concurrency, seconds
    return await asyncio.to_thread(summarise, *given, held.name, notes)


def _notes(index: EmbeddedIndex, suite: Suite, records: Sequence[Record]) -> list[str]:
    """What a reader of the report must know of suite and collection. Blocks."""
    return [*_taught(index, suite), *_nowhere(index, suite, records)]


def _taught(index: EmbeddedIndex, suite: Suite) -> list[str]:
    """Whoever learned the answers does well in the examination."""
    known, measured = taught(index, suite.questions)
    if not known:
        return []
    judged = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    return [
        f"the collection's search was fitted to {known} of these {len(suite.questions)} questions "
        "(`headrace eval tune-retrieval`), so what it finds for them is better than what it will "
        f"find for others; by cross-validation: {judged}"
    ]


def _nowhere(index: EmbeddedIndex, suite: Suite, records: Sequence[Record]) -> list[str]:
    """What the suite asks for and the collection does not have. If a gold passage was not found,
    all passages are read."""
    found = {record.id: list(zip(*record.ranks.values(), strict=True)) for record in records}
    missed = [
        question
        for question in suite.questions
        if question.gold and not all(map(any, found.get(question.id) or [()]))
    ]
    if not missed:
        return []
    lost = nowhere(missed, _passages(index, suite.where))
    if not lost:
        return []
    more = ", ..." if len(lost) > SHOWN else ""
    return [
        f"no passage of the collection is the gold one of {len(lost)} questions "
        f"({', '.join(lost[:SHOWN])}{more}), so no search finds it: look at the suite, and at what "
        "was ingested"
    ]


def _passages(index: EmbeddedIndex, where: Filter) -> Iterator[Hit]:
    with index.reading() as db:
        ids = all_ids(db).tolist()
    for batch in batches(ids):
        yield from index.get({key: {} for key in batch}, where)


async def identity_of(services: Services, suite: Suite) -> Identity:
    """Of what is measured now. Raises `UnknownCollection`, `StorageError`."""
    info = await asyncio.to_thread(services.collections.info, suite.collection)
    return Identity(
        suite=suite.fingerprint(),
        config_version=services.config_version,
        program=headrace.__version__,
        collection=suite.collection,
        created=info.created,
        generation=info.generation,
        fitted=await asyncio.to_thread(_fitted, services, suite.collection),
    )


def _fitted(services: Services, collection: str) -> str:
    return fitted(services.collections.open(collection).folder)


async def _check_same(services: Services, suite: Suite, before: Identity) -> None:
    """Raises `BadRequest` if what is measured is another one now."""
    changed = before.changes(await identity_of(services, suite))
    if changed:
        raise BadRequest(
            f"{changed} changed during the evaluation; answers from before and after must not be "
            "mixed: begin anew with --fresh"
        )


async def _work(
    services: Services, suite: Suite, turns: Iterable[Question], keeper: _Keeper
) -> None:
    """Take the next question until none is left; all workers share `turns`."""
    for question in turns:
        await keeper.keep(*await _tried(services, suite, question))


async def _tried(
    services: Services, suite: Suite, question: Question
) -> tuple[Record, HeadraceError | None]:
    """The record, and the error if the question failed."""
    for attempt in range(TRIES):
        try:
            return await ask(services, suite, question), None
        except PASSING as error:
            failed: HeadraceError = error
            if attempt + 1 < TRIES:
                await asyncio.sleep(2.0**attempt)
        except BadRequest as error:
            failed = error
            break
    return Record(id=question.id, failed=f"{failed.code}: {failed.message}"), failed


class _Keeper:
    """Writes records, one at a time. Failures for the models wait until the next success shows that
    it was the question: if none comes, the run stops, and they are asked again another time."""

    def __init__(
        self, journal: Journal, identity: Identity, total: int, progress: Progress | None
    ) -> None:
        self._journal, self._identity = journal, identity
        self._total, self._progress = total, progress
        self._done = 0
        self._waiting: list[Record] = []
        self._lock = asyncio.Lock()

    async def keep(self, record: Record, error: HeadraceError | None) -> None:
        async with self._lock:
            if isinstance(error, PASSING):
                self._waiting.append(record)
                if len(self._waiting) >= FAILURES_IN_A_ROW:
                    raise ModelFailed(
                        f"{FAILURES_IN_A_ROW} questions in a row failed, the last with: "
                        f"{error.message}"
                    ) from error
                return
            if error is None and record.generation != self._identity.generation:
                raise BadRequest(
                    f"collection {self._identity.collection!r} changed during the evaluation "
                    f"(generation {self._identity.generation} to {record.generation}); answers "
                    "from before and after must not be mixed: begin anew with --fresh"
                )
            await self._write(record)
            if error is None:
                await self._write_waiting()

    async def settle(self) -> None:
        """All questions were asked: what failed, failed."""
        async with self._lock:
            await self._write_waiting()

    async def _write_waiting(self) -> None:
        while self._waiting:
            await self._write(self._waiting[0])
            del self._waiting[0]

    async def _write(self, record: Record) -> None:
        await asyncio.to_thread(self._journal.add, record)
        self.tell(1)

    def tell(self, more: int) -> None:
        self._done += more
        if self._progress is not None:
            self._progress(self._done, self._total)
