"""Deadlines and lanes of requests, from the wire to the models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from http_app import connect

from headrace.config.options import ServerOptions
from headrace.errors import Overloaded
from headrace.pipeline.services import Services
from headrace.types import Call, Delta, Lane

EMBED = {"model": "echo-embedder", "input": "x"}
CHAT = {"model": "echo-generator", "messages": [{"role": "user", "content": "one two"}]}
ASK = {"model": "headrace/town", "messages": [{"role": "user", "content": "When is the market?"}]}
RAG = {"collection": "town", "question": "When does the weekly market open?"}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/embeddings": EMBED,
    "/v1/rerank": {"query": "x", "documents": ["y"]},
    "/v1/chat/completions": CHAT,
    "/api/collections/town/search": {"query": "market"},
    "/api/rag/chat": RAG,
}


class Models:
    """The models of `services`; remembers the calls, and hangs where it is told to."""

    def __init__(self, services: Services, hang: str = "", deltas: int = 0) -> None:
        self._models = services.models
        self._hang = hang
        self._deltas = deltas
        self.calls: list[Call] = []
        self.cancelled = 0
        self.hanging: asyncio.Queue[str] = asyncio.Queue()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def _do(self, verb: str, call: Call) -> None:
        self.calls.append(call)
        if self._hang == verb:
            self.hanging.put_nowait(verb)
            try:
                await asyncio.sleep(60)
            finally:
                self.cancelled += 1

    async def embed(self, *arguments: Any, call: Call) -> Any:
        await self._do("embed", call)
        return await self._models.embed(*arguments, call=call)

    async def score(self, *arguments: Any, call: Call) -> Any:
        await self._do("score", call)
        return await self._models.score(*arguments, call=call)

    async def generate(self, *arguments: Any, call: Call) -> AsyncGenerator[Delta, None]:
        for _ in range(self._deltas):
            yield Delta("one ")
        await self._do("generate", call)
        async for delta in self._models.generate(*arguments, call=call):
            yield delta


@pytest.fixture
def models(services: Services) -> Models:
    return Models(services)


@pytest.fixture
async def recording(services: Services, models: Models) -> AsyncIterator[httpx.AsyncClient]:
    async with connect(replace(services, models=models)) as client:  # type: ignore[arg-type]
        yield client


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_of_models_passes_deadline_and_lane(
    recording: httpx.AsyncClient, models: Models, path: str
) -> None:
    began = time.monotonic()
    headers = {"X-Deadline-Ms": "20000", "X-Lane": "bulk"}
    for body in (ROUTES[path], {**ROUTES[path], "deadline_ms": 50_000}):
        models.calls.clear()
        response = await recording.post(path, json=body, headers=headers)
        assert response.status_code == 200
        assert models.calls
        for call in models.calls:  # each has a share of the time
            assert call.lane is Lane.BULK
            assert call.deadline is not None
            assert began + 5 < call.deadline <= time.monotonic() + 20
    response = await recording.post(path, json={**ROUTES[path], "deadline_ms": 5000})
    deadline = models.calls[-1].deadline
    assert deadline is not None
    assert deadline <= time.monotonic() + 5
    assert models.calls[-1].lane is Lane.INTERACTIVE


async def test_without_a_deadline_the_servers_bound_counts(
    recording: httpx.AsyncClient, models: Models
) -> None:
    await recording.post("/v1/embeddings", json=EMBED)
    deadline = models.calls[0].deadline
    assert deadline is not None
    most = ServerOptions().max_deadline_ms / 1000
    assert time.monotonic() + most - 30 < deadline <= time.monotonic() + most


@pytest.mark.parametrize(
    ("headers", "body", "param"),
    [
        ({"X-Deadline-Ms": "soon"}, {}, "X-Deadline-Ms"),
        ({"X-Deadline-Ms": "0"}, {}, "X-Deadline-Ms"),
        ({"X-Deadline-Ms": "-5"}, {}, "X-Deadline-Ms"),
        ({"X-Deadline-Ms": "600001"}, {}, "X-Deadline-Ms"),
        ({"X-Deadline-Ms": "9" * 5000}, {}, "X-Deadline-Ms"),
        ({"X-Lane": "fast"}, {}, "X-Lane"),
        ({}, {"deadline_ms": 0}, "deadline_ms"),
        ({}, {"deadline_ms": 600_001}, "deadline_ms"),
        ({}, {"deadline_ms": "100"}, "deadline_ms"),
        ({}, {"deadline_ms": 1.5}, "deadline_ms"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/api/rag/chat"])
async def test_wrong_values_are_refused_by_name(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    body: dict[str, object],
    param: str,
    path: str,
) -> None:
    response = await client.post(path, json={**ROUTES[path], **body}, headers=headers)
    assert response.status_code == 422
    assert response.json()["error"]["param"] == param


async def test_many_texts_are_bulk_work_unless_the_lane_is_named(
    recording: httpx.AsyncClient, models: Models
) -> None:
    many = {**EMBED, "input": ["x"] * 33}
    await recording.post("/v1/embeddings", json=many)
    await recording.post("/v1/embeddings", json=many, headers={"X-Lane": "interactive"})
    await recording.post("/v1/rerank", json={"query": "x", "texts": ["y"] * 101})
    lanes = [call.lane for call in models.calls]
    assert lanes == [Lane.BULK, Lane.INTERACTIVE, Lane.BULK]


@pytest.mark.parametrize(
    ("hang", "path", "body"),
    [
        ("embed", "/v1/embeddings", EMBED),
        ("score", "/v1/rerank", ROUTES["/v1/rerank"]),
        ("generate", "/v1/chat/completions", CHAT),
        ("generate", "/v1/chat/completions", {**CHAT, "stream": True}),
    ],
)
async def test_past_the_deadline_it_is_504_and_the_work_is_cancelled(
    services: Services, hang: str, path: str, body: dict[str, object]
) -> None:
    models = Models(services, hang)
    async with connect(replace(services, models=models)) as client:  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            response = await client.post(path, json={**body, "deadline_ms": 60})
        assert response.status_code == 504
        assert response.json()["error"]["code"] == "deadline_exceeded"
        assert models.cancelled == 1
        assert (await client.get("/metrics")).text.count(
            "headrace_http_requests_in_progress 0.0"
        ) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/collections/town/search", {"query": "market"}),
        ("/v1/chat/completions", ASK),
        ("/api/rag/chat", RAG),
    ],
)
async def test_without_the_questions_vector_words_alone_are_searched_in_time(
    services: Services, path: str, body: dict[str, object]
) -> None:
    for model in services.models.names():
        await services.models.info(model)
    models = Models(services, "embed")
    async with connect(replace(services, models=models)) as client:  # type: ignore[arg-type]
        response = await client.post(path, json={**body, "deadline_ms": 2000})
    assert response.status_code == 200
    assert "searched by words alone" in response.text
    assert "market" in response.text
    assert models.cancelled == 1


async def test_past_the_deadline_a_stream_ends_with_an_error_event(services: Services) -> None:
    models = Models(services, "generate", deltas=2)
    async with connect(replace(services, models=models)) as client:  # type: ignore[arg-type]
        body = {**CHAT, "stream": True, "deadline_ms": 150}
        async with asyncio.timeout(20):
            response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    *_, last = (line for line in response.text.splitlines() if line)
    assert '"code":"deadline_exceeded"' in last
    assert response.text.count('"content":"one "') == 2
    assert models.cancelled == 1


async def test_an_answer_from_a_collection_comes_before_its_deadline(services: Services) -> None:
    models = Models(services, "generate")
    async with connect(replace(services, models=models)) as client:  # type: ignore[arg-type]
        body = {**ASK, "deadline_ms": 1500}
        response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["headrace"]["quotes"]
    assert "generate: cut at the deadline" in choice["message"]["headrace"]["skipped"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("many", [False, True])
async def test_a_full_queue_is_429_with_its_time_everywhere(
    services: Services, path: str, many: bool
) -> None:
    class Full(Models):
        async def _do(self, verb: str, call: Call) -> None:
            raise Overloaded("the queue is full", retry_after=3.2)

    body = ROUTES[path]
    if many and path == "/v1/embeddings":
        body = {**body, "input": ["x"] * 100}
    elif many and path == "/v1/rerank":
        body = {"query": "x", "texts": ["y"] * 200}
    elif many and path == "/v1/chat/completions":
        body = ASK
    full = Full(services)
    async with connect(replace(services, models=full)) as client:  # type: ignore[arg-type]
        response = await client.post(path, json=body)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "4"


async def test_bulk_requests_leave_places_to_people(services: Services) -> None:
    models = Models(services, "embed")
    server = ServerOptions(max_pending=4)
    config = services.config.model_copy(update={"server": server})
    slow = replace(services, models=models, config=config)  # type: ignore[arg-type]
    bulk = {"X-Lane": "bulk"}
    async with connect(slow) as client:
        tasks = [
            asyncio.create_task(client.post("/v1/embeddings", json=EMBED, headers=bulk))
            for _ in range(3)
        ]
        for _ in tasks:
            await models.hanging.get()
        refused = await client.post("/v1/embeddings", json=EMBED, headers=bulk)
        assert refused.status_code == 429
        assert "bulk" in refused.json()["error"]["message"]
        assert (await client.get("/v1/models")).status_code == 200
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def test_processes_share_the_places(services: Services) -> None:
    models = Models(services, "embed")
    server = ServerOptions(max_pending=4, processes=3)
    config = services.config.model_copy(update={"server": server})
    slow = replace(services, models=models, config=config)  # type: ignore[arg-type]
    async with connect(slow) as client:
        tasks = [asyncio.create_task(client.post("/v1/embeddings", json=EMBED)) for _ in range(2)]
        for _ in tasks:
            await models.hanging.get()
        assert (await client.get("/v1/models")).status_code == 429
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
