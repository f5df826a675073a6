"""Another index for a collection, without downtime: other chunks, other vectors, or both.

It is built beside the one in use, from the parsed text that every document keeps, and needs no file
and no lock: searches and ingestion go on. What is left to do always follows from the collection, so
a run that was ended at any moment, by whatever, is completed by running it again. In the end, with
the writer's lock, what was added or changed meanwhile is caught up with, and one transaction puts
the new index in the place of the old one, which is kept: going back is the same, with the old one's
settings, and finds nearly all of it done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from headrace.errors import BadRequest, Busy, ModelFailed
from headrace.ingest.chunkers import CHUNKERS, chunk
from headrace.ingest.embedding import Embedding
from headrace.ingest.flow import OPEN_CHARACTERS, OPEN_DOCUMENTS, cause, writing
from headrace.ingest.outcomes import Progress
from headrace.ingest.stamps import Cut, chosen_cut, recut
from headrace.ingest.threads import in_thread
from headrace.retrieval import sides
from headrace.retrieval.base import NewChunk, chunk_key, embedding_text
from headrace.retrieval.collections import Collections, EmbeddedIndex
from headrace.retrieval.files import exclusive
from headrace.retrieval.sides import NEXT, PREVIOUS, IndexSettings, Side, Unfilled
from headrace.serving.models import Models
from headrace.types import Chunk, Document

LOCK_FILE = "reindex.lock"
_BUSY_SECONDS = 0.5
"""How often the end of a reindexing tries a collection that somebody else writes to."""
_ROUNDS = 3
"""How often it catches up with what came meanwhile before it asks the others to wait."""

Compare = Callable[[EmbeddedIndex, EmbeddedIndex], Awaitable[bool]]
"""Of the index in use and the new one: whether the new one shall be taken."""


class Wanted(NamedTuple):
    """What an index shall be made with; `configured` is how the configuration cuts documents."""

    embedder: str
    cut: Cut
    configured: Cut


class Reindexed(msgspec.Struct, frozen=True):
    """What was done. `embedded` texts were new to the embedder; the vectors of the others were
    there. If `switched`, `after` is in use and `before` is kept. If not, and the two are the same,
    there was nothing to do."""

    collection: str
    before: IndexSettings
    after: IndexSettings
    documents: int
    chunks: int
    embedded: int
    switched: bool
    seconds: float


class Places(NamedTuple):
    """What a reindexing works with."""

    collections: Collections
    models: Models
    batch_texts: int


async def reindex(
    places: Places,
    collection: str,
    wanted: Wanted,
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
    compare: Compare | None = None,
    anew: bool = False,
) -> Reindexed:
    """Build the index that is wanted, and switch to it, unless `compare` says no; then it stays
    beside the one in use, for the next run or `forget`. Nothing is done if a reindexing has made
    the one in use like this, which might take the place of the one to go back to; unless `anew`.

    Raises `UnknownCollection`, `Busy` (another reindexing runs), `StorageError`, `BadRequest` for a
    chunker that is not there, and what the embedder raises; then the collection is as it was, and
    what was done is kept for the next run."""
    if wanted.cut.chunker not in ("auto", *CHUNKERS):
        known = ", ".join(("auto", *CHUNKERS))
        raise BadRequest(f"there is no chunker {wanted.cut.chunker!r}; known: {known}")
    index = await in_thread(places.collections.open, collection)
    info = await places.models.info(wanted.embedder)
    after = IndexSettings(wanted.embedder, info.fingerprint, info.dimensions, *wanted.cut)
    async with _alone(index):
        if not anew and await in_thread(_settings, index, None) is not None:
            in_use = await in_thread(_in_use, index, wanted.configured)
            if in_use == after:
                documents, chunks = await in_thread(_counts, index, None)
                return Reindexed(collection, in_use, after, documents, chunks, 0, False, 0.0)
        await in_thread(_begin, index, after)
        return await _finish(places, index, NEXT, after, wanted.configured, progress, compare)


async def go_back(
    places: Places,
    collection: str,
    configured: Cut,
    *,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> Reindexed:
    """Switch to the index that was in use before, brought up to date. Raises what `reindex` does,
    and `BadRequest` if there is none."""
    index = await in_thread(places.collections.open, collection)
    async with _alone(index):
        before = await in_thread(_settings, index, PREVIOUS)
        if before is None:
            raise BadRequest(f"collection {collection!r} keeps no earlier index to go back to")
        info = await places.models.info(before.embedder)
        if info.fingerprint != before.fingerprint:
            raise BadRequest(
                f"the earlier index has vectors of embedder {before.embedder!r} as it was "
                f"({before.fingerprint}), which is another one now ({info.fingerprint})"
            )
        return await _finish(places, index, PREVIOUS, before, configured, progress, None)


async def forget(collections: Collections, collection: str) -> dict[Side, int]:
    """Drop the earlier index and one that is not complete: how many chunks each had. Raises
    `UnknownCollection`, `Busy`, `StorageError`."""
    index = await in_thread(collections.open, collection)

    def drop() -> dict[Side, int]:
        with index.connection() as db:
            found = {side: sides.drop(db, side) for side in (PREVIOUS, NEXT)}
        index.clear_staged()
        return found

    async with _alone(index), _patiently(collections, index):
        return await in_thread(drop)


def kept(index: EmbeddedIndex) -> dict[Side, IndexSettings]:
    """What stands beside the index in use. Blocks."""
    found = {side: _settings(index, side) for side in (PREVIOUS, NEXT)}
    return {side: settings for side, settings in found.items() if settings is not None}


def _settings(index: EmbeddedIndex, side: Side | None) -> IndexSettings | None:
    with index.reading() as db:
        return sides.settings(db, side)


def _begin(index: EmbeddedIndex, wanted: IndexSettings) -> None:
    with index.connection() as db:
        sides.begin(db, NEXT, wanted)


async def _finish(
    places: Places,
    index: EmbeddedIndex,
    side: Side,
    after: IndexSettings,
    configured: Cut,
    progress: Callable[[Progress], None],
    compare: Compare | None,
) -> Reindexed:
    """1. Fill the side, beside everybody else. 2. Compare. 3. With the writer's lock, fill in what
    came meanwhile, and switch."""
    began = time.monotonic()
    run = _Run(places, index, side, after, progress)
    for _ in range(_ROUNDS):
        if not await run.fill():
            break
    taken = True
    if compare is not None:
        async with _patiently(places.collections, index, run.waits):
            await run.fill()
            await in_thread(index.write_side, side)
        with closing(await in_thread(index.side, side)) as beside:
            taken = await compare(index, beside)
    before = await in_thread(_in_use, index, configured)
    if taken:
        async with _patiently(places.collections, index, run.waits):
            await run.fill()
            cuts = configured, _cut(before), _cut(after)
            await in_thread(index.exchange, side, before, lambda db: recut(db, *cuts))
            await in_thread(index.clear_staged)
    documents, chunks = await in_thread(_counts, index, None if taken else side)
    return Reindexed(
        collection=index.name,
        before=before,
        after=after,
        documents=documents,
        chunks=chunks,
        embedded=run.embedded,
        switched=taken,
        seconds=round(time.monotonic() - began, 3),
    )


def _in_use(index: EmbeddedIndex, configured: Cut) -> IndexSettings:
    return IndexSettings(*index.embedder(), *chosen_cut(index, configured))


def _cut(settings: IndexSettings) -> Cut:
    return Cut(settings.chunker, settings.chunk_tokens)


def _counts(index: EmbeddedIndex, side: Side | None) -> tuple[int, int]:
    if side is None:
        info = index.info()
        return info.documents, info.chunks
    with index.connection() as db:
        return sides.counts(db, side)


@asynccontextmanager
async def _alone(index: EmbeddedIndex) -> AsyncIterator[None]:
    """No other reindexing of the collection. Raises `Busy`."""
    lock = exclusive(index.folder / LOCK_FILE)
    try:
        await in_thread(lock.__enter__)
    except Busy as error:
        raise Busy(
            f"collection {index.name!r} is being reindexed by process {error.pid or '?'}; wait "
            "for it to end, or stop it",
            pid=error.pid,
        ) from error
    try:
        yield
    finally:
        await in_thread(lock.__exit__, None, None, None)


@asynccontextmanager
async def _patiently(
    collections: Collections,
    index: EmbeddedIndex,
    waits: Callable[[int], None] = lambda pid: None,
) -> AsyncIterator[None]:
    """The collection's writer lock, when it is free; `waits` is told who has it. Raises
    `UnknownCollection` or `BadRequest` if it is another collection now."""
    async with AsyncExitStack() as stack:
        while True:
            try:
                held = await stack.enter_async_context(writing(collections, index.name))
                break
            except Busy as error:
                if error.pid is None:  # not the collection's writer
                    raise
                waits(error.pid)
            await asyncio.sleep(_BUSY_SECONDS)
        if held is not index:
            raise BadRequest(
                f"collection {index.name!r} was deleted and made anew meanwhile; start this again "
                "if it shall be reindexed too"
            )
        yield


class _Run:
    """Gives a side what it lacks, document by document."""

    def __init__(
        self,
        places: Places,
        index: EmbeddedIndex,
        side: Side,
        wanted: IndexSettings,
        progress: Callable[[Progress], None],
    ) -> None:
        self.embedded = 0
        self._places = places
        self._index = index
        self._side = side
        self._wanted = wanted
        self._progress = progress
        self._state = Progress()
        self._open_documents = 0
        self._open_characters = 0
        self._room = asyncio.Event()
        self._refused: list[str] = []

    async def fill(self) -> int:
        """How many documents were missing. Raises `ModelFailed` if the embedder refused some."""
        missing = await in_thread(self._missing)
        documents, chunks = await in_thread(_counts, self._index, self._side)
        self._state = Progress(documents, documents + len(missing), chunks, chunks)
        self._progress(self._state)
        try:
            await self._fill(missing)
        except BaseExceptionGroup as group:
            raise cause(group) from group
        if self._refused:
            raise ModelFailed(
                f"{len(self._refused)} documents of {self._index.name!r} cannot be embedded, so "
                f"it keeps its index; the first is {self._refused[0]}; delete or shorten it, or "
                "take another embedder, and run this again: the rest is kept"
            )
        return len(missing)

    async def _fill(self, missing: Sequence[Unfilled]) -> None:
        embedding = Embedding(
            self._places.models,
            self._wanted.embedder,
            self._index,
            batch_texts=self._places.batch_texts,
            on_batch=self._batch_done,
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(embedding.run())
            async with asyncio.TaskGroup() as documents:
                for document in missing:
                    while self._full or embedding.full:
                        self._room.clear()
                        await self._room.wait()
                    self._open_documents += 1
                    self._open_characters += document.characters
                    documents.create_task(self._add(document, embedding))
                    await asyncio.sleep(0)
                embedding.hurry()
            embedding.close()

    @property
    def _full(self) -> bool:
        return self._open_documents >= OPEN_DOCUMENTS or self._open_characters >= OPEN_CHARACTERS

    async def _add(self, missing: Unfilled, embedding: Embedding) -> None:
        try:
            document, chunking = await in_thread(self._cut, missing)
            if document is None:
                return
            texts = [embedding_text(c.path, c.span.of(document.parsed.text)) for c in chunking]
            keys = [chunk_key(self._wanted.fingerprint, text) for text in texts]
            self._tell(0, len(keys), 0, missing.source)
            known = await in_thread(self._index.vectors, keys)
            new = {k: text for k, text in zip(keys, texts, strict=True) if k not in known}
            vectors = known | await embedding.vectors(new)
            chunks = [NewChunk(c, k, vectors[k]) for c, k in zip(chunking, keys, strict=True)]
            await in_thread(self._index.upsert_side, self._side, missing.number, document, chunks)
            self._tell(len(keys), 0, 1, missing.source)
        except (ModelFailed, BadRequest) as error:  # go on: the rest is then there next time
            self._refused.append(f"{missing.source}: {error.message}")
        finally:
            self._open_documents -= 1
            self._open_characters -= missing.characters
            self._room.set()

    def _cut(self, missing: Unfilled) -> tuple[Document | None, list[Chunk]]:
        document = self._index.document(missing.id)
        if document is None:  # deleted meanwhile
            return None, []
        name, made = chunk(document.parsed, self._wanted.chunker, self._wanted.chunk_tokens)
        cut = replace(document, chunker=name, exclusions=made.exclusions)
        return cut, list(made.chunks)

    def _batch_done(self, texts: int) -> None:
        self.embedded += texts
        self._room.set()

    def _tell(self, chunks: int, found: int, documents: int, source: str) -> None:
        now = self._state
        self._state = Progress(
            now.files_done + documents,
            now.files_total,
            now.chunks_done + chunks,
            now.chunks_total + found,
            source,
        )
        self._progress(self._state)

    def waits(self, pid: int) -> None:
        """All is done but the end, and process `pid` writes to the collection."""
        self._state = replace(self._state, current=f"waiting for process {pid}")
        self._progress(self._state)

    def _missing(self) -> list[Unfilled]:
        with self._index.reading() as db:
            return sides.unfilled(db, self._side)
