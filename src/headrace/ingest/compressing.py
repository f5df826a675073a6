"""Passages compressed for the reranker of their collection (`headrace.retrieval.compressed`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import msgspec

from headrace.errors import BadRequest, Overloaded
from headrace.ingest.flow import writing
from headrace.ingest.threads import in_thread
from headrace.retrieval import compressed
from headrace.retrieval.collections import Collections
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.serving.models import Models
from headrace.types import BULK

STEP = 256
"""Texts asked for at once and then kept: what a run that is stopped loses at most."""


class Compressed(msgspec.Struct, frozen=True):
    """What was done: `added` passages are new, `size` is in bytes and of all of them."""

    collection: str
    reranker: str
    passages: int
    added: int
    size: int
    seconds: float


async def compress(
    collections: Collections,
    models: Models,
    collection: str,
    rerankers: Sequence[str],
    *,
    progress: Callable[[int], None] = lambda added: None,
) -> Compressed:
    """Compress what is not yet, for the first of the rerankers that does so. `progress` is called
    in the event loop with the number of passages added so far.

    Raises `BadRequest` if none of them does, `UnknownCollection`, `Busy`, `StorageError`, and what
    the reranker raises; what was made by then is kept for the next run."""
    await in_thread(collections.open, collection)  # before a model is loaded for nothing
    reranker = await compressing(models, rerankers)
    if reranker is None:
        raise BadRequest(
            f"collection {collection!r} has no reranker that compresses passages; give it one "
            "with `scoring: late_interaction`, such as e5-late"
        )
    began = time.monotonic()
    async with writing(collections, collection) as index:
        added = await fill(index, models, reranker, progress=progress)
        count, size = await in_thread(_size, index)
    seconds = round(time.monotonic() - began, 3)
    return Compressed(collection, reranker, count, added, size, seconds)


async def compressing(models: Models, rerankers: Sequence[str]) -> str | None:
    """The first of these models that compresses passages."""
    for name in rerankers:
        if (await models.info(name)).compresses:
            return name
    return None


async def fill(
    index: EmbeddedIndex,
    models: Models,
    reranker: str,
    *,
    progress: Callable[[int], None] = lambda added: None,
) -> int:
    """How many passages were compressed. The caller holds the collection's writer lock."""
    fingerprint = (await models.info(reranker)).fingerprint
    await in_thread(_prepare, index, fingerprint)
    added = after = 0
    while texts := await in_thread(_missing, index, after):
        after = texts[-1].vector
        codes = await _asked(models, reranker, [one.text for one in texts])
        made = {one.vector: code for one, code in zip(texts, codes, strict=True)}
        await in_thread(_keep, index, made)
        added += len(made)
        progress(added)
    return added


async def _asked(models: Models, reranker: str, texts: Sequence[str]) -> list[bytes]:
    while True:
        try:
            return await models.compress(reranker, texts, call=BULK)
        except Overloaded as error:  # bulk work can wait
            await asyncio.sleep(error.retry_after)


def _prepare(index: EmbeddedIndex, fingerprint: str) -> None:
    with index.connection() as db:
        compressed.prepare(db, fingerprint)


def _missing(index: EmbeddedIndex, after: int) -> list[compressed.Uncompressed]:
    with index.reading() as db:
        return compressed.missing(db, after, STEP)


def _keep(index: EmbeddedIndex, made: dict[int, bytes]) -> None:
    with index.connection() as db:
        compressed.keep(db, made)


def _size(index: EmbeddedIndex) -> tuple[int, int]:
    with index.reading() as db:
        return compressed.size(db)
