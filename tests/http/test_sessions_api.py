"""Sessions over HTTP: who may open, use and see them, and what ends them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_app import Live, connect, live

from headrace.config.model_options import DefaultModels
from headrace.config.options import Config, ServerOptions, SessionOptions
from headrace.pipeline.services import Services

ASK = {"model": "headrace/town", "messages": [{"role": "user", "content": "When is the market?"}]}
USES: dict[str, dict[str, Any]] = {
    "/api/collections/town/search": {"query": "market"},
    "/api/rag/chat": {"collection": "town", "question": "When does the market open?"},
    "/v1/chat/completions": ASK,
    "/v1/embeddings": {"model": "echo-embedder", "input": "x"},
    "/v1/rerank": {"query": "x", "documents": ["y"]},
}


async def opened(client: httpx.AsyncClient, **more: object) -> httpx.Response:
    return await client.post(
        "/api/sessions", json={"owner": "ann", "collections": ["town"], **more}
    )


async def one(client: httpx.AsyncClient, **more: object) -> str:
    response = await opened(client, **more)
    assert response.status_code == 201, response.text
    session: str = response.json()["sessions"][0]["id"]
    return session


async def test_a_sessions_life(client: httpx.AsyncClient) -> None:
    made = (await opened(client, count=3, ttl_seconds=50)).json()["sessions"]
    assert len({session["id"] for session in made}) == 3
    id = made[0]["id"]
    assert (await client.get("/api/sessions?owner=ann")).json()["sessions"][0]["id"] == id
    assert (await client.get("/api/sessions?owner=bob")).json() == {"sessions": []}
    renewed = await client.post(f"/api/sessions/{id}/renew", json={"ttl_seconds": 90})
    assert renewed.json()["expires_in_seconds"] == 90
    assert (await client.post(f"/api/sessions/{id}/renew")).json()["ttl_seconds"] == 90
    assert (await client.delete(f"/api/sessions/{id}")).status_code == 200
    gone = await client.get(f"/api/sessions/{id}")
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "session_not_found"
    assert "renew" in gone.json()["error"]["message"]
    assert len((await client.get("/api/sessions")).json()["sessions"]) == 2


@pytest.mark.parametrize("path", USES)
async def test_each_use_counts_by_header_and_by_field(client: httpx.AsyncClient, path: str) -> None:
    id = await one(client)
    body = USES[path]
    assert (await client.post(path, json=body, headers={"X-Session": id})).status_code == 200
    assert (await client.post(path, json={**body, "session": id})).status_code == 200
    assert (await client.get(f"/api/sessions/{id}")).json()["requests"] == 2
    unknown = await client.post(path, json=body, headers={"X-Session": "nobody"})
    assert unknown.status_code == 404
    assert unknown.json()["error"]["param"] == "session"
    both = await client.post(path, json={**body, "session": id}, headers={"X-Session": "other"})
    assert both.status_code == 422


@pytest.mark.parametrize("path", list(USES)[:3])
async def test_another_collection_is_forbidden(services: Services, path: str) -> None:
    info = await services.models.info("echo-embedder")
    await asyncio.to_thread(services.collections.create, "harbour", "echo-embedder", info)
    async with connect(services) as client:
        id = await one(client, collections=["harbour"])
        response = await client.post(path, json=USES[path], headers={"X-Session": id})
    assert response.status_code == 403
    assert "harbour" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"owner": ""}, 422, "owner"),
        ({"collections": []}, 422, "collections"),
        ({"collections": ["nowhere"]}, 404, "collection"),
        ({"count": 0}, 422, "count"),
        ({"count": 17}, 422, "count"),
        ({"ttl_seconds": 0}, 422, "ttl_seconds"),
        ({"ttl_seconds": 1e9}, 422, "ttl_seconds"),
        ({"owner_pid": 2**31 - 1}, 422, "owner_pid"),
        ({"ttl": 5}, 422, "ttl"),
    ],
)
async def test_wrong_wishes_are_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, object], status: int, param: str
) -> None:
    response = await opened(client, **body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)
    assert (await client.get("/api/sessions")).json() == {"sessions": []}


async def test_the_owners_limit_is_429_with_who_holds_how_many(client: httpx.AsyncClient) -> None:
    await opened(client, count=15)
    full = await opened(client, count=2)
    assert full.status_code == 429
    assert int(full.headers["retry-after"]) >= 1
    assert "'ann' holds 15 sessions" in full.json()["error"]["message"]
    assert len((await client.get("/api/sessions")).json()["sessions"]) == 15
    assert (await opened(client, owner="bob", count=2)).status_code == 201


async def test_an_owner_on_this_machine_gives_its_process(services: Services) -> None:
    async with connect(services) as client:
        assert (await opened(client, owner_pid=os.getpid())).status_code == 201
    transport = httpx.ASGITransport(
        client_app(services), raise_app_exceptions=False, client=("203.0.113.9", 5)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as stranger:
        assert (await opened(stranger, owner_pid=os.getpid())).status_code == 403


def client_app(services: Services) -> Any:
    from headrace.http.app import create_app

    return create_app(services)


async def test_a_session_never_widens_access(keyed: Services) -> None:
    reader = {"authorization": "Bearer reader-secret"}
    owner = {"authorization": "Bearer owner-secret"}
    question = {"query": "director of the market earns"}

    async def sources(client: httpx.AsyncClient, id: str) -> set[str]:
        response = await client.post(
            "/api/collections/town/search", json=question, headers={**owner, "X-Session": id}
        )
        return {Path(hit["source"]).name for hit in response.json()["hits"]}

    async with connect(keyed) as client:
        client.headers.update(owner)
        assert "salaries.md" in await sources(client, await one(client))
        assert "salaries.md" not in await sources(client, await one(client, access=["public"]))
        client.headers.update(reader)
        wide = await opened(client, access=["*"])
        assert wide.json()["sessions"][0]["access"] == ["public"]
        narrow = await opened(client, access=["hr"])
        assert narrow.json()["sessions"][0]["access"] == []


async def test_another_keys_sessions_do_not_exist(keyed: Services) -> None:
    async with connect(keyed) as client:
        client.headers["authorization"] = "Bearer owner-secret"
        id = await one(client)
        client.headers["authorization"] = "Bearer reader-secret"
        assert (await client.get("/api/sessions")).json() == {"sessions": []}
        for response in (
            await client.get(f"/api/sessions/{id}"),
            await client.delete(f"/api/sessions/{id}"),
            await client.post(f"/api/sessions/{id}/renew"),
            await client.post("/v1/embeddings", json=USES["/v1/embeddings"] | {"session": id}),
            await client.get(f"/api/sessions/{id}/hold"),
        ):
            assert response.status_code == 404


# Over a real socket ------------------------------------------------------------------------------


@pytest.fixture
def server(
    filled_copy: Path, echo: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Live]:
    monkeypatch.setattr("headrace.serving.session_table.GRACE_SECONDS", 0.2)
    config = Config(
        data_dir=filled_copy,
        models=echo,
        defaults=DefaultModels(generator="echo-generator", embedder="echo-embedder"),
        server=ServerOptions(
            heartbeat_seconds=0.05, max_pending=2, sessions=SessionOptions(ttl_seconds=0.5)
        ),
    )
    with live(config) as running:
        yield running


async def test_a_held_session_lives_as_long_as_its_connection(server: Live) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        ids = [await one(client) for _ in range(3)]
        async with asyncio.TaskGroup() as group:  # more than server.max_pending admits
            for id in ids:
                group.create_task(hold(client, id, beats=16))
        for id in ids:
            shown = await client.get(f"/api/sessions/{id}")
            assert shown.status_code == 200, "held for longer than its ttl"
        async with asyncio.timeout(20):
            while (await client.get("/api/sessions")).json()["sessions"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def hold(client: httpx.AsyncClient, id: str, beats: int) -> None:
    async with client.stream("GET", f"/api/sessions/{id}/hold") as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            beats -= line.startswith("data: ")
            if beats == 0:
                return
    raise AssertionError("the stream ended")


async def test_a_session_that_ends_ends_its_hold(server: Live) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=20) as client:
        id = await one(client)
        async with client.stream("GET", f"/api/sessions/{id}/hold") as response:
            lines = response.aiter_lines()
            assert await anext(lines) == "event: session"
            await client.delete(f"/api/sessions/{id}")
            rest = [line async for line in lines]
        assert "event: error" in rest
        assert "session_not_found" in rest[-2]
