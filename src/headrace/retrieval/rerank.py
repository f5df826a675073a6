"""Hits in a reranker's order, as far as there is time; two of them make a cascade.

In a cascade a cheap reranker looks at many hits, so that the expensive one need only look at the
best of them. What a reranker has compressed of a collection's passages is scored in their place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.engines.base import Passage
from headrace.errors import DeadlineExceeded
from headrace.retrieval.base import embedding_text
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.types import Call, Hit

SHARE = 0.3
"""Of the time left before a deadline, that a reranker may take where a model comes after it."""

SHARE_ALONE = 0.8
"""The same where nothing comes after it."""

Kept: TypeAlias = Callable[[Sequence[int], str], dict[int, bytes]]
"""What the reranker of a fingerprint made of chunks, by their ids; see `retrieval.compressed`. It
blocks."""


class Stage(NamedTuple):
    """One reranker: how many hits it looks at, and under what name their scores are kept."""

    reranker: str
    depth: int
    score: str


def cascade_of(options: RetrievalOptions, reranker: str | None, k: int) -> list[Stage]:
    """What a search for `k` hits goes through, if it is reranked by `reranker`; none if it is not.
    A cheap one before it only makes sense if it looks at more hits."""
    if reranker is None:
        return []
    last = Stage(reranker, max(k, options.rerank_depth), "rerank")
    if options.rerank_first is None or options.rerank_first_depth <= last.depth:
        return [last]
    return [Stage(options.rerank_first, options.rerank_first_depth, "rerank_first"), last]


async def cascade(
    models: Models,
    order: Sequence[Stage],
    query: str,
    hits: list[Hit],
    call: Call,
    paces: Paces,
    kept: Kept,
) -> tuple[list[Hit], tuple[str, ...]]:
    """The hits after all stages, each of which orders the first ones of what the one before it
    gave; and what was left out for the deadline. Raises like `rerank`."""
    skipped: tuple[str, ...] = ()
    for place, stage in enumerate(order):
        then = tuple(later.reranker for later in order[place + 1 :])
        within = replace(call, then=(*then, *call.then))
        found = await rerank(models, stage, query, hits[: stage.depth], within, paces, kept)
        hits = found[0] + hits[stage.depth :]
        skipped += found[1]
    return hits, skipped


async def rerank(
    models: Models,
    stage: Stage,
    query: str,
    hits: list[Hit],
    call: Call,
    paces: Paces,
    kept: Kept,
) -> tuple[list[Hit], tuple[str, ...]]:
    """The hits, best first, and what was left out for the deadline of `call`.

    1. Without a deadline all are scored. 2. With one, as many as the reranker usually manages in
    its share of the time left; the others keep their order below. 3. If fewer than two fit, or it
    takes longer, the order stays as it was. Raises `DeadlineExceeded` if the deadline itself has
    passed, and what `models` raises."""
    if not hits:
        return [], ()
    began = time.monotonic()
    end, pace, depth = None, f"score {stage.reranker}", len(hits)
    if call.deadline is not None:
        end = began + (SHARE if call.then else SHARE_ALONE) * (call.deadline - began)
    try:
        async with asyncio.timeout(None if end is None else end - began):
            within = replace(call, deadline=end)
            known = await _known(models, stage.reranker, hits, kept, within)
            pace += " compressed" if known else ""
            usual = paces.usual(pace)
            if end is not None and usual:
                depth = min(depth, int((end - began) / usual))
            if depth < min(2, len(hits)):
                return hits, (f"{stage.score}: no time before the deadline",)
            ranked = await _ranked(models, stage, query, hits[:depth], known, within)
    except (TimeoutError, DeadlineExceeded) as error:
        if call.deadline is None or call.deadline <= time.monotonic():
            raise DeadlineExceeded("the time of this request is over (deadline_ms)") from error
        paces.note_given_up(pace, (time.monotonic() - began) / depth)
        return hits, (f"{stage.score}: given up for the deadline",)
    paces.note(pace, (time.monotonic() - began) / depth)
    if depth == len(hits):
        return ranked, ()
    skipped = f"{stage.score}: {depth} of {len(hits)} hits before the deadline"
    return ranked + hits[depth:], (skipped,)


async def _known(
    models: Models, reranker: str, hits: Sequence[Hit], kept: Kept, call: Call
) -> dict[int, bytes]:
    """What the reranker has compressed of the hits, by chunk id."""
    info = await models.info(reranker, call=call)
    if not info.compresses:
        return {}
    return await asyncio.to_thread(kept, [hit.chunk_id for hit in hits], info.fingerprint)


async def _ranked(
    models: Models,
    stage: Stage,
    query: str,
    hits: Sequence[Hit],
    known: dict[int, bytes],
    call: Call,
) -> list[Hit]:
    """Scores of compressed passages and of whole ones differ a little, so what is not compressed
    where others are is so now, for this once."""
    passages: dict[int, Passage] = {
        hit.chunk_id: known.get(hit.chunk_id) or embedding_text(hit.path, hit.text) for hit in hits
    }
    texts = {place: one for place, one in passages.items() if isinstance(one, str)}
    if 0 < len(texts) < len(hits):
        made = await models.compress(stage.reranker, list(texts.values()), call=call)
        passages |= zip(texts, made, strict=True)
    given = [passages[hit.chunk_id] for hit in hits]
    values = await models.score(stage.reranker, query, given, call=call)
    scored = [
        replace(hit, score=value, scores={**hit.scores, stage.score: value})
        for hit, value in zip(hits, values.tolist(), strict=True)
    ]
    return sorted(scored, key=lambda hit: -hit.score)
