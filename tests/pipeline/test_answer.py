"""The whole pipeline over a real index, with the echo engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
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
from headrace.errors import BadRequest, UnknownCollection, UnknownModel
from headrace.pipeline.answer import answer
from headrace.pipeline.checking import Checker
from headrace.pipeline.evidence import passages
from headrace.pipeline.plan import AnswerRequest, make_plan
from headrace.pipeline.services import Services
from headrace.types import (
    ALL_ACCESS,
    Delta,
    DeltaEvent,
    DoneEvent,
    Event,
    Filter,
    HitsEvent,
    Message,
    QuoteEvent,
    Role,
    UnsupportedEvent,
    Verification,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """# Municipal Code of Weirford

## Chapter 1 Dogs

Article 1 Dogs shall be kept on a leash in public places. The fine is 150 crowns.

Article 2 The keeper of a dog registers it with the town hall within 14 days.

## Chapter 2 Markets

Article 3 The weekly market is held on the mill square on Saturdays from 7:00 to 13:00.
"""
CODE_ZH = """# 堰城市政条例

## 第一章 犬只

第一条 在公共场所应当用牵引绳牵领犬只。违反的，处一百五十元罚款。

第二条 饲养人应当在十四日内到市政厅为犬只登记。
"""


def config(folder: Path, **answers: Any) -> Config:
    echo = {
        "echo-talk": ModelOptions(role=Role.GENERATOR, engine="echo"),
        "echo-vector": ModelOptions(role=Role.EMBEDDER, engine="echo"),
        "english": ModelOptions(role=Role.GENERATOR, engine="echo", languages=("en",)),
    }
    return Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models=echo,
        defaults=DefaultModels(generator="echo-talk", embedder="echo-vector"),
        answer=AnswerOptions(**answers),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("answer")
    documents = folder / "documents"
    documents.mkdir()
    (documents / "code.md").write_text(CODE)
    (documents / "条例.md").write_text(CODE_ZH)
    async with application(config(folder)) as made:
        await made.jobs.run("town", [documents])
        await made.jobs.run("shrinking", [documents])
        yield made


async def ask(services: Services, question: str, **options: Any) -> list[Event]:
    where = options.pop("where", Filter(access=ALL_ACCESS))
    collection = options.pop("collection", "town")
    request = AnswerRequest(collection, question, where, **options)
    async with aclosing(answer(services, request)) as events:
        return [event async for event in events]


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, DeltaEvent))


def quotes(events: Sequence[Event]) -> list[QuoteEvent]:
    return [event for event in events if isinstance(event, QuoteEvent)]


def done(events: Sequence[Event]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


async def check_quotes(services: Services, events: Sequence[Event]) -> None:
    index = services.collections.open("town")
    for event in quotes(events):
        document = index.document(event.quote.document_id)
        assert document is not None
        assert event.quote.span.of(document.parsed.text) == event.quote.text


async def test_a_written_answer_cites_what_it_says(services: Services) -> None:
    events = await ask(services, "Must dogs be kept on a leash in public places?")
    assert "leash in public places" in text(events)
    assert "[1]" in text(events)
    assert any("leash in public places" in event.quote.text for event in quotes(events))
    assert not done(events).refusal
    assert done(events).usage.completion_tokens > 0
    assert done(events).config_version == services.config_version
    await check_quotes(services, events)


async def test_events_come_in_order(services: Services) -> None:
    events = await ask(services, "Must dogs be kept on a leash in public places?")
    kinds = [type(event) for event in events]
    assert kinds.index(HitsEvent) < kinds.index(QuoteEvent) < kinds.index(DeltaEvent)
    assert kinds[-1] is DoneEvent
    assert kinds.count(DoneEvent) == 1


@pytest.mark.parametrize("question", ["狗在公共场所要用牵引绳吗？", "Who registers the dog?"])
async def test_quotations_alone(services: Services, question: str) -> None:
    events = await ask(services, question, generate="none")
    assert quotes(events)
    for event in quotes(events):
        assert f"“{event.quote.text}” [{event.quote.number}]" in text(events)
    assert done(events).usage.total_tokens == 0
    await check_quotes(services, events)


async def test_what_the_documents_do_not_say_is_refused(services: Services) -> None:
    events = await ask(services, "How many moons circle Jupiter nowadays?")
    assert done(events).refusal
    assert not quotes(events)
    assert text(events) == "The documents in this collection do not answer this question."


async def test_a_generator_that_cannot_write_the_language_is_not_asked(tmp_path: Path) -> None:
    (tmp_path / "条例.md").write_text(CODE_ZH)
    made = config(tmp_path).model_copy(
        update={"defaults": DefaultModels(generator="english", embedder="echo-vector")}
    )
    async with application(made) as services:
        await services.jobs.run("town", [tmp_path / "条例.md"])
        events = await ask(services, "公共场所应当用牵引绳牵领犬只吗？")
        assert quotes(events)
        assert any("generator 'english'" in reason for reason in done(events).skipped)
        assert done(events).usage.total_tokens == 0


UNPROVED = "Jupiter has ninety-five moons and rings of dust around it."


async def test_unsupported_sentences_are_announced_and_marked(services: Services) -> None:
    modes: tuple[Verification, ...] = ("annotate", "strict")
    for mode in modes:
        request = AnswerRequest("town", "q?", Filter(access=ALL_ACCESS), verification=mode)
        index = services.collections.open("town")
        checker = Checker(make_plan(services.config, request), index, passages([]))
        events = [event async for event in checker.check(UNPROVED + " ")]
        (unsupported,) = (e for e in events if isinstance(e, UnsupportedEvent))
        assert unsupported.text == UNPROVED
        if mode == "strict":
            assert text(events) == ""
            note = checker.withheld()
            assert note is not None
            assert "Withheld" in note.text
        else:
            assert isinstance(events[0], UnsupportedEvent)  # before the reader sees the sentence
            assert unsupported.span.of(text(events)) == UNPROVED
            assert "[unsupported]" in text(events)
            assert checker.withheld() is None


async def test_a_document_deleted_since_the_search_is_not_quoted(services: Services) -> None:
    request = AnswerRequest(
        "shrinking", "Must dogs be kept on a leash?", Filter(access=ALL_ACCESS), generate="none"
    )
    index = services.collections.open("shrinking")
    quoted: list[Event] = []
    async with aclosing(answer(services, request)) as events:
        async for event in events:
            if isinstance(event, HitsEvent):
                ids = [document.id for document in index.documents()]
                await asyncio.to_thread(index.delete, ids)
            quoted.append(event)
    assert not quotes(quoted)
    assert done(quoted).refusal


async def test_access_is_applied(services: Services) -> None:
    secret = Filter(access=frozenset({"board"}))
    events = await ask(services, "Must dogs be kept on a leash?", where=secret)
    assert done(events).refusal
    assert not next(event for event in events if isinstance(event, HitsEvent)).hits


async def test_bad_requests_are_raised_before_the_first_event(services: Services) -> None:
    with pytest.raises(BadRequest, match="empty"):
        await ask(services, "  ")
    with pytest.raises(BadRequest, match="characters"):
        await ask(services, "x" * 30_000)
    with pytest.raises(UnknownModel, match="echo-talk"):
        await ask(services, "Dogs?", generator="nobody")
    with pytest.raises(UnknownCollection, match="town"):
        await ask(services, "Dogs?", collection="nowhere")


async def test_a_follow_up_is_looked_up_with_its_question(services: Services) -> None:
    history = (
        Message("user", "Must dogs be kept on a leash in public places?"),
        Message("assistant", "Yes."),
    )
    events = await ask(services, "What is the fine for it?", history=history, generate="none")
    assert any("150 crowns" in event.quote.text for event in quotes(events))
    await check_quotes(services, events)


async def test_a_provision_asked_for_is_the_only_one_quoted(services: Services) -> None:
    events = await ask(services, "What does Article 3 say?", generate="none")
    assert [event.quote.path[-1] for event in quotes(events)] == ["Article 3"]
    await check_quotes(services, events)


async def test_a_generator_that_goes_round_is_cut_short(services: Services) -> None:
    class Lost:
        closed = False

        def __getattr__(self, name: str) -> Any:
            return getattr(services.models, name)

        async def generate(self, *_: object, **__: object) -> AsyncGenerator[Delta, None]:
            try:
                yield Delta("To start the market, call ")
                while True:
                    yield Delta("-n ")
                    await asyncio.sleep(0)
            finally:
                self.closed = True

    lost = Lost()
    events = await ask(replace(services, models=lost), "Must dogs be kept on a leash?")
    assert lost.closed
    assert "-n" not in text(events)
    assert done(events).usage.prompt_tokens > 20
    assert done(events).usage.completion_tokens > 5
    assert quotes(events)
    assert any("repeated itself" in reason for reason in done(events).skipped)


@pytest.mark.parametrize("tail", ["", "\n", "\n\n"])
async def test_quotations_follow_as_a_paragraph_of_their_own(services: Services, tail: str) -> None:
    request = AnswerRequest("town", "Dogs?", Filter(access=ALL_ACCESS))
    plan = make_plan(services.config, request)
    checker = Checker(plan, services.collections.open("town"), ())
    said = [event async for event in checker.check(f"Cats rule the whole town of Weirford.{tail}")]
    said.append(checker.refuse())
    assert "[unsupported]\n\nThe documents" in text(said)


async def test_without_verification_sentences_pass_and_the_answer_says_so(
    services: Services,
) -> None:
    request = AnswerRequest("town", "q?", Filter(access=ALL_ACCESS), verification="off")
    plan = make_plan(services.config, request)
    assert "verify: switched off" in plan.skipped
    index = services.collections.open("town")
    checker = Checker(plan, index, passages([]))
    events = [event async for event in checker.check(UNPROVED + " [7] ")]
    assert text(events).strip() == UNPROVED  # a marker that names no passage goes
    assert checker.supported == 1


async def test_without_verification_markers_name_whole_passages(services: Services) -> None:
    events = await ask(services, "Must dogs be kept on a leash?", verification="off")
    (quote,) = (event.quote for event in events if isinstance(event, QuoteEvent))
    (hits,) = (event.hits for event in events if isinstance(event, HitsEvent))
    assert quote.span == hits[0].span
    done = events[-1]
    assert isinstance(done, DoneEvent)
    assert "verify: switched off" in done.skipped


async def test_a_generator_is_stopped_after_its_sentences(services: Services) -> None:
    class Talker:
        written = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(services.models, name)

        async def generate(self, *_: object, **__: object) -> AsyncGenerator[Delta, None]:
            for sentence in (
                "Dogs shall be kept on a leash in public places. ",
                "The fine is 150 crowns. ",
                "The weekly market is held on the mill square. ",
                "The keeper of a dog registers it with the town hall. ",
            ):
                self.written += 1
                yield Delta(sentence)
            yield Delta(finish_reason="stop")

    for most, seen in ((1, 2), (2, 3)):
        talker = Talker()
        answers = services.config.answer.model_copy(update={"max_sentences": most})
        limited = services.config.model_copy(update={"answer": answers})
        made = replace(services, models=talker, config=limited)  # type: ignore[arg-type]
        events = await ask(made, "Must dogs be kept on a leash in public places?")
        assert ("150 crowns" in text(events)) == (most == 2)
        assert "market" not in text(events)
        assert talker.written == seen  # a sentence is whole when the next one begins
        assert done(events).finish_reason == "stop"
        assert done(events).usage.completion_tokens > 5
