"""Remote models over a real socket."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import upstream as upstream_module
from upstream import KEY, Upstream

from headrace.engines.base import ModelInfo, ModelSpec, pairs
from headrace.engines.openai import OpenAIEngine
from headrace.errors import ConfigError, HeadraceError, Overloaded, PromptTooLong, UpstreamError
from headrace.types import Delta, GenerateParams, Message, Role, Usage


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with upstream_module.serving() as serving:
        yield serving


_loaded: list[OpenAIEngine] = []


@pytest.fixture(autouse=True)
def _unload() -> Iterator[None]:
    yield
    while _loaded:
        _loaded.pop().unload()


def load(
    url: str, role: Role = Role.GENERATOR, model: str = "good", **options: object
) -> tuple[OpenAIEngine, ModelInfo]:
    engine = OpenAIEngine()
    spec = ModelSpec(
        name="remote",
        role=role,
        engine="openai",
        source=url,
        cache_dir="",
        options={"upstream_model": model, "timeout_seconds": 5.0} | options,
    )
    info = engine.load(spec)
    _loaded.append(engine)
    return engine, info


async def ask(engine: OpenAIEngine, **params: object) -> tuple[str, Delta]:
    stream = engine.generate([Message(role="user", content="hello")], GenerateParams(**params))
    deltas = [delta async for delta in stream]
    return "".join(delta.text for delta in deltas), deltas[-1]


async def test_chat(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    engine, info = load(f"{upstream.url}/v1/", api_key_env="UPSTREAM_KEY", context=4096)
    assert info.context == 4096
    text, last = await ask(engine, temperature=0.5, top_p=0.9, seed=1, stop=("x",))
    assert text == "Bonjour 世界 !"
    assert last.finish_reason == "stop"
    assert last.usage == Usage(prompt_tokens=7, completion_tokens=3)
    path, body, authorization = upstream.calls[-1]
    assert path == "v1/chat/completions"
    assert authorization == f"Bearer {KEY}"
    assert (body["top_p"], body["seed"], body["stop"]) == (0.9, 1, ["x"])
    text, last = await ask(engine, max_tokens=1, json_schema='{"type": "object"}')
    assert (text, last.finish_reason) == ("Bonjour", "length")
    assert upstream.calls[-1][1]["response_format"]["json_schema"]["schema"] == {"type": "object"}


async def test_usage_is_zero_where_the_upstream_gives_none(upstream: Upstream) -> None:
    _, last = await ask(load(upstream.url, model="no-usage")[0])
    assert last.usage == Usage()


@pytest.mark.parametrize(
    ("model", "kind", "says"),
    [
        ("busy", Overloaded, "slow down"),
        ("too-long", PromptTooLong, "maximum context length"),
        ("denied", UpstreamError, r"401: bad key \*\*\* given"),
        ("down", UpstreamError, "503: upstream x+"),
        ("html", UpstreamError, "broke off"),
        ("broken-off", UpstreamError, "broke off"),
        ("no-json", UpstreamError, "not JSON"),
        ("error-inside", UpstreamError, r"500: out of memory \*\*\*"),
        ("strange", UpstreamError, "not a chat completion"),
    ],
)
async def test_faults_have_types_and_never_show_the_key(
    upstream: Upstream,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    kind: type[HeadraceError],
    says: str,
) -> None:
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    engine, _ = load(upstream.url, model=model, api_key_env="UPSTREAM_KEY")
    with pytest.raises(kind, match=says) as caught:
        await ask(engine)
    assert KEY not in str(caught.value)
    assert len(str(caught.value)) < 500
    if isinstance(caught.value, Overloaded):
        assert caught.value.retry_after == 7.0


async def test_leaving_the_stream_is_seen_upstream(upstream: Upstream) -> None:
    engine, _ = load(upstream.url, model="slow")
    before = upstream.left
    stream = engine.generate([Message(role="user", content="x")], GenerateParams())
    async for delta in stream:
        if delta.text:
            break
    await stream.aclose()
    for _ in range(100):
        if upstream.left > before:
            break
        await asyncio.sleep(0.02)
    assert upstream.left == before + 1


async def test_silence_and_nobody_there(upstream: Upstream) -> None:
    with pytest.raises(UpstreamError, match="timeout_seconds"):
        await ask(load(upstream.url, model="slow", timeout_seconds=0.3)[0])
    with pytest.raises(UpstreamError, match=r"at 127\.0\.0\.1:9/v1: cannot be reached"):
        await ask(load("http://name:secret@127.0.0.1:9/v1")[0])
    with pytest.raises(UpstreamError, match="cannot be reached"):
        load("http://127.0.0.1:9/v1", Role.EMBEDDER)


@pytest.mark.parametrize("model", ["packed", "floats"])
def test_embeddings(upstream: Upstream, model: str) -> None:
    engine, info = load(upstream.url, Role.EMBEDDER, model, query_prefix="q: ", max_tokens=64)
    assert info.dimensions == 3
    vectors = engine.embed(["ab", "c" * 1000, *["d"] * 40], "query")
    assert vectors.shape == (42, 3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(vectors[0] / vectors[0][1], np.array([5, 3, 4]) / 3, rtol=1e-5)
    sent = [body["input"] for path, body, _ in upstream.calls[-2:] if path == "embeddings"]
    assert [len(texts) for texts in sent] == [32, 10]
    assert sent[0][0] == "q: ab"
    assert len(sent[0][1]) == 64 * 3
    assert engine.embed([], "query").shape == (0, 3)


@pytest.mark.parametrize("shape", ["jina", "cohere", "tei"])
def test_rerank_shapes(upstream: Upstream, shape: str) -> None:
    engine, _ = load(upstream.url, Role.RERANKER, rerank_shape=shape)
    texts = ["a" * n for n in (3, 50, 20, *range(40))]
    scores = engine.score(pairs("query", texts))
    np.testing.assert_allclose(scores, [len(text) / 100 for text in texts], rtol=1e-6)
    body = upstream.calls[-1][1]
    assert ("texts" in body) == (shape == "tei")
    assert ("return_documents" in body) == (shape == "jina")
    assert engine.score(pairs("query", [])).shape == (0,)


@pytest.mark.parametrize("model", ["too-few", "not-finite", "html", "denied"])
def test_wrong_embeddings(upstream: Upstream, model: str) -> None:
    with pytest.raises(UpstreamError):
        load(upstream.url, Role.EMBEDDER, model)


def test_the_wrong_shape_of_rerank_is_named(upstream: Upstream) -> None:
    engine, _ = load(upstream.url, Role.RERANKER, model="html")
    with pytest.raises(UpstreamError, match="not JSON"):
        engine.score(pairs("q", ["a"]))


def test_a_key_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPSTREAM_KEY", raising=False)
    with pytest.raises(ConfigError, match="UPSTREAM_KEY"):
        load("http://127.0.0.1:9/v1", api_key_env="UPSTREAM_KEY")


def test_count_is_an_estimate_on_the_high_side() -> None:
    engine, _ = load("http://127.0.0.1:9/v1")
    assert engine.count(["", "abc", "abcd", "第四十四条 ab"]) == [0, 1, 2, 6]
