"""llama.cpp with the default generator."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headrace.config.model_options import default_models
from headrace.engines.base import ModelSpec
from headrace.engines.llamacpp import LlamaCppEngine
from headrace.errors import BadRequest, ConfigError, PromptTooLong
from headrace.types import Delta, GenerateParams, Message, Role

OPTIONS = default_models()["smollm2"].model_dump(mode="json") | {"threads": 2}


def spec(source: str, cache: Path, role: Role = Role.GENERATOR, **options: object) -> ModelSpec:
    return ModelSpec(
        name="small",
        role=role,
        engine="llamacpp",
        source=source,
        cache_dir=str(cache),
        options=OPTIONS | options,
    )


@pytest.fixture(scope="module")
def engine(model_cache: Path) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine()
    info = engine.load(spec(OPTIONS["source"], model_cache, context=2048, slots=2))
    assert info.context == 1024
    yield engine
    engine.unload()


async def ask(engine: LlamaCppEngine, text: str, **params: object) -> tuple[str, Delta]:
    messages = [Message(role="system", content="Be brief."), Message(role="user", content=text)]
    stream = engine.generate(messages, GenerateParams(**params))
    deltas = [delta async for delta in stream]
    assert all(delta.finish_reason is None for delta in deltas[:-1])
    return "".join(delta.text for delta in deltas), deltas[-1]


async def busy_seconds(seconds: float) -> float:
    before = psutil.Process().cpu_times().user
    await asyncio.sleep(seconds)
    return psutil.Process().cpu_times().user - before


async def idle() -> None:
    """Within the time that a batch may take on a busy machine; all 900 tokens take longer."""
    async with asyncio.timeout(30):
        while await busy_seconds(0.5) >= 0.2:
            pass


pytestmark = [pytest.mark.models, pytest.mark.slow]


async def test_it_streams_and_counts(engine: LlamaCppEngine) -> None:
    text, last = await ask(engine, "What is the capital of France?", max_tokens=40)
    assert "Paris" in text
    assert last.finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.prompt_tokens > 10
    assert 0 < last.usage.completion_tokens <= 40


async def test_the_cap_on_tokens_is_a_length_finish(engine: LlamaCppEngine) -> None:
    _, last = await ask(engine, "Tell a long story about rivers.", max_tokens=5)
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.usage.completion_tokens == 5


async def test_a_stop_string_ends_the_answer(engine: LlamaCppEngine) -> None:
    text, last = await ask(engine, "What is the capital of France?", stop=("France",))
    assert "France" not in text
    assert last.finish_reason == "stop"


async def test_json_schema_shapes_the_answer(engine: LlamaCppEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
    }
    text, _ = await ask(engine, "Name a city.", max_tokens=60, json_schema=json.dumps(schema))
    assert list(json.loads(text)) == ["city"]
    with pytest.raises(BadRequest):
        await ask(engine, "Name a city.", json_schema='{"type": "nonsense"}')
    with pytest.raises(BadRequest, match="not JSON"):
        await ask(engine, "Name a city.", json_schema="{")


async def test_answers_are_generated_side_by_side(engine: LlamaCppEngine) -> None:
    answers = await asyncio.gather(
        *[ask(engine, f"Write about the number {n}.", max_tokens=12) for n in range(5)]
    )
    assert [last.usage.completion_tokens for _, last in answers if last.usage] == [12] * 5


async def test_a_prompt_beyond_the_context_is_refused(engine: LlamaCppEngine) -> None:
    with pytest.raises(PromptTooLong, match="1024"):
        await ask(engine, "x y " * 2000)


async def test_leaving_the_stream_stops_the_token_loop(engine: LlamaCppEngine) -> None:
    stream = engine.generate(
        [Message(role="user", content="Tell a long story.")], GenerateParams(max_tokens=900)
    )
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()
    await idle()


async def test_cancelling_before_the_first_token_stops_the_prompt(engine: LlamaCppEngine) -> None:
    task = asyncio.create_task(ask(engine, "a b c " * 300, max_tokens=800))
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await idle()
    text, _ = await ask(engine, "What is the capital of France?", max_tokens=40)
    assert "Paris" in text


async def test_a_long_prompt_makes_a_step_for_every_batch(engine: LlamaCppEngine) -> None:
    before = engine.steps
    stream = engine.generate([Message("user", "one two " * 450)], GenerateParams(max_tokens=1))
    async with contextlib.aclosing(stream) as deltas:
        await anext(deltas)
    assert engine.steps - before > 1 + 900 // 512  # and the first token


def test_a_device_that_is_not_there(model_cache: Path) -> None:
    with pytest.raises(ConfigError, match="cuda:7"):
        LlamaCppEngine().load(spec(OPTIONS["source"], model_cache), "cuda:7")


def test_it_opens_no_port_and_a_private_socket(engine: LlamaCppEngine) -> None:
    connections = psutil.Process().net_connections("inet")
    assert [c for c in connections if c.status == psutil.CONN_LISTEN] == []
    assert engine._folder.stat().st_mode & 0o077 == 0


def test_it_counts_tokens(engine: LlamaCppEngine) -> None:
    assert engine.count(["hello world", "", "a\nb"]) == [2, 0, 3]


async def test_attention_is_computed_as_configured(model_cache: Path) -> None:
    said = {}
    for attention in ("auto", "flash", "plain"):
        engine = LlamaCppEngine()
        engine.load(spec(OPTIONS["source"], model_cache, context=1024, attention=attention))
        try:
            said[attention], last = await ask(engine, "What is the capital of France?")
        finally:
            engine.unload()
        assert last.usage is not None
        assert last.usage.completion_tokens > 3
    assert said["auto"] == said["flash"]  # on a processor; `plain` rounds otherwise
