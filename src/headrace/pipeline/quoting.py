"""The quotations of an answer that are made of quotations alone, in the time that is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from headrace.errors import DeadlineExceeded
from headrace.pipeline.budget import Budget
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.plan import Plan
from headrace.pipeline.quotes import Candidate, by_words, candidates, choose
from headrace.serving.models import Models, together
from headrace.serving.paces import Paces


class _Group(NamedTuple):
    """Passages by their place in it, its candidates, and how many quotes it may have."""

    passages: list[Passage]
    found: list[Candidate]
    share: int


async def choose_in_time(
    models: Models,
    plan: Plan,
    groups: Sequence[Sequence[Passage]],
    budget: Budget,
    paces: Paces,
) -> tuple[list[Evidence], list[str]]:
    """The spans to quote, best first, of which each group has its share: what the second of two
    passages says would seldom be among the spans that are most like the question. The first group,
    which the question itself found, has the larger share. And what was left out (rule 7 of
    `headrace.pipeline.budget`). Raises what `models` raises, but for its deadline."""
    parted = await asyncio.to_thread(_parted, plan, groups)
    count = sum(len(group.found) for group in parted)
    allowed = budget.compare(plan.embedder, count)
    skipped = [allowed.skipped] if allowed.skipped else []
    by_rank = [by_words(group.found, group.passages, group.share) for group in parted]
    if not allowed.texts:
        return _numbered(groups, by_rank), skipped
    began, pace = time.monotonic(), f"quote {plan.embedder}"
    call = replace(budget.call, deadline=allowed.until)
    parts = [-(-allowed.texts * len(group.found) // count) for group in parted]
    try:
        async with asyncio.timeout_at(allowed.until):
            chosen = await together(
                *(
                    choose(
                        *(models, plan.embedder, plan.lookup, group.found[:part]),
                        *(group.passages, group.share),
                        call=call,
                    )
                    for group, part in zip(parted, parts, strict=True)
                )
            )
    except (TimeoutError, DeadlineExceeded):
        if allowed.until is None:
            raise
        paces.note_given_up(pace, time.monotonic() - began, allowed.texts)
        skipped.append("quote: given up for the deadline, chosen by words alone")
        return _numbered(groups, by_rank), skipped
    paces.note(pace, time.monotonic() - began, allowed.texts)
    return _numbered(groups, chosen), skipped


def _parted(plan: Plan, groups: Sequence[Sequence[Passage]]) -> list[_Group]:
    shares = [plan.max_quotes // len(groups)] * len(groups)
    shares[:1] = [plan.max_quotes - sum(shares[1:])] if shares else []
    found = []
    for group, share in zip(groups, shares, strict=True):
        passages = [Passage(place, passage.hit) for place, passage in enumerate(group)]
        found.append(_Group(passages, candidates(plan.lookup, passages), share))
    return found


def _numbered(
    groups: Sequence[Sequence[Passage]], chosen: Sequence[Sequence[Evidence]]
) -> list[Evidence]:
    """What was chosen, by the passages' own numbers."""
    return [
        evidence._replace(hit=group[evidence.hit].index)
        for group, some in zip(groups, chosen, strict=True)
        for evidence in some
    ]
