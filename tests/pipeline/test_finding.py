"""Rounds of searching over a real index, with the echo engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from headrace.app import application
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.errors import Overloaded
from headrace.pipeline.answer import answer
from headrace.pipeline.helper import DECOMPOSE, REWRITE
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.serving.paces import Paces
from headrace.types import (
    ALL_ACCESS,
    Call,
    Delta,
    DeltaEvent,
    DoneEvent,
    Event,
    Filter,
    GenerateParams,
    HitsEvent,
    HopEvent,
    Message,
    QuoteEvent,
    Role,
    StageEvent,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

PEOPLE = {
    "Grace Miller": "Grace Miller wrote her first novel for the publisher Tin Radio in 2010.",
    "Tin Radio": "Tin Radio is a small house in Columbus, founded by two siblings.",
    "Weirford": "Weirford is a town with a mill wheel.",
    "Secret Radio": "Grace Miller has a cousin at Secret Radio.",
}
FILLER = "A cat of the mayor number {n} sleeps all day in a basket by the city gate."
LAW = """# 堰城市政条例

第一条 在公共场所应当用牵引绳牵领犬只。违反的，处一百五十元罚款。

第二条 饲养人应当在十四日内到市政厅为犬只登记。

第三条 违反本条例第二条规定的，由市政厅责令改正；情节严重的，依照《水磨管理办法》第二条处理。
"""
OTHER_LAW = """# 水磨管理办法

第一条 水磨由磨坊主管理。

