"""Hits in a reranker's order, as far as there is time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec.structs import replace

from headrace.errors import DeadlineExceeded
from headrace.retrieval.base import embedding_text
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.types import Call, Hit

SHARE = 0.3
"""Of the time left before a deadline, that a reranker may take where a generator comes after it."""

SHARE_ALONE = 0.8
"""The same where nothing comes after it."""


async def rerank(
    models: Models, reranker: str, query: str, hits: list[Hit], call: Call, paces: Paces
) -> tuple[list[Hit], tuple[str, ...]]:
    """The hits, best first, and what was left out for the deadline of `call`.

    1. Without a deadline all are scored. 2. With one, as many as the reranker usually manages in
    its share of the time left; the others keep their order below. 3. If fewer than two fit, or it
    takes longer, the order stays as it was. Raises `DeadlineExceeded` if the deadline itself has
    passed, and what `models` raises."""
    began, pace = time.monotonic(), f"score {reranker}"
    end, depth = None, len(hits)
    if call.deadline is not None:
        share = SHARE if call.then else SHARE_ALONE
        end = began + share * (call.deadline - began)
        usual = paces.usual(pace)
        depth = min(depth, int((end - began) / usual)) if usual else depth
    if depth < min(2, len(hits)):
        return hits, ("rerank: no time before the deadline",)
    within = replace(call, deadline=end)
    try:
        async with asyncio.timeout(None if end is None else end - began):
            ranked = await _ranked(models, reranker, query, hits[:depth], within)
    except (TimeoutError, DeadlineExceeded) as error:
        if call.deadline is None or call.deadline <= time.monotonic():
            raise DeadlineExceeded("the time of this request is over (deadline_ms)") from error
        paces.note_given_up(pace, (time.monotonic() - began) / depth)
        return hits, ("rerank: given up for the deadline",)
    paces.note(pace, (time.monotonic() - began) / depth)
    if depth == len(hits):
        return ranked, ()
    skipped = f"rerank: {depth} of {len(hits)} hits before the deadline"
    return ranked + hits[depth:], (skipped,)


async def _ranked(
    models: Models, reranker: str, query: str, hits: Sequence[Hit], call: Call
) -> list[Hit]:
    texts = [embedding_text(hit.path, hit.text) for hit in hits]
    values = await models.score(reranker, query, texts, call=call)
    scored = [
        replace(hit, score=value, scores={**hit.scores, "rerank": value})
        for hit, value in zip(hits, values.tolist(), strict=True)
    ]
    return sorted(scored, key=lambda hit: -hit.score)
