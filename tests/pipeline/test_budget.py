"""What an answer leaves out for its deadline: by the rules, then over a real index."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.app import application
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.errors import DeadlineExceeded
from headrace.pipeline.answer import answer
from headrace.pipeline.budget import Allowance, Budget, until
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.serving.paces import ENOUGH, Paces
from headrace.types import (
    ALL_ACCESS,
    USER,
    Call,
    Delta,
    DeltaEvent,
    DoneEvent,
    Event,
    Filter,
    HitsEvent,
    Message,
    QuoteEvent,
    Role,
    Usage,
)

CODE = """# Municipal Code

## Dogs

Dogs shall be kept on a leash in public places. The fine is 150 crowns.

## Markets

The weekly market is held on the mill square on Saturdays from 7:00 to 13:00.
"""
QUESTION = "Must dogs be kept on a leash in public places?"


def soon(seconds: float) -> Call:
    return Call(deadline=time.monotonic() + seconds)


# The rules ----------------------------------------------------------------------------------------


def seen(**values: float) -> Paces:
    """Paces of a prompt of 1,000 tokens, and of 20 texts compared for quotes."""
    paces = Paces()
    sizes = {"first_token": 1000, "quote": 20}
    for what, seconds in values.items():
        model = "" if what == "finish" else " e" if what == "quote" else " m"
        for _ in range(ENOUGH + 1):
            paces.note(f"{what}{model}", seconds, sizes.get(what, 1))
    return paces


def allow(paces: Paces, max_tokens: int = 100, *, seconds: float = 10) -> Allowance:
    budget = Budget(soon(seconds), paces)
    return budget.allow("m", max_tokens, 1000, budget.writing("e", 20))


def test_without_a_deadline_nothing_is_left_out() -> None:
    budget = Budget(USER, seen(first_token=1e6, quote=1e6))
    assert budget.writing("e", 20) is USER
    assert budget.allow("m", 100, 1000, USER) == (100, 1000, ())
    assert budget.compare("e", 20) == (20, None, "")


def test_what_is_not_known_is_tried() -> None:
    assert allow(Paces()) == (100, 1000, ())
    assert Budget(soon(10), Paces()).compare("e", 20).texts == 20


def test_the_answers_length_fits_the_time_left() -> None:
    paces = seen(first_token=1.0, token=0.1, quote=4.0)
    allowed = allow(paces)  # (10 - 4 - 1) / 0.1
    assert 45 <= allowed.max_tokens <= 50
    assert allowed.prompt_tokens == 1000
    assert "of 100 tokens" in allowed.skipped[0]
    assert allow(paces, 20) == (20, 1000, ())


def test_the_steps_come_in_order_as_the_time_gets_shorter() -> None:
    paces = seen(first_token=4.0, token=0.02, quote=0.2, finish=0.01)
    steps = [allow(paces, seconds=seconds) for seconds in (8.0, 5.5, 4.2, 2.5, 0.8)]
    assert steps[0] == (100, 1000, ())
    assert 32 < steps[1].max_tokens < 100
    assert steps[1].prompt_tokens == 1000
    for step in steps[2:4]:  # a sentence about fewer passages
        assert step.max_tokens == 32
        assert 192 <= step.prompt_tokens < 1000
        assert [what.split(":")[0] for what in step.skipped] == ["generate", "prompt"]
    assert steps[3].prompt_tokens < steps[2].prompt_tokens
    assert steps[4].max_tokens == 0
    assert steps[4].skipped[0].startswith("generate: ")


def test_a_generator_that_says_nothing_in_time_is_not_asked() -> None:
    for first, each in ((90.0, 0.001), (1.0, 8.0)):
        allowed = allow(seen(first_token=first, token=each))
        assert allowed.max_tokens == 0
        assert allowed.skipped[0].startswith("generate: ")


def test_quotations_are_compared_as_far_as_there_is_time() -> None:
    paces = seen(quote=2.0, finish=0.01)
    whole, some, none = (Budget(soon(s), paces).compare("e", 20) for s in (4.0, 1.0, 0.2))
    assert whole.texts == 20
    assert not whole.skipped
    assert 5 <= some.texts <= 10
    assert f"{some.texts} of 20 pieces" in some.skipped
    assert none.texts == 0
    assert "by words alone" in none.skipped
    assert whole.until is not None


async def test_items_stop_at_the_deadline_with_what_makes_them() -> None:
    closed = False

    async def items() -> AsyncGenerator[int, None]:
        nonlocal closed
        try:
            yield 1
            yield 2
            await asyncio.sleep(60)
        finally:
            closed = True

    async with aclosing(until(time.monotonic() + 0.05, items())) as limited:
        assert [await anext(limited), await anext(limited)] == [1, 2]
        with pytest.raises(TimeoutError):
            await anext(limited)
        assert closed


# Over a real index --------------------------------------------------------------------------------


def config(folder: Path, talk: str = "", order: str = "") -> Config:
    return Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={
            "talk": ModelOptions(role=Role.GENERATOR, engine="echo", source=talk),
            "vector": ModelOptions(role=Role.EMBEDDER, engine="echo"),
            "order": ModelOptions(role=Role.RERANKER, engine="echo", source=order),
        },
        defaults=DefaultModels(generator="talk", embedder="vector", reranker="order"),
    )


class Recorded:
    """The models of `services`, which remember for whom they were called."""

    def __init__(self, services: Services) -> None:
        self._models = services.models
        self.calls: list[tuple[str, Call]] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._models, name)
        if name not in ("embed", "score", "generate"):
            return found

        def called(model: str, *arguments: Any, **options: Any) -> Any:
            self.calls.append((model, options["call"]))
            return found(model, *arguments, **options)

        return called


async def ask(services: Services, seconds: float | None = None) -> list[Event]:
    call = USER if seconds is None else soon(seconds)
    request = AnswerRequest("town", QUESTION, Filter(access=ALL_ACCESS), call=call)
    async with asyncio.timeout(30), aclosing(answer(services, request)) as events:
        return [event async for event in events]


def done(events: list[Event]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent), events[-1]
    return events[-1]


def skipped(events: list[Event], stage: str) -> str:
    return "; ".join(item for item in done(events).skipped if item.startswith(stage))


async def filled(services: Services, folder: Path) -> Services:
    (folder / "code.md").write_text(CODE)
    await services.jobs.run("town", [folder / "code.md"])
    return services


async def test_each_call_says_what_its_run_needs_next(tmp_path: Path) -> None:
    async with application(config(tmp_path)) as made:
        services = await filled(made, tmp_path)
        models = Recorded(services)
        recorded = replace(services, models=models)  # type: ignore[arg-type]
        await ask(recorded, 60)
        assert [(model, call.then) for model, call in models.calls] == [
            ("vector", ("order", "talk")),
            ("order", ("talk",)),
            ("talk", ()),
        ]
        (cycle,) = {call.cycle for _, call in models.calls}
        assert cycle
        assert all(call.deadline is not None for _, call in models.calls)
        models.calls.clear()
        await ask(recorded)
        assert models.calls[0][1].cycle not in ("", cycle)
        assert all(call.deadline is None for _, call in models.calls)


async def test_enough_time_leaves_nothing_out(tmp_path: Path) -> None:
    async with application(config(tmp_path)) as made:
        events = await ask(await filled(made, tmp_path), 60)
        assert done(events).skipped == ()
        assert "rerank" in next(e for e in events if isinstance(e, HitsEvent)).hits[0].scores


async def test_a_reranker_that_is_too_slow_is_given_up_then_left_out(tmp_path: Path) -> None:
    async with application(config(tmp_path, order="delay=2")) as made:
        services = await filled(made, tmp_path)
        for reason in ("given up", "no time"):
            events = await ask(services, 1.5)
            assert reason in skipped(events, "rerank")
            assert "leash" in "".join(e.text for e in events if isinstance(e, DeltaEvent))
            hits = next(event for event in events if isinstance(event, HitsEvent)).hits
            assert hits
            assert "rerank" not in hits[0].scores


async def test_a_generator_that_is_too_slow_leaves_quotations_next_time_at_once(
    tmp_path: Path,
) -> None:
    async with application(config(tmp_path, talk="delay=5")) as made:
        services = await filled(made, tmp_path)
        await services.models.info("talk")
        cut = await ask(services, 1.0)
        assert "cut at the deadline" in skipped(cut, "generate")
        assert done(cut).finish_reason == "length"
        foreseen = await ask(services, 0.3)
        assert "its first token takes" in skipped(foreseen, "generate")
        for events in (cut, foreseen):
            assert any(isinstance(event, QuoteEvent) for event in events)
            assert not done(events).refusal


async def test_an_answer_that_is_cut_ends_with_its_last_checked_sentence(tmp_path: Path) -> None:
    async with application(config(tmp_path)) as made:
        services = await filled(made, tmp_path)
        for model in services.models.names():
            await services.models.info(model)

        class Slow:
            closed = False

            def __getattr__(self, name: str) -> Any:
                return getattr(services.models, name)

            async def generate(
                self, model: str, messages: list[Message], *_: object, **__: object
            ) -> AsyncGenerator[Delta, None]:
                try:
                    yield Delta("Dogs shall be kept on a leash in public places [1]. ")
                    yield Delta("The fine is ")
                    await asyncio.sleep(60)
                    yield Delta(finish_reason="stop", usage=Usage(1, 1))
                finally:
                    self.closed = True

        slow = Slow()
        events = await ask(replace(services, models=slow), 2.0)  # type: ignore[arg-type]
        text = "".join(event.text for event in events if isinstance(event, DeltaEvent))
        assert text.strip() == "Dogs shall be kept on a leash in public places [1]."
        assert done(events).finish_reason == "length"
        assert done(events).usage.completion_tokens == 2
        assert done(events).usage.prompt_tokens > 20
        assert skipped(events, "generate") == "generate: cut at the deadline"
        assert slow.closed


async def test_tokens_that_cannot_be_counted_in_time_keep_no_answer_waiting(
    tmp_path: Path,
) -> None:
    """The generator was stopped after its sentences, and what counts its tokens is busy."""
    async with application(config(tmp_path)) as made:
        services = await filled(made, tmp_path)
        for model in services.models.names():
            await services.models.info(model)

        class Busy:
            counts = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(services.models, name)

            async def count(self, model: str, texts: list[str], *, call: Call) -> list[int]:
                self.counts += 1
                if self.counts == 1:  # the prompt's
                    return await services.models.count(model, texts, call=call)
                try:
                    async with asyncio.timeout_at(call.deadline):
                        await asyncio.sleep(60)
                except TimeoutError as error:
                    raise DeadlineExceeded("not counted") from error
                return []

            async def generate(
                self, model: str, messages: list[Message], *_: object, **__: object
            ) -> AsyncGenerator[Delta, None]:
                yield Delta("Dogs shall be kept on a leash ")
                yield Delta("in public places [1]. And ")
                yield Delta("so on.")

        busy = Busy()
        options = services.config.answer.model_copy(update={"max_sentences": 1})
        short = services.config.model_copy(update={"answer": options})
        events = await ask(replace(services, models=busy, config=short), 2.0)  # type: ignore[arg-type]
        assert busy.counts == 2
        assert done(events).usage.completion_tokens == 2
        assert done(events).usage.prompt_tokens > 20


async def test_where_every_model_is_too_slow_words_alone_answer_and_each_step_is_told(
    tmp_path: Path,
) -> None:
    made = config(tmp_path, talk="delay=60")
    vector = ModelOptions(role=Role.EMBEDDER, engine="echo", source="delay=3")
    made = made.model_copy(update={"models": {**made.models, "vector": vector}})
    async with application(made) as services:
        await filled(services, tmp_path)
        for model in services.models.names():
            await services.models.info(model)
        events = await ask(services, 2.0)
        assert "searched by words alone" in skipped(events, "embed")
        assert "cut at the deadline" in skipped(events, "generate")
        assert "words alone" in skipped(events, "quote")
        assert any("leash" in e.quote.text for e in events if isinstance(e, QuoteEvent))
        assert not done(events).refusal


async def test_an_embedder_that_is_not_there_yet_is_not_waited_for(tmp_path: Path) -> None:
    made = config(tmp_path)
    async with application(made) as services:
        await filled(services, tmp_path)
    cold = ModelOptions(role=Role.EMBEDDER, engine="echo", source="load=60")
    made = made.model_copy(
        update={
            "models": {**made.models, "vector": cold},
            "defaults": DefaultModels(generator=None, embedder="vector"),
        }
    )
    async with application(made) as services:
        events = await ask(services, 2.0)
        assert "given up for the deadline, searched by words alone" in skipped(events, "embed")
        assert any("leash" in e.quote.text for e in events if isinstance(e, QuoteEvent))


async def test_what_a_stopped_generator_used_is_not_waited_for(tmp_path: Path) -> None:
    async with application(config(tmp_path)) as services:
        await filled(services, tmp_path)
        for model in services.models.names():
            await services.models.info(model)

        class Round:
            counted = 0

            def __getattr__(self, name: str) -> Any:
                return getattr(services.models, name)

            async def count(self, model: str, texts: list[str], *, call: Call) -> list[int]:
                self.counted += 1
                if self.counted > 1:  # not the prompt, but what was written
                    call = msgspec.structs.replace(call, deadline=time.monotonic())
                return await services.models.count(model, texts, call=call)

            async def generate(self, *_: object, **__: object) -> AsyncGenerator[Delta, None]:
                while True:
                    yield Delta("Dogs shall be kept on a leash in public places [1]. ")

        models = Round()
        events = await ask(replace(services, models=models), 2.0)  # type: ignore[arg-type]
        assert models.counted == 2
        assert done(events).usage.prompt_tokens > 20
        assert done(events).usage.completion_tokens >= 2
        assert "repeated itself" in skipped(events, "generate")
