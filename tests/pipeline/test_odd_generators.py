"""What a generator may do that is not a plain answer, in the whole pipeline."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from headrace.app import application
from headrace.config.model_options import DefaultModels, ModelOptions
from headrace.config.options import Config
from headrace.pipeline.answer import answer
from headrace.pipeline.plan import AnswerRequest
from headrace.pipeline.services import Services
from headrace.types import (
    ALL_ACCESS,
    Delta,
    DeltaEvent,
    DoneEvent,
    Event,
    Filter,
    GenerateParams,
    Message,
    QuoteEvent,
    Role,
    Usage,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

CODE = """# Municipal Code of Weirford

Article 1 Dogs shall be kept on a leash in public places. The fine is 150 crowns.

Article 2 The weekly market is held on the mill square on Saturdays from 7:00 to 13:00.

Article 3 No leash longer than 2 metres is used by a dog in public places.
"""
QUESTION = "Must dogs be kept on a leash in public places?"
LEASH = "Dogs shall be kept on a leash in public places."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "code.md").write_text(CODE)
    config = Config(
        data_dir=folder / "data",
        cache_dir=folder / "cache",
        models={
            "talk": ModelOptions(role=Role.GENERATOR, engine="echo"),
            "vector": ModelOptions(role=Role.EMBEDDER, engine="echo"),
        },
        defaults=DefaultModels(generator="talk", embedder="vector"),
    )
    async with application(config) as made:
        await made.jobs.run("town", [folder / "code.md"])
        yield made


class Says:
    """The models of `services`, with a generator that says `pieces`."""

    def __init__(self, services: Services, *pieces: str) -> None:
        self._models = services.models
        self._pieces = pieces
        self.prompts: list[Sequence[Message]] = []
        self.params = GenerateParams()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def generate(
        self, _: str, messages: Sequence[Message], params: GenerateParams, **__: object
    ) -> AsyncGenerator[Delta, None]:
        self.prompts.append(messages)
        self.params = params
        for piece in self._pieces:
            yield Delta(piece)
        yield Delta("", "stop", Usage(1, len(self._pieces)))


async def ask(
    services: Services, models: Says | None = None, question: str = QUESTION, **options: Any
) -> list[Event]:
    made = services if models is None else replace(services, models=models)  # type: ignore[arg-type]
    request = AnswerRequest("town", question, Filter(access=ALL_ACCESS), **options)
    async with aclosing(answer(made, request)) as events:
        return [event async for event in events]


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, DeltaEvent))


def numbers(events: Sequence[Event]) -> list[int]:
    return [event.quote.number for event in events if isinstance(event, QuoteEvent)]


def done(events: Sequence[Event]) -> DoneEvent:
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


@pytest.mark.parametrize("mode", ["annotate", "strict", "off"])
async def test_markers_that_stand_alone_are_not_shown(services: Services, mode: str) -> None:
    said = Says(services, f"{LEASH} [1]\n", "[7]\n", "The fine is 150 crowns.\n[12]")
    events = await ask(services, said, verification=mode)
    assert "150 crowns" in text(events)
    assert "[7]" not in text(events)
    assert "[12]" not in text(events)


@pytest.mark.parametrize("pieces", [(), ("",), ("\n\n",), ("[1]",), ("[1][2]\n[3]\n",)])
async def test_a_generator_that_says_nothing_leaves_the_word_to_quotations(
    services: Services, pieces: tuple[str, ...]
) -> None:
    events = await ask(services, Says(services, *pieces))
    assert numbers(events)
    assert text(events).startswith("“")


@pytest.mark.parametrize("verdict", ["The answer is no [3].", "No [3].", "No.", "答案是否定的。"])
async def test_a_bare_verdict_is_not_proved_by_its_word(services: Services, verdict: str) -> None:
    """A passage has `No`, and most words of the question."""
    events = await ask(services, Says(services, verdict))
    assert "[unsupported]" in text(events).splitlines()[0]
    assert numbers(events)


@pytest.mark.parametrize("most", [8_000, 8_190, 100_000, 2**31 - 1])
async def test_a_long_answer_leaves_room_for_the_passages(services: Services, most: int) -> None:
    said = Says(services, LEASH)
    await ask(services, said, max_tokens=most)
    assert LEASH in said.prompts[0][-1].content
    assert 4_096 < said.params.max_tokens <= 8_192  # the context that it shares with the prompt


async def test_without_room_for_a_passage_quotations_answer(services: Services) -> None:
    said = Says(services, "Dogs rule the town.")
    events = await ask(services, said, question=QUESTION + " Dogs" * 3_900)
    assert not said.prompts
    assert numbers(events)
    assert any("leaves no room for a passage" in what for what in done(events).skipped)


async def test_a_collection_keeps_its_embedder_under_a_configuration_without_it(
    services: Services,
) -> None:
    """A request goes on under the configuration that it began with, beside newer models."""
    other = ModelOptions(role=Role.EMBEDDER, engine="echo")
    config = services.config.model_copy(
        update={
            "models": {"talk": services.config.models["talk"], "other": other},
            "defaults": DefaultModels(generator="talk", embedder="other"),
        }
    )
    events = await ask(replace(services, config=config))
    assert numbers(events)
    assert not done(events).refusal
