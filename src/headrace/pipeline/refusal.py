"""How a refusal and the conflicts between passages are told: typed, beside the answer's text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from headrace.pipeline.calibration import Kept, load
from headrace.pipeline.checking import Checker
from headrace.pipeline.conflicts import clashes
from headrace.pipeline.evidence import Passage
from headrace.pipeline.plan import Plan
from headrace.pipeline.relevance import Support, judge
from headrace.pipeline.services import Services
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.types import Conflict, ConflictEvent, Event, Refused, RefusedEvent

NEAREST = 3
"""Passages that a refusal shows."""


async def supported(
    services: Services, plan: Plan, index: EmbeddedIndex, sources: Sequence[Passage]
) -> tuple[Support, str]:
    """What is found for the question, judged as the collection wants it; and why its calibration,
    if it has one, is not used. No model is asked."""

    def judged() -> tuple[Support, str]:
        snapshot = index.snapshot()
        kept: Kept = load(index.folder, snapshot.embedder.fingerprint, plan.reranker)
        support = judge(
            plan.lookup,
            sources,
            snapshot,
            services.config.models.get(plan.embedder),
            kept.calibration,
            plan.answer.refuse_below,
        )
        return support, kept.problem

    return await asyncio.to_thread(judged)


def refused(support: Support, sources: Sequence[Passage]) -> RefusedEvent:
    """A refusal with the passages that came nearest."""
    if not sources:
        reason = "no passage was found"
    elif not support.enough:
        reason = "the passages found have too little to do with the question"
    else:
        reason = "no sentence of the passages found answers by itself"
    nearest = tuple(passage.hit for passage in sources[:NEAREST])
    return RefusedEvent(Refused(reason, support.value, support.threshold, nearest))


async def conflicts(
    plan: Plan, checker: Checker, sources: Sequence[Passage], superseded: Sequence[Conflict]
) -> AsyncGenerator[Event, None]:
    """What an answer says of its sources: which contradict each other, with both quoted, and which
    are old. Each is named in the text, then told as an event."""
    for clash in await asyncio.to_thread(clashes, plan.lookup, sources):
        async for event in checker.contradict(clash):
            yield event
    for conflict in superseded:
        if conflict.sources[0] in checker.cited:
            yield checker.name("superseded", new=conflict.values[0], old=conflict.values[1])
            yield ConflictEvent(conflict)
