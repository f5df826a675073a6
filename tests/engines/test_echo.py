"""The echo engine: what it promises to the tests that build on it."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.engines import machine
from headrace.engines.base import ModelSpec, pairs
from headrace.engines.echo import DIMENSIONS, EchoEngine
from headrace.errors import ConfigError, PromptTooLong
from headrace.types import Delta, GenerateParams, Message, Role


def loaded(source: str = "", **options: object) -> EchoEngine:
    engine = EchoEngine()
    engine.load(
        ModelSpec(
            name="echo",
            role=Role.GENERATOR,
            engine="echo",
            source=source,
            cache_dir="",
            options=dict(options),
        )
    )
    return engine


async def answer(engine: EchoEngine, text: str, **params: object) -> tuple[str, Delta]:
    messages = [Message(role="system", content="You help."), Message(role="user", content=text)]
    stream = engine.generate(messages, GenerateParams(**params))
    deltas = [delta async for delta in stream]
    return "".join(delta.text for delta in deltas), deltas[-1]


PROMPT = """Passages:
[1] Dogs must be kept on a leash. They must not bark at night.
[2] Cats may roam.

Question: may dogs roam?"""


async def test_it_cites_the_first_sentence_of_the_first_passage() -> None:
    text, last = await answer(loaded(), PROMPT)
    assert text == "Dogs must be kept on a leash. [1]"
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.completion_tokens == 11
    assert last.usage.prompt_tokens == sum(loaded().count(["You help.", PROMPT]))


async def test_chinese_passages_end_at_the_full_stop() -> None:
    text, _ = await answer(loaded(), "[1] 养犬应当登记。违者罚款。\n[2] 其他。\n\n问题：？")
    assert text == "养犬应当登记。 [1]"


async def test_the_title_line_of_a_passage_is_left_out() -> None:
    prompt = "[1] (Code (2024) › Dogs)\nDogs wear a leash. More.\n\n[2] (Cats)\nCats roam.\n"
    text, _ = await answer(loaded(), prompt)
    assert text == "Dogs wear a leash. [1]"


async def test_without_passages_it_repeats_the_question() -> None:
    text, _ = await answer(loaded(), "Hello there, world!")
    assert text == "Hello there, world!"


async def test_max_tokens_and_stop_strings() -> None:
    text, last = await answer(loaded(), "one two three four", max_tokens=2)
    assert (text, last.finish_reason) == ("one two", "length")
    text, last = await answer(loaded(), "one two three four", stop=("three",))
    assert (text.strip(), last.finish_reason) == ("one two", "stop")


async def test_a_prompt_beyond_the_context_is_refused() -> None:
    with pytest.raises(PromptTooLong):
        await answer(loaded(context=4), "one two three four five")


def test_similar_texts_have_similar_vectors() -> None:
    engine = loaded()
    vectors = engine.embed(
        ["the dog must be on a leash", "dogs must be kept on a leash", "股东会决议", "", "!?"],
        "passage",
    )
    assert vectors.shape == (5, DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-6)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
    np.testing.assert_array_equal(
        vectors[0], engine.embed(["the dog must be on a leash"], "query")[0]
    )


def test_score_orders_by_overlap_and_keeps_shape() -> None:
    scores = loaded().score(pairs("leash for dogs", ["dogs on a leash", "tax of the city", ""]))
    assert scores.shape == (3,)
    assert scores[0] > scores[1] >= scores[2]
    assert loaded().score(pairs("x", [])).shape == (0,)


def test_count_sees_chinese_characters_as_tokens() -> None:
    assert loaded().count(["第44条 abc, x", ""]) == [6, 0]


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(ConfigError, match="delay=SECONDS"):
        loaded("fast=1")


def test_only_what_changes_vectors_changes_the_fingerprint() -> None:
    def info(source: str) -> tuple[str, int]:
        made = EchoEngine().load(ModelSpec("echo", Role.EMBEDDER, "echo", source, ""))
        return made.fingerprint, made.dimensions

    assert info("") == info("delay=0.01") == ("echo-1:64", 64)
    assert info("dimensions=32") == info("delay=0,dimensions=32") == ("echo-1:32", 32)
    vectors = loaded("dimensions=32").embed(["a wheel"], "passage")
    assert vectors.shape == (1, 32)


@pytest.mark.parametrize("source", ["dimensions=0", ",dimensions=8", "dimensions=8,delay=x", "x"])
def test_settings_that_are_none(source: str) -> None:
    with pytest.raises(ConfigError, match="dimensions=N"):
        loaded(source)


def test_a_poisoned_text_fails_and_others_do_not() -> None:
    engine = loaded("poison=bane")
    assert engine.embed(["a wheel"], "query").shape == (1, 64)
    with pytest.raises(MemoryError):
        engine.embed(["a wheel", "its bane"], "query")


def test_it_holds_memory_until_it_is_unloaded() -> None:
    before = machine.resident_bytes()
    engine = loaded("memory=64")
    assert machine.resident_bytes() - before > 50 << 20
    engine.unload()
    machine.give_back()
    assert machine.resident_bytes() - before < 30 << 20
