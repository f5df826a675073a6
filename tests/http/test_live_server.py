"""Over a real socket: the openai client, and clients that go away."""

from __future__ import annotations

import asyncio
import base64
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from http_app import Live, live

from headrace.config.model_options import DefaultModels
from headrace.config.options import Config
from headrace.serving.models import Models
from headrace.types import Delta

QUESTION = [{"role": "user", "content": "When does the weekly market open?"}]
HELLO = [{"role": "user", "content": "one two three"}]


def config_over(data: Path, models: dict[str, object]) -> Config:
    defaults = DefaultModels(generator="echo-generator", embedder="echo-embedder")
    return Config(data_dir=data, models=models, defaults=defaults)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def server(filled_copy: Path, echo: dict[str, object]) -> Iterator[Live]:
    with live(config_over(filled_copy, echo)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_chat(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(model="echo-generator", messages=HELLO, max_tokens=2)  # type: ignore[arg-type]
    assert found.choices[0].message.content == "one two"
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert found.usage.total_tokens == 5


def test_chat_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="echo-generator",
            messages=HELLO,  # type: ignore[arg-type]
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(texts) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_cited_answer(client: openai.OpenAI) -> None:
    found = client.chat.completions.create(
        model="headrace/town",
        messages=QUESTION,  # type: ignore[arg-type]
        extra_body={"headrace": {"hits": 2}},
    )
    message = found.choices[0].message
    assert message.content is not None
    assert "[1]" in message.content
    extension = message.model_extra["headrace"]  # type: ignore[index]
    assert "six in the morning" in extension["quotes"][0]["text"]
    assert len(extension["hits"]) <= 2


def test_cited_stream(client: openai.OpenAI) -> None:
    text, extension = "", None
    stream = client.chat.completions.create(model="headrace/town", messages=QUESTION, stream=True)  # type: ignore[arg-type]
    for chunk in stream:
        text += chunk.choices[0].delta.content or ""
        extension = (chunk.model_extra or {}).get("headrace", extension)
    assert "[1]" in text
    assert extension is not None
    assert extension["quotes"][0]["number"] == 1


def test_embeddings(client: openai.OpenAI) -> None:
    by_default = client.embeddings.create(model="echo-embedder", input=["dogs", "markets"])
    as_numbers = client.embeddings.create(
        model="echo-embedder", input=["dogs", "markets"], encoding_format="float"
    )
    assert len(by_default.data) == 2
    for one, other in zip(by_default.data, as_numbers.data, strict=True):
        assert np.array_equal(np.float32(one.embedding), np.float32(other.embedding))
    coded = (
        client.embeddings.create(model="echo-embedder", input="dogs", encoding_format="base64")
        .data[0]
        .embedding
    )
    raw = np.frombuffer(base64.b64decode(str(coded)), "<f4") if isinstance(coded, str) else coded
    assert np.array_equal(np.float32(raw), np.float32(as_numbers.data[0].embedding))


def test_models(client: openai.OpenAI) -> None:
    assert {"headrace/town", "echo-generator"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("headrace/town").id == "headrace/town"


def test_errors_are_the_clients_own(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=HELLO)  # type: ignore[arg-type]
    assert unknown.value.code == "model_not_found"
    assert unknown.value.param == "model"
    with pytest.raises(openai.UnprocessableEntityError):
        client.chat.completions.create(model="echo-generator", messages=HELLO, max_tokens=-1)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="tools"):
        client.chat.completions.create(
            model="echo-generator",
            messages=HELLO,  # type: ignore[arg-type]
            tools=[{"type": "function", "function": {"name": "f"}}],
        )


# Clients that go away ----------------------------------------------------------------------------


class Watched:
    """Models that never finish, and tell when they began and when they were cancelled."""

    def __init__(self, models: Models, deltas: int) -> None:
        self._models = models
        self._deltas = deltas
        self.began = threading.Event()
        self.cancelled = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._models, name)

    async def _forever(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def generate(self, *arguments: object, **options: object) -> AsyncGenerator[Delta, None]:
        for _ in range(self._deltas):
            yield Delta("The weekly market opens at six in the morning [1]. ")
        await self._forever()
        yield Delta()

    async def score(self, *arguments: object, **options: object) -> object:
        await self._forever()


def watch(deltas: int) -> tuple[Callable[[Models], Models], list[Watched]]:
    made: list[Watched] = []

    def wrap(models: Models) -> Models:
        made.append(Watched(models, deltas))
        return made[0]  # type: ignore[return-value]

    return wrap, made


CHAT = "/v1/chat/completions"
LEAVING = {
    "plain": (CHAT, {"model": "echo-generator", "messages": HELLO}),
    "plain stream": (CHAT, {"model": "echo-generator", "messages": HELLO, "stream": True}),
    "cited": (CHAT, {"model": "headrace/town", "messages": QUESTION}),
    "cited stream": (CHAT, {"model": "headrace/town", "messages": QUESTION, "stream": True}),
    "rag": ("/api/rag/chat", {"collection": "town", "question": QUESTION[0]["content"]}),
    "rerank": ("/rerank", {"query": "x", "texts": ["a"]}),
}


@pytest.mark.parametrize("name", LEAVING)
@pytest.mark.parametrize("deltas", [0, 2])
def test_client_that_leaves_cancels_all_work(
    name: str, deltas: int, filled_copy: Path, echo: dict[str, object]
) -> None:
    """Before the first byte (no delta), and in the middle of a stream."""
    path, body = LEAVING[name]
    wrap, made = watch(deltas)
    with live(config_over(filled_copy, echo), wrap) as server:
        request = httpx.Request("POST", server.url + path, json=body)
        host, port = request.url.host, request.url.port
        assert port is not None
        with socket.create_connection((host, port)) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            connection.sendall(
                f"{head}Content-Length: {len(request.content)}\r\n\r\n".encode() + request.content
            )
            assert made[0].began.wait(20)
            if deltas and ("stream" in name or name == "rag"):
                assert b" 200 OK" in connection.recv(65536)
            assert not made[0].cancelled.is_set()
        assert made[0].cancelled.wait(20)
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_openai_client_raises_on_an_error_in_the_stream(
    filled_copy: Path, echo: dict[str, object]
) -> None:
    from headrace.errors import ModelFailed

    class Dies(Watched):
        async def _forever(self) -> None:
            raise ModelFailed("the worker died")

    with (
        live(
            config_over(filled_copy, echo),
            lambda models: Dies(models, 2),  # type: ignore[arg-type,return-value]
        ) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        for model, messages in (("echo-generator", HELLO), ("headrace/town", QUESTION)):
            stream = client.chat.completions.create(model=model, messages=messages, stream=True)  # type: ignore[arg-type]
            texts: list[str] = []
            with pytest.raises(openai.APIError, match="the worker died"):
                texts.extend(chunk.choices[0].delta.content or "" for chunk in stream)
            assert "six in the morning" in "".join(texts)