第二条 拒不改正的，没收其磨坊主证书。
"""
QUESTION = "In which city is the publisher of the first novel of Grace Miller?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("finding")
    for name in ("open", "secret"):
        (folder / name).mkdir()
    texts = PEOPLE | {f"Note {n}": FILLER.format(n=n) for n in range(12)}
    for title, text in texts.items():
        place = folder / ("secret" if title == "Secret Radio" else "open")
        (place / f"{title}.md").write_text(f"# {title}\n\n{text}\n")
    (folder / "open" / "条例.md").write_text(LAW)
    (folder / "open" / "办法.md").write_text(OTHER_LAW)
    config = Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={
            "talk": ModelOptions(role=Role.GENERATOR, engine="echo"),
            "able": ModelOptions(role=Role.GENERATOR, engine="echo", capable=True),
            "vector": ModelOptions(role=Role.EMBEDDER, engine="echo"),
            "order": ModelOptions(role=Role.RERANKER, engine="echo"),
        },
        defaults=DefaultModels(generator="talk", embedder="vector"),
    )
    async with application(config) as made:
        await made.jobs.run("town", [folder / "open"])
        await made.jobs.run("town", [folder / "secret"], labels=["board"])
        yield made


async def ask(services: Services, question: str, **options: Any) -> list[Event]:
    where = options.pop("where", Filter(access=ALL_ACCESS))
    options = {"generate": "none", "effort": "deep"} | options
    async with aclosing(answer(services, AnswerRequest("town", question, where, **options))) as it:
        return [event async for event in it]


def hops(events: Sequence[Event]) -> list[HopEvent]:
    return [event for event in events if isinstance(event, HopEvent)]


def hits(events: Sequence[Event]) -> list[str]:
    (found,) = (event for event in events if isinstance(event, HitsEvent))
    return [hit.path[-1] for hit in found.hits]


def done(events: Sequence[Event]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent), events[-1]
    return events[-1]


# Rounds -------------------------------------------------------------------------------------------


async def test_what_a_passage_names_is_found_in_the_second_round(services: Services) -> None:
    once = await ask(services, QUESTION, effort="balanced", hits=3)
    deep = await ask(services, QUESTION, hits=3)
    assert "Tin Radio" not in hits(once)
    assert "Tin Radio" in hits(deep)
    first, second = hops(deep)
    assert [sought.why for sought in first.sought] == ["the question"]
    assert "another search pays between" in first.decision
    assert any(
        sought.text == "Tin Radio" and "Grace Miller" in sought.why and sought.found
        for sought in second.sought
    )
    assert second.new > 0
    assert "the most" in second.decision


async def test_the_events_of_the_rounds_come_before_the_hits(services: Services) -> None:
    events = await ask(services, QUESTION)
    kinds = [type(event) for event in events]
    assert kinds[0] is StageEvent
    assert kinds.index(HopEvent) < kinds.index(HitsEvent)
    assert HopEvent not in kinds[kinds.index(HitsEvent) :]
    assert [hop.number for hop in hops(events)] == [1, 2]


async def test_passages_of_all_rounds_are_quoted(services: Services) -> None:
    public = Filter(access=frozenset({"public"}))
    events = await ask(services, QUESTION, hits=6, where=public)
    quoted = {event.quote.title for event in events if isinstance(event, QuoteEvent)}
    assert {"Grace Miller", "Tin Radio"} <= quoted


async def test_references_between_provisions_are_followed(services: Services) -> None:
    events = await ask(services, "情节严重的，责令改正后如何处理？", hits=4)
    followed = {sought.text for hop in hops(events)[1:] for sought in hop.sought}
    assert {"第二条", "《水磨管理办法》第二条"} <= followed
    (found,) = (event for event in events if isinstance(event, HitsEvent))
    assert any("没收其磨坊主证书" in hit.text for hit in found.hits)


async def test_what_the_caller_may_not_read_is_not_followed(services: Services) -> None:
    public = Filter(access=frozenset({"public"}))
    events = await ask(services, QUESTION, where=public, hits=8)
    assert "Secret Radio" not in hits(events)
    assert "Secret" not in repr(hops(events))
    assert "Secret Radio" in hits(await ask(services, QUESTION, hits=8))


async def test_the_parts_of_a_question_are_searched_in_one_batch(services: Services) -> None:
    embedded: list[list[str]] = []

    class Listening:
        def __getattr__(self, name: str) -> Any:
            return getattr(services.models, name)

        async def embed(self, model: str, texts: list[str], kind: str, **more: Any) -> Any:
            if kind == "query":
                embedded.append(texts)
            return await services.models.embed(model, texts, kind, **more)  # type: ignore[arg-type]

    question = "What is Tin Radio and where is the mill wheel of Weirford?"
    events = await ask(replace(services, models=Listening()), question)
    assert len(embedded[0]) == 3
    assert [sought.why for sought in hops(events)[0].sought] == [
        "the question",
        "a part of it",
        "a part of it",
    ]
    assert {"Tin Radio", "Weirford"} <= set(hits(events))


async def test_other_efforts_search_once(services: Services) -> None:
    for effort in ("fast", "balanced"):
        assert hops(await ask(services, QUESTION, effort=effort)) == []


async def test_the_plan_says_the_kind_and_why(services: Services) -> None:
    plan = (await ask(services, "What does Article 3 say?", effort="auto"))[0]
    assert isinstance(plan, StageEvent)
    assert "identifier: names 第3条; effort fast" in plan.detail
    plan = (await ask(services, QUESTION, effort="auto"))[0]
    assert isinstance(plan, StageEvent)
    assert "effort deep" in plan.detail


@pytest.mark.parametrize(("greeting", "reply"), [("Hello!", "Ask me"), ("你好", "文档")])
async def test_a_greeting_is_returned_and_nothing_searched(
    services: Services, greeting: str, reply: str
) -> None:
    events = await ask(services, greeting, effort=None, generate=None)
    assert reply in "".join(event.text for event in events if isinstance(event, DeltaEvent))
    assert hits(events) == []
    assert not done(events).refusal
    assert any("greeting" in reason for reason in done(events).skipped)


# Time and cancellation ----------------------------------------------------------------------------


async def test_a_round_that_there_is_no_time_for_is_skipped_and_told(services: Services) -> None:
    slow = replace(services, paces=Paces())
    slow.paces.note("hop vector", 60.0)
    events = await ask(slow, QUESTION, call=Call(deadline=time.monotonic() + 30))
    assert any(reason.startswith("deep: search 2") for reason in done(events).skipped)
    (first,) = hops(events)
    assert first.decision == "no time before the deadline"


class Scripted:
    """A generator that says what the test wants, and the other models as they are."""

    def __init__(self, services: Services, *said: str | Exception) -> None:
        self._models = services.models
        self._said = list(said)
        self.params: list[GenerateParams] = []
        self.at_once = self.most_at_once = 0
        self.closed = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def generate(
        self, model: str, messages: Sequence[Message], params: GenerateParams, **_: object
    ) -> AsyncGenerator[Delta, None]:
        self.params.append(params)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if params == REWRITE:
            said = self._said[0]
        else:
            said = self._said[1] if params == DECOMPOSE else "Tin Radio is in Columbus."
        try:
            await asyncio.sleep(0.02)
            if isinstance(said, Exception):
                raise said
            if said == "for ever":
                await asyncio.sleep(600)
            yield Delta(said, "stop")
        finally:
            self.at_once -= 1
            self.closed += 1


async def test_a_client_that_goes_away_stops_the_round(services: Services) -> None:
    entered = asyncio.Event()
    ended = asyncio.Event()

    class Hanging:
        def __getattr__(self, name: str) -> Any:
            return getattr(services.models, name)

        async def embed(self, model: str, texts: list[str], kind: str, **_: object) -> Any:
            entered.set()
            try:
                await asyncio.sleep(600)
            finally:
                ended.set()
            return np.zeros((len(texts), 64), np.float32)

    work = asyncio.create_task(ask(replace(services, models=Hanging()), QUESTION))
    await entered.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert ended.is_set()


async def test_closing_the_events_between_two_rounds_ends_the_answer(services: Services) -> None:
    events = answer(
        services, AnswerRequest("town", QUESTION, Filter(access=ALL_ACCESS), effort="deep")
    )
    async for event in events:
        if isinstance(event, HopEvent):
            break
    await events.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(events)


# A capable generator ------------------------------------------------------------------------------

WRITTEN: dict[str, Any] = {"generator": "able", "generate": "auto"}
PARTS = '{"questions": ["Who published Grace Miller?", "Where is that publisher of Grace Miller?"]}'


async def test_a_capable_generator_rewrites_and_takes_apart_side_by_side(
    services: Services,
) -> None:
    script = Scripted(services, "Which house published the novel of Grace Miller?", PARTS)
    events = await ask(replace(services, models=script), QUESTION, **WRITTEN)
    asked = [(sought.why, sought.text) for sought in hops(events)[0].sought]
    assert asked == [
        ("the question", QUESTION),
        ("rewritten", "Which house published the novel of Grace Miller?"),
        ("a part of it", "Who published Grace Miller?"),
        ("a part of it", "Where is that publisher of Grace Miller?"),
    ]
    assert script.most_at_once == 2
    assert script.params[:2] == [REWRITE, DECOMPOSE]
    assert all((REWRITE.stop, DECOMPOSE.stop, DECOMPOSE.json_schema))


async def test_a_rewriting_that_loses_a_name_is_not_searched(services: Services) -> None:
    script = Scripted(services, "Which house published the first novel?", "[]")
    events = await ask(replace(services, models=script), QUESTION, **WRITTEN)
    assert [sought.why for sought in hops(events)[0].sought] == ["the question"]
    assert any(reason.startswith("rewrite: it lost") for reason in done(events).skipped)


@pytest.mark.parametrize("failure", [Overloaded("full"), "for ever"])
async def test_a_generator_that_fails_or_hangs_costs_the_rewriting_alone(
    services: Services, failure: Any
) -> None:
    script = Scripted(services, failure, PARTS)
    call = Call(deadline=time.monotonic() + 2.0)
    events = await ask(replace(services, models=script), QUESTION, **WRITTEN, call=call)
    assert any(reason.startswith("rewrite: able failed") for reason in done(events).skipped)
    assert "Grace Miller" in hits(events)
    assert script.closed == len(script.params)


async def test_a_generator_that_is_not_capable_is_not_asked(services: Services) -> None:
    for options in ({"generator": "talk"}, {"generator": "able", "generate": "none"}):
        script = Scripted(services, AssertionError("asked"), AssertionError("asked"))
        events = await ask(replace(services, models=script), QUESTION, **(WRITTEN | options))
        assert done(events)
        assert REWRITE not in script.params
        assert DECOMPOSE not in script.params


async def test_a_follow_up_is_rewritten_with_its_conversation(services: Services) -> None:
    script = Scripted(services, "In which city is the publisher of Grace Miller?", "{}")
    history = (Message("user", "Who is Grace Miller?"), Message("assistant", "A writer."))
    events = await ask(
        replace(services, models=script),
        "And in which city is her publisher?",
        **(WRITTEN | {"effort": "balanced"}),
        history=history,
    )
    (hop,) = hops(events)
    assert [sought.why for sought in hop.sought] == ["the question", "rewritten"]
    assert hop.sought[0].text.startswith("Who is Grace Miller?\n")
