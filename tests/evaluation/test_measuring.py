"""Measuring answers of a real index."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.evaluation.evaluating import handbook

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config
from headrace.errors import UnknownCollection
from headrace.evaluation.measuring import FIRST_TEXT, measure
from headrace.pipeline.plan import AnswerRequest
from headrace.types import ALL_ACCESS, Filter, Role

QUESTIONS = ("Who keeps the keys of the gates?", "How long is annual leave?")


def requests(*questions: str, collection: str = "book") -> list[AnswerRequest]:
    return [AnswerRequest(collection, text, Filter(access=ALL_ACCESS)) for text in questions]


async def test_stages_tokens_and_waiting(fast: Config, tmp_path: Path) -> None:
    told: list[int] = []
    async with handbook(fast, tmp_path) as services:
        found = await measure(services, requests(*QUESTIONS), 6, users=2, progress=told.append)
    assert told == [1, 2, 3, 4, 5, 6]
    assert found.questions == 6
    assert found.users == 2
    for stage in ("retrieve", "retrieve.embed", "first_token", "generate", "total", FIRST_TEXT):
        times = found.stages[stage]
        assert times.n == 6
        assert 0 < times.p50 <= times.p95
        assert times.p99 is None  # too few
    assert found.stages[FIRST_TEXT].p95 <= found.stages["total"].p95
    assert found.tokens_in is not None
    assert found.tokens_out is not None
    assert found.tokens_in.p50 > found.tokens_out.p50 > 0
    assert found.models["echo-generator"].worked > 0
    assert found.models["echo-embedder"].worked > 0
    assert not found.failures
    assert found.cached == 0


async def test_who_waits_for_a_slow_model_is_seen_waiting(fast: Config, tmp_path: Path) -> None:
    slow = ModelOptions(role=Role.EMBEDDER, engine="echo", source="delay=0.05")
    config = fast.model_copy(update={"models": {**fast.models, "echo-embedder": slow}})
    asked = requests(*(f"{text} {n}" for n in range(6) for text in QUESTIONS))
    async with handbook(config, tmp_path) as services:
        alone = await measure(services, asked, 4, users=1)
        crowd = await measure(services, asked, 12, users=6)
    one, many = alone.models["echo-embedder"], crowd.models["echo-embedder"]
    assert one.waited < one.worked
    assert many.waited / many.worked > one.waited / one.worked


async def test_failures_and_what_was_left_out_are_counted(fast: Config, tmp_path: Path) -> None:
    broken = ModelOptions(role=Role.GENERATOR, engine="echo", source="poison=long")
    config = fast.model_copy(update={"models": {**fast.models, "echo-generator": broken}})
    async with handbook(config, tmp_path) as services:
        found = await measure(services, requests(QUESTIONS[0], QUESTIONS[1]), 4)
    assert sum(found.failures.values()) >= 2
    assert found.skipped["rerank"] == 4 - sum(found.failures.values())


async def test_a_question_that_cannot_be_asked_at_all_is_an_error(
    fast: Config, tmp_path: Path
) -> None:
    async with handbook(fast, tmp_path) as services:
        with pytest.raises(UnknownCollection):
            await measure(services, requests(*QUESTIONS, collection="none"), 2)
