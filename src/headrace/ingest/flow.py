"""From files to an index: read, embed, write, all three at once.

What is left to do always follows from the collection itself: a file whose content and settings
are those of its stored document is skipped, a text whose vector is known is not embedded again,
and a document is stored with all its chunks in one transaction. So a run that was ended at any
moment, by whatever, is completed by running it again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from headrace.config.options import IngestOptions
from headrace.errors import BadRequest, ModelFailed, ReadError, UnknownCollection
from headrace.ingest.discover import Candidate
from headrace.ingest.embedding import Embedding, Vector
from headrace.ingest.frames import Read, Same
from headrace.ingest.outcomes import FileOutcome, document_id
from headrace.ingest.reading import ReaderProcess
from headrace.ingest.stamps import (
    Cut,
    Stamp,
    chosen_cut,
    drop_stamps,
    read_stamps,
    stamp,
    write_stamp,
)
from headrace.ingest.tally import Tally
from headrace.ingest.threads import in_thread
from headrace.retrieval.base import DocumentInfo, NewChunk, chunk_key, embedding_text
from headrace.retrieval.collections import Collections, check_embedder, held_embedder
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.serving.models import Models
from headrace.types import Document

OPEN_DOCUMENTS = 256
OPEN_CHARACTERS = 16_000_000
"""Beyond either, reading waits: read documents are held in memory until they are written."""


@dataclass(frozen=True)
class Order:
    """What to ingest, and how. Documents whose source is at or below one of `prune`, and whose
    file is gone, are removed. `labels` and `metadata` are what was given for this run; where
    nothing was, a document keeps what was given for it before, and else has `default_labels`: who
    forgets a label must not publish a document by that."""

    candidates: Sequence[Candidate]
    prune: Sequence[Path]
    embedder: str
    chunker: str
    labels: tuple[str, ...] | None
    default_labels: tuple[str, ...]
    metadata: Mapping[str, str]
    options: IngestOptions


class _Settings(NamedTuple):
    """How one document is stored."""

    labels: tuple[str, ...]
    metadata: dict[str, str]
    stamp: Stamp


class _Prepared(NamedTuple):
    """A document with its embedding texts by key, in the order of its chunks."""

    document: Document
    read: Read
    keys: list[bytes]
    texts: dict[bytes, str]


class Flow:
    """One run over one collection, whose writer lock the caller holds."""

    def __init__(
        self,
        order: Order,
        index: EmbeddedIndex,
        models: Models,
        reader: ReaderProcess,
        tally: Tally,
        fingerprint: str,
    ) -> None:
        """`fingerprint` is the embedder's, whose vectors the index must hold."""
        self._order = order
        self._index = index
        self._fingerprint = fingerprint
        self._reader = reader
        self._tally = tally
        self._embedding = Embedding(
            models,
            order.embedder,
            index,
            batch_texts=order.options.batch_texts,
            on_batch=self._batch_done,
        )
        self._stored: dict[str, DocumentInfo] = {}
        self._stamps: dict[str, Stamp] = {}
        self._open_documents = 0
        self._open_characters = 0
        self._room = asyncio.Event()
        self._write_turn = asyncio.Lock()

    async def run(self) -> None:
        """Raises what stops the whole run: `StorageError`, or `ModelFailed` and its kin where the
        embedder is the cause. A file's own failure is an outcome."""
        self._stored = {info.id: info for info in await in_thread(self._index.documents)}
        self._stamps = await in_thread(read_stamps, self._index)
        self._tally.begin(len(self._order.candidates))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._embedding.run())
            async with asyncio.TaskGroup() as documents:
                for candidate in self._order.candidates:
                    await self._wait_for_room()
                    self._tally.working_on(candidate.source)
                    read = await self._read(candidate)
                    if read is not None:
                        self._open_documents += 1
                        self._open_characters += len(read.parsed.text)
                        documents.create_task(self._store(candidate, read))
                self._embedding.hurry()
            self._embedding.close()
        await self._prune()
        await in_thread(self._index.clear_staged)

    def _batch_done(self, texts: int) -> None:
        """The embedder got on: there may be room for more."""
        self._tally.embedded(texts)
        self._room.set()

    async def _wait_for_room(self) -> None:
        while (
            self._open_documents >= OPEN_DOCUMENTS
            or self._open_characters >= OPEN_CHARACTERS
            or self._embedding.full
        ):
            self._room.clear()
            await self._room.wait()

    # Read ---------------------------------------------------------------------------------------

    async def _read(self, candidate: Candidate) -> Read | None:
        """None if there is nothing to store; then the outcome is known."""
        source = candidate.source
        key = document_id(source)
        known = self._stored.get(key)
        same_settings = known is not None and self._stamps.get(key) == self._settings(key).stamp
        try:
            if candidate.problem:
                raise ReadError(candidate.problem)
            answer = await self._reader.read(
                candidate.path,
                self._order.chunker,
                self._order.options.chunk_tokens,
                known_sha256=known.sha256 if known and same_settings else "",
            )
        except ReadError as error:
            self._skip(source, error.message)
            return None
        if isinstance(answer, Same):
            self._tally.add(FileOutcome(source, "unchanged", document_id=key))
            return None
        if not answer.chunking.chunks:
            await self._skip_empty(source, answer)
            return None
        return answer

    def _skip(self, source: str, reason: str, notes: Sequence[str] = ()) -> None:
        if document_id(source) in self._stored:
            reason += "; the version ingested before stays"
        self._tally.add(FileOutcome(source, "skipped", reason, notes=tuple(notes)))

    async def _skip_empty(self, source: str, read: Read) -> None:
        key = document_id(source)
        reason = "there is no text in it"
        if key in self._stored:
            await self._remove([key])
            reason += "; the version ingested before was removed"
        self._tally.add(FileOutcome(source, "skipped", reason, notes=read.parsed.notes))

    def _settings(self, key: str) -> _Settings:
        order, known, before = self._order, self._stored.get(key), self._stamps.get(key)
        labels, labelled = order.labels or order.default_labels, order.labels is not None
        if known is not None and not labelled and (before is None or before.labelled):
            labels, labelled = known.labels, True  # no stamp: a crash came between the two writes
        metadata = dict(order.metadata or (known.metadata if known else {}))
        value = stamp(order.chunker, order.options.chunk_tokens, labels, metadata)
        return _Settings(labels, metadata, Stamp(value, labelled))

    # Embed and write ----------------------------------------------------------------------------

    async def _store(self, candidate: Candidate, read: Read) -> None:
        try:
            prepared = await in_thread(self._prepare, candidate, read)
            self._tally.chunks_found(len(prepared.keys))
            known = await in_thread(self._index.vectors, list(prepared.texts))
            missing = {key: text for key, text in prepared.texts.items() if key not in known}
            try:
                vectors = known | await self._embedding.vectors(missing)
            except (ModelFailed, BadRequest) as error:
                self._skip(candidate.source, f"the embedder refused it: {error.message}")
                return
            async with self._write_turn:
                await in_thread(self._write, prepared, vectors)
            self._count(prepared)
        finally:
            self._open_documents -= 1
            self._open_characters -= len(read.parsed.text)
            self._room.set()

    def _prepare(self, candidate: Candidate, read: Read) -> _Prepared:
        key = document_id(candidate.source)
        settings = self._settings(key)
        document = Document(
            id=key,
            source=candidate.source,
            sha256=read.sha256,
            parsed=read.parsed,
            chunker=read.chunker,
            exclusions=read.chunking.exclusions,
            labels=settings.labels,
            metadata=settings.metadata,
            added=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        texts = [
            embedding_text(chunk.path, chunk.span.of(read.parsed.text))
            for chunk in read.chunking.chunks
        ]
        keys = [chunk_key(self._fingerprint, text) for text in texts]
        return _Prepared(document, read, keys, dict(zip(keys, texts, strict=True)))

    def _write(self, prepared: _Prepared, vectors: Mapping[bytes, Vector]) -> None:
        chunks = [
            NewChunk(chunk, key, vectors[key])
            for chunk, key in zip(prepared.read.chunking.chunks, prepared.keys, strict=True)
        ]
        self._index.upsert(prepared.document, chunks)
        key = prepared.document.id
        write_stamp(self._index, key, self._settings(key).stamp)

    def _count(self, prepared: _Prepared) -> None:
        document, read = prepared.document, prepared.read
        self._tally.add(
            FileOutcome(
                document.source,
                "replaced" if document.id in self._stored else "added",
                document_id=document.id,
                chunks=len(prepared.keys),
                characters=len(read.parsed.text),
                notes=read.parsed.notes,
            ),
            unaccounted=read.unaccounted,
        )

    # Remove -------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        gone = await in_thread(self._gone)
        if not gone:
            return
        await self._remove([info.id for info in gone])
        for info in gone:
            self._tally.add(FileOutcome(info.source, "removed", document_id=info.id))

    def _gone(self) -> list[DocumentInfo]:
        seen = {candidate.source for candidate in self._order.candidates}
        return [
            info
            for info in self._stored.values()
            if info.source not in seen
            and any(Path(info.source).is_relative_to(root) for root in self._order.prune)
            and not os.path.lexists(info.source)
        ]

    async def _remove(self, ids: Sequence[str]) -> None:
        async with self._write_turn:
            await in_thread(self._index.delete, ids)
            await in_thread(drop_stamps, self._index, ids)


@asynccontextmanager
async def writing(collections: Collections, name: str) -> AsyncIterator[EmbeddedIndex]:
    """The collection's writer lock, taken and given back in a thread. Raises `Busy`."""
    manager = collections.writer(name)
    entered: list[EmbeddedIndex] = []
    try:
        await in_thread(lambda: entered.append(manager.__enter__()))
        yield entered[0]
    finally:
        if entered:
            await in_thread(manager.__exit__, None, None, None)


async def ingest(
    collections: Collections, models: Models, collection: str, order: Order, tally: Tally
) -> None:
    """Make the collection if it is not there, and bring it up to date with `order`; `tally`
    learns what happens. Raises `Busy`, `ConfigError`, `StorageError`, and what the embedder
    raises."""
    began = time.monotonic()
    try:
        async with ReaderProcess(order.options) as reader:
            order = await _as_held(collections, models, collection, order)
            info = await models.info(order.embedder)
            began = time.monotonic()  # loading the model is no part of the speed
            await in_thread(collections.create, collection, order.embedder, info)
            async with writing(collections, collection) as index:
                # Now it stays the same; a reindexing may have switched until now.
                order = await _as_held(collections, models, collection, order)
                info = await models.info(order.embedder)
                check_embedder(collection, await in_thread(index.embedder), order.embedder, info)
                await Flow(order, index, models, reader, tally, info.fingerprint).run()
    except BaseExceptionGroup as group:
        raise cause(group) from group
    finally:
        tally.ended(time.monotonic() - began)


async def _as_held(
    collections: Collections, models: Models, collection: str, order: Order
) -> Order:
    """With the embedder that the collection has, and the chunker that its reindexing chose, unless
    the configuration was changed since."""
    try:
        index, held = await in_thread(collections.opened, collection)
    except UnknownCollection:  # then the order makes it
        return order
    cut = Cut(order.chunker, order.options.chunk_tokens)
    chosen = await in_thread(chosen_cut, index, cut)
    return replace(
        order,
        embedder=await held_embedder(models, held, order.embedder),
        chunker=chosen.chunker,
        options=order.options.model_copy(update={"chunk_tokens": chosen.chunk_tokens}),
    )


def cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that ended the others: tasks end each other by cancellation, so it is alone."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
