"""From one embedder to another: every chunk is embedded again, beside the index in use.

New vectors are staged under their `chunk_key`, as in ingestion, so a run that was ended at any
moment, by whatever, is completed by running it again. When all are there, one transaction
switches; until then nobody sees anything of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from headrace.errors import BadRequest, ModelFailed
from headrace.ingest.embedding import Embedding
from headrace.ingest.flow import cause, writing
from headrace.ingest.threads import in_thread
from headrace.retrieval.base import chunk_key, embedding_text
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.rows import Embedder, read_chunks
from headrace.serving.models import Models


class Reembedded(msgspec.Struct, frozen=True):
    """What was done. `embedded` texts were new to the embedder; the vectors of the others were
    there, from a run that was stopped or because several chunks say the same."""

    collection: str
    before: str
    embedder: str
    dimensions: int
    chunks: int
    embedded: int
    seconds: float


class _Source(NamedTuple):
    """A document: where it is from, and its first and last chunk id."""

    name: str
    first: int
    last: int


async def reembed(
    collections: Collections,
    models: Models,
    collection: str,
    embedder: str,
    *,
    batch_texts: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Reembedded:
    """Give a collection the vectors of the model `embedder`. `progress` is called in the event
    loop with the number of chunks that are done and of all.

    Raises `UnknownCollection`, `Busy`, `StorageError`, and what the embedder raises; then the
    collection is as it was, and what was embedded is kept for the next run."""
    await in_thread(collections.open, collection)  # before a model is loaded for nothing
    info = await models.info(embedder)
    began = time.monotonic()
    new = Embedder(embedder, info.fingerprint, info.dimensions)
    async with writing(collections, collection) as index:
        before = await in_thread(index.embedder)
        run = _Run(index, models, new, batch_texts, progress)
        try:
            await run.run()
        except BaseExceptionGroup as group:
            raise cause(group) from group
        await in_thread(index.change_embedder, new)
    return Reembedded(
        collection=collection,
        before=before.name,
        embedder=embedder,
        dimensions=info.dimensions,
        chunks=run.total,
        embedded=run.embedded,
        seconds=round(time.monotonic() - began, 3),
    )


class _Run:
    """Stages what is missing, document by document."""

    def __init__(
        self,
        index: EmbeddedIndex,
        models: Models,
        new: Embedder,
        batch_texts: int,
        progress: Callable[[int, int], None],
    ) -> None:
        self.total = 0
        self.embedded = 0
        self._known = 0
        self._index = index
        self._fingerprint = new.fingerprint
        self._progress = progress
        self._embedding = Embedding(
            models, new.name, index, batch_texts=batch_texts, on_batch=self._batch_done
        )
        self._room = asyncio.Event()
        self._refused: list[str] = []

    async def run(self) -> None:
        sources = await in_thread(self._sources)
        self.total = sum(source.last - source.first + 1 for source in sources)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._embedding.run())
            async with asyncio.TaskGroup() as documents:
                for source in sources:
                    while self._embedding.full:
                        self._room.clear()
                        await self._room.wait()
                    missing = await in_thread(self._missing, source)
                    self._known += source.last - source.first + 1 - len(missing)
                    self._tell()
                    if missing:
                        documents.create_task(self._embed(source, missing))
                self._embedding.hurry()
            self._embedding.close()
        if self._refused:
            raise ModelFailed(
                f"{len(self._refused)} documents of {self._index.name!r} cannot be embedded, so "
                f"it keeps its vectors; the first is {self._refused[0]}; delete or shorten it, or "
                "take another embedder, and run this again: the rest is kept"
            )

    async def _embed(self, source: _Source, texts: dict[bytes, str]) -> None:
        try:
            await self._embedding.vectors(texts)
        except (ModelFailed, BadRequest) as error:  # go on: the rest is then there next time
            self._refused.append(f"{source.name}: {error.message}")

    def _batch_done(self, texts: int) -> None:
        self.embedded += texts
        self._room.set()
        self._tell()

    def _tell(self) -> None:
        self._progress(min(self._known + self.embedded, self.total), self.total)

    def _sources(self) -> list[_Source]:
        with self._index.reading() as db:
            rows = db.execute("SELECT source, first, last FROM documents ORDER BY first")
            return [_Source(*row) for row in rows]

    def _missing(self, source: _Source) -> dict[bytes, str]:
        """The document's texts whose vectors are not there yet, by key."""
        with self._index.reading() as db:
            texts = [
                embedding_text(chunk.path, chunk.text)
                for chunk in read_chunks(db, source.first, source.last)
            ]
        keyed = {chunk_key(self._fingerprint, text): text for text in texts}
        known = self._index.vectors(list(keyed))
        return {key: text for key, text in keyed.items() if key not in known}
