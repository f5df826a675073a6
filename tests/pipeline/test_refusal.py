"""Refusals, conflicts and versions through the whole pipeline, with the echo engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from headrace.app import application
from headrace.config.answering import AnswerOptions
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.errors import BadRequest
from headrace.pipeline.answer import AnswerRequest, answer
from headrace.pipeline.calibration import FILE, Calibration, Quality, save
from headrace.pipeline.services import Services
from headrace.types import (
    ALL_ACCESS,
    ConflictEvent,
    DeltaEvent,
    DoneEvent,
    Event,
    Filter,
    QuoteEvent,
    RefusedEvent,
    Role,
    StageEvent,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTS = {
    "leash.md": "# Dog rules\n\nA dog without a leash costs a fine of 150 crowns.\n",
    "leaflet.md": "# Leaflet\n\nA dog without a leash costs a fine of 200 crowns.\n",
    "噪声甲.md": "# 噪声办法\n\n居住区的夜间噪声不得超过45分贝。\n",
    "噪声乙.md": "# 环境手册\n\n居住区的夜间噪声不得超过50分贝。\n",
    "market-2019.md": "# Market Code (2019)\n\nThe weekly market opens at seven on Saturdays.\n",
    "market-2024.md": "# Market Code (2024)\n\nThe weekly market opens at eight on Saturdays.\n",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("refusal")
    documents = folder / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text, encoding="utf-8")
    config = Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={"echo-vector": ModelOptions(role=Role.EMBEDDER, engine="echo")},
        defaults=DefaultModels(generator=None, embedder="echo-vector"),
        answer=AnswerOptions(generate="none"),
    )
    async with application(config) as made:
        await made.jobs.run("town", [documents])
        yield made


async def ask(services: Services, question: str, **options: Any) -> list[Event]:
    request = AnswerRequest("town", question, Filter(access=ALL_ACCESS), **options)
    async with aclosing(answer(services, request)) as events:
        return [event async for event in events]


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, DeltaEvent))


def refusals(events: Sequence[Event]) -> list[RefusedEvent]:
    return [event for event in events if isinstance(event, RefusedEvent)]


async def test_a_refusal_brings_the_nearest_passages(services: Services) -> None:
    events = await ask(services, "How many moons circle Jupiter nowadays?")
    assert isinstance(events[-1], DoneEvent)
    assert events[-1].refusal
    (event,) = refusals(events)
    assert event.refused.support < event.refused.threshold == 1.0
    assert "too little" in event.refused.reason
    assert 0 < len(event.refused.nearest) <= 3
    assert not any(isinstance(e, QuoteEvent) for e in events)


async def test_an_answer_is_no_refusal(services: Services) -> None:
    events = await ask(services, "When does the weekly market open?")
    assert not refusals(events)
    (stage,) = (e for e in events if isinstance(e, StageEvent) and e.name == "relevance")
    assert "by rule" in stage.detail


@pytest.mark.parametrize(
    ("question", "values", "words"),
    [
        ("What is the fine for a dog without a leash?", {"150 crowns", "200 crowns"}, "contradict"),
        ("居住区夜间噪声不得超过多少分贝？", {"45分贝", "50分贝"}, "矛盾"),
    ],
)
async def test_contradictory_passages_are_both_quoted(
    services: Services, question: str, values: set[str], words: str
) -> None:
    events = await ask(services, question, max_quotes=1)
    (conflict,) = (e.conflict for e in events if isinstance(e, ConflictEvent))
    assert conflict.kind == "contradiction"
    assert set(conflict.values) == values
    assert words in text(events)
    quotes = {e.quote.number: e.quote for e in events if isinstance(e, QuoteEvent)}
    for number, value in zip(conflict.quotes, conflict.values, strict=True):
        assert value in quotes[number].text
        assert f"[{number}]" in text(events)
    assert len(set(conflict.sources)) == 2


async def test_the_newer_version_answers_and_the_older_is_named(services: Services) -> None:
    events = await ask(services, "When does the weekly market open?")
    quoted = [e.quote for e in events if isinstance(e, QuoteEvent)]
    assert [quote.title for quote in quoted] == ["Market Code (2024)"]
    (conflict,) = (e.conflict for e in events if isinstance(e, ConflictEvent))
    assert conflict.kind == "superseded"
    assert conflict.values == ("2024", "2019")
    assert conflict.sources[1].endswith("market-2019.md")
    assert "older one (2019)" in text(events)


@pytest.mark.parametrize("question", ["", " \n\t", "？？！", "...", "— — —", "🙂🙂"])
async def test_questions_without_a_word(services: Services, question: str) -> None:
    with pytest.raises(BadRequest, match="the question"):
        await ask(services, question)


async def test_a_question_of_100_kb(services: Services) -> None:
    with pytest.raises(BadRequest, match="100000 characters; the limit is 20000"):
        await ask(services, "狗" * 100_000)


async def test_the_calibration_of_the_collection_judges(services: Services) -> None:
    index = services.collections.open("town")
    question = "When does the weekly market open?"
    made = Calibration(
        version=1,
        embedder=index.embedder().fingerprint,
        reranker=None,
        weights={"covered": 1.0},
        bias=-5.0,
        within_rule=True,
        threshold=0.5,
        quality=Quality(50, 50, 0.9, 0.8, 0.04, 0.6),
        suite="s",
        made="2026-01-01T00:00:00+00:00",
    )
    try:
        save(index.folder, made)
        (event,) = refusals(await ask(services, question))
        assert event.refused.threshold == 0.5
        options = services.config.answer.model_copy(update={"refuse_below": 0.001})
        config = services.config.model_copy(update={"answer": options})
        assert not refusals(await ask(replace(services, config=config), question))
        save(index.folder, replaced(made, "somebody else's"))
        events = await ask(services, question)
        assert not refusals(events)
        assert isinstance(events[-1], DoneEvent)
        assert any("another embedder" in reason for reason in events[-1].skipped)
    finally:
        (index.folder / FILE).unlink()


def replaced(calibration: Calibration, embedder: str) -> Calibration:
    from msgspec.structs import replace as changed

    return changed(calibration, embedder=embedder)


async def test_a_collection_with_a_calibration_is_deleted_whole(
    services: Services, tmp_path: Path
) -> None:
    (tmp_path / "a.md").write_text("# A\n\nOne sentence of text.\n")
    await services.jobs.run("gone", [tmp_path / "a.md"])
    folder = services.collections.open("gone").folder
    (folder / FILE).write_bytes(b"{}")
    services.collections.delete("gone")
    assert not folder.exists()
