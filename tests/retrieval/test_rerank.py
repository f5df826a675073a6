"""The reranker's share of a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

from headrace.config.answering import RetrievalOptions
from headrace.engines.base import ModelInfo
from headrace.errors import DeadlineExceeded
from headrace.retrieval.rerank import Stage, cascade, cascade_of, rerank
from headrace.serving.models import Models
from headrace.serving.paces import Paces
from headrace.types import USER, Call, Hit, Role, Span


class Reranker:
    """Prefers later texts; `seconds` a text."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.asked: list[int] = []

    async def info(self, model: str, *, call: Call) -> ModelInfo:
        return ModelInfo(model, Role.RERANKER, "echo")

    async def score(self, model: str, query: str, texts: Sequence[str], *, call: Call) -> Any:
        self.asked.append(len(texts))
        await asyncio.sleep(self.seconds * len(texts))
        return np.arange(len(texts), dtype=np.float32)


def hits(count: int) -> list[Hit]:
    return [
        Hit(n, "d", "s", "t", (), Span(n, n + 1), f"text {n}", 1.0 - n / 100, {"fused": 1.0})
        for n in range(count)
    ]


async def order(
    models: Reranker, count: int, call: Call, paces: Paces
) -> tuple[list[int], tuple[str, ...]]:
    stage = Stage("r", 50, "rerank")
    found, skipped = await rerank(
        cast(Models, models), stage, "q", hits(count), call, paces, lambda ids, fingerprint: {}
    )
    return [hit.chunk_id for hit in found], skipped


def soon(seconds: float, *then: str) -> Call:
    return Call(deadline=time.monotonic() + seconds, then=then)


@pytest.mark.parametrize("call", [USER, soon(600)])
async def test_with_time_all_are_scored(call: Call) -> None:
    paces = Paces()
    assert await order(Reranker(), 5, call, paces) == ([4, 3, 2, 1, 0], ())
    assert paces.usual("score r") is not None


@pytest.mark.parametrize("call", [USER, soon(600)])
async def test_where_nothing_was_found_nothing_is_scored(call: Call) -> None:
    """One of several queries may find nothing, by words alone."""
    models, paces = Reranker(), Paces()
    assert await order(models, 0, call, paces) == ([], ())
    assert models.asked == []
    assert paces.usual("score r") is None


async def test_what_does_not_fit_keeps_its_order_below() -> None:
    paces = Paces()
    paces.note("score r", 1.0)
    models = Reranker()
    found, skipped = await order(models, 20, soon(10.5, "talk"), paces)  # a share of 0.3: 3 texts
    assert models.asked == [3]
    assert found == [2, 1, 0, *range(3, 20)]
    assert skipped == ("rerank: 3 of 20 hits before the deadline",)
    models.asked.clear()
    await order(models, 20, soon(10.5), paces)  # the fast call before is not the usual one yet
    assert models.asked == [8]


async def test_what_takes_too_long_is_given_up_and_not_begun_again() -> None:
    paces = Paces()
    models = Reranker(seconds=60)
    for reason in ("given up for", "no time before"):
        found, skipped = await order(models, 2, soon(0.2), paces)
        assert found == [0, 1]
        assert skipped == (f"rerank: {reason} the deadline",)
    assert len(models.asked) == 1


async def test_a_deadline_that_has_passed_is_an_error() -> None:
    with pytest.raises(DeadlineExceeded):
        await order(Reranker(seconds=1), 3, soon(-1), Paces())


class Two(Reranker):
    """`cheap` prefers later texts, `dear` those with a small number."""

    async def score(self, model: str, query: str, texts: Sequence[str], *, call: Call) -> Any:
        if model == "cheap":
            assert call.then[0] == "dear"
            return await super().score(model, query, texts, call=call)
        self.asked.append(len(texts))
        return -np.array([int(text.split()[-1]) for text in texts], dtype=np.float32)


def options(**given: object) -> RetrievalOptions:
    return RetrievalOptions(**given)  # type: ignore[arg-type]


def test_the_stages_of_a_search() -> None:
    assert cascade_of(options(rerank_first="cheap"), None, 5) == []
    assert cascade_of(options(), "dear", 5) == [Stage("dear", 50, "rerank")]
    assert cascade_of(options(), "dear", 80) == [Stage("dear", 80, "rerank")]
    two = options(rerank_first="cheap", rerank_depth=30)
    first = Stage("cheap", 100, "rerank_first")
    assert cascade_of(two, "dear", 5) == [first, Stage("dear", 30, "rerank")]
    assert cascade_of(two, "dear", 100) == [Stage("dear", 100, "rerank")]  # nothing to leave out


async def test_the_cheap_one_prunes_for_the_expensive_one() -> None:
    models = Two()
    order = cascade_of(
        options(rerank_first="cheap", rerank_first_depth=10, rerank_depth=4), "dear", 3
    )
    found, skipped = await cascade(
        cast(Models, models), order, "q", hits(12), USER, Paces(), lambda ids, fingerprint: {}
    )
    assert models.asked == [10, 4]
    # The four best of the cheap one as the expensive one has them, the cheap one's rest, the rest.
    assert [hit.chunk_id for hit in found] == [6, 7, 8, 9, 5, 4, 3, 2, 1, 0, 10, 11]
    assert [set(found[place].scores) for place in (0, 4, 10)] == [
        {"fused", "rerank_first", "rerank"},
        {"fused", "rerank_first"},
        {"fused"},
    ]
    assert skipped == ()


async def test_each_stage_says_what_it_skipped() -> None:
    paces = Paces()
    paces.note("score cheap", 0.5)
    paces.note("score dear", 60.0)
    order = cascade_of(
        options(rerank_first="cheap", rerank_first_depth=10, rerank_depth=4), "dear", 3
    )
    _, skipped = await cascade(
        cast(Models, Two()), order, "q", hits(12), soon(10.5), paces, lambda ids, fingerprint: {}
    )
    assert skipped == (
        "rerank_first: 6 of 10 hits before the deadline",
        "rerank: no time before the deadline",
    )
