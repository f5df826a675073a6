"""The vectors of questions, if they come in time; without them a search is by words alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from headrace.engines.base import ModelInfo, Vectors
from headrace.errors import DeadlineExceeded
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.types import Call

SHARE = 0.4
"""Of the time left before a deadline, that the embedder may take for the questions."""


class Embedded(NamedTuple):
    """Both are `None` if `skipped` says why."""

    info: ModelInfo | None
    vectors: Vectors | None
    skipped: tuple[str, ...] = ()


async def embedded(
    models: Models, embedder: str, queries: Sequence[str], call: Call, paces: Paces
) -> Embedded:
    """One row per query. With a deadline the embedder has its share of the time left, its load
    included if it is not in memory; it is not asked if it usually takes longer. Raises what
    `models` raises."""
    began, pace = time.monotonic(), f"embed {embedder}"
    end = None
    if call.deadline is not None:
        end = began + SHARE * (call.deadline - began)
        usual = paces.foreseen(pace, len(queries))
        if usual is not None and usual > end - began:
            takes = f"the question's vector takes {1000 * usual:.0f} ms"
            return Embedded(None, None, (f"embed: searched by words alone, {takes}",))
    try:
        async with asyncio.timeout_at(end):
            asked = replace(call, deadline=end)
            info = await models.info(embedder, call=asked)
            vectors = await models.embed(embedder, list(queries), "query", call=asked)
    except (TimeoutError, DeadlineExceeded):
        if end is None:
            raise
        paces.note_given_up(pace, time.monotonic() - began, len(queries))
        return Embedded(None, None, ("embed: given up for the deadline, searched by words alone",))
    paces.note(pace, time.monotonic() - began, len(queries))
    return Embedded(info, vectors)
