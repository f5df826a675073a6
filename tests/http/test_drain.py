"""What a server that is told to end finishes, and what it tells the rest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from http_app import connect, eventually

from headrace.errors import HeadraceError, ShuttingDown
from headrace.http.app import create_app
from headrace.http.drain import Drain
from headrace.pipeline.services import Services
from headrace.types import Delta, Usage

CHAT = {"model": "echo-generator", "messages": [{"role": "user", "content": "one two"}]}


class Request:
    def __init__(self, *, idle: bool = False) -> None:
        self.idle = idle
        self.ended: list[HeadraceError] = []

    def end(self, error: HeadraceError) -> None:
        self.ended.append(error)


def test_those_that_only_wait_end_first() -> None:
    drain, working, waiting = Drain(), Request(), Request(idle=True)
    drain.check()
    drain.add(working)
    drain.add(waiting)
    drain.begin()
    with pytest.raises(ShuttingDown):
        drain.check()
    assert (len(working.ended), len(waiting.ended)) == (0, 1)
    drain.remove(waiting)
    assert not drain.empty
    drain.expire()
    assert [type(error) for error in working.ended] == [ShuttingDown]
    drain.remove(working)
    assert drain.empty


class Slow:
    """A generator that says one word, and the next when it may."""

    def __init__(self, services: Services) -> None:
        self._models = services.models
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def generate(self, *_: object, **__: object) -> AsyncGenerator[Delta, None]:
        yield Delta("one ")
        self.began.set()
        await self.go_on.wait()
        yield Delta("two")
        yield Delta(finish_reason="stop", usage=Usage(1, 2))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("in_time", [True, False])
async def test_running_answers_go_on_for_a_while(
    services: Services, stream: bool, in_time: bool
) -> None:
    slow = Slow(services)
    app = create_app(replace(services, models=slow))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        body = {**CHAT, "stream": stream}
        running = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await slow.began.wait()
        app.state.drain.begin()
        refused = await client.post("/v1/chat/completions", json=body)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "shutting_down"
        assert refused.headers["connection"] == "close"
        assert int(refused.headers["retry-after"]) >= 1
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["problems"] == ["the server is shutting down"]
        assert (await client.get("/healthz")).status_code == 200
        assert not app.state.drain.empty
        (slow.go_on.set if in_time else app.state.drain.expire)()
        async with asyncio.timeout(20):
            response = await running
        assert app.state.drain.empty
    if in_time:
        assert response.status_code == 200
        assert "shutting_down" not in response.text
    elif stream:
        assert response.status_code == 200
        assert '"content":"one "' in response.text
        assert '"code":"shutting_down"' in response.text.strip().splitlines()[-1]
    else:
        assert response.status_code == 503
        assert response.json()["error"]["code"] == "shutting_down"


async def test_a_held_session_does_not_keep_the_server(services: Services) -> None:
    async with connect(services) as client:
        body = {"owner": "ann", "collections": ["town"]}
        opened = (await client.post("/api/sessions", json=body)).json()["sessions"][0]
        app = client._transport.app  # type: ignore[attr-defined]
        held = asyncio.create_task(client.get(f"/api/sessions/{opened['id']}/hold"))
        await eventually(lambda: not app.state.drain.empty)
        await asyncio.sleep(0.05)  # the stream has begun
        app.state.drain.begin()
        async with asyncio.timeout(20):
            response = await held
        assert "shutting_down" in response.text
        assert app.state.drain.empty
