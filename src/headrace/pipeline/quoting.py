"""The quotations of an answer that are made of quotations alone, in the time that is left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from msgspec.structs import replace

from headrace.errors import DeadlineExceeded
from headrace.pipeline.budget import Budget
from headrace.pipeline.evidence import Evidence, Passage
from headrace.pipeline.plan import Plan
from headrace.pipeline.quotes import by_words, candidates, choose
from headrace.serving.models import Models
from headrace.serving.paces import Paces


async def choose_in_time(
    models: Models, plan: Plan, sources: Sequence[Passage], budget: Budget, paces: Paces
) -> tuple[list[Evidence], list[str]]:
    """The spans to quote, best first, and what was left out (rule 7 of `headrace.pipeline.budget`).
    Raises what `models` raises, but for its deadline."""
    found = await asyncio.to_thread(candidates, plan.lookup, sources)
    allowed = budget.compare(plan.embedder, len(found))
    skipped = [allowed.skipped] if allowed.skipped else []
    if not allowed.texts:
        return by_words(found, sources, plan.max_quotes), skipped
    began, pace = time.monotonic(), f"quote {plan.embedder}"
    call = replace(budget.call, deadline=allowed.until)
    some = found[: allowed.texts]
    try:
        async with asyncio.timeout_at(allowed.until):
            chosen = await choose(
                models, plan.embedder, plan.lookup, some, sources, plan.max_quotes, call=call
            )
    except (TimeoutError, DeadlineExceeded):
        if allowed.until is None:
            raise
        paces.note_given_up(pace, time.monotonic() - began, allowed.texts)
        skipped.append("quote: given up for the deadline, chosen by words alone")
        return by_words(found, sources, plan.max_quotes), skipped
    paces.note(pace, time.monotonic() - began, allowed.texts)
    return chosen, skipped
