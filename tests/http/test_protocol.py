"""Connections that send no request, or one whose head has no end, over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from headrace.http import protocol

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.2)
    await PlainTextResponse("done")(scope, receive, send)


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(slow, http=protocol.Protocol, log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        yield reader, writer
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        server.should_exit = True
        await serving


@pytest.mark.parametrize("sent", [b"", HEAD])
async def test_a_head_that_does_not_come_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    async with connection() as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionError):
            assert await reader.read() == b""


@pytest.mark.parametrize("line", [b"a" * 1000, b"X: " + b"a" * 1000 + b"\r\n"])
async def test_a_head_without_an_end_closes_the_connection(line: bytes) -> None:
    async def send_without_end() -> None:
        for _ in range(100_000):
            writer.write(line)
            await writer.drain()

    async with connection() as (_, writer):
        writer.write(HEAD + b"Y: ")
        with pytest.raises(ConnectionError):
            await send_without_end()


async def test_a_slow_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    async with connection() as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"\r\n")
            assert await reader.readuntil(b"done")
