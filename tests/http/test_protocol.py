"""Connections that send no request, send one without an end, or do not take its answer, over a real
socket."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest
import uvicorn
from http_app import eventually
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from headrace.config.options import ServerOptions
from headrace.http import protocol

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
LARGE = 32 * 1024 * 1024


async def slow(scope: Scope, receive: Receive, send: Send) -> None:
    await asyncio.sleep(0.2)
    await PlainTextResponse("done")(scope, receive, send)


async def large(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(b"x" * LARGE)(scope, receive, send)


@asynccontextmanager
async def serving(app: object = slow, **options: object) -> AsyncIterator[uvicorn.Server]:
    bounded = protocol.Protocol.bounded(ServerOptions.model_validate(options))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(app, http=bounded, log_config=None, lifespan="off")  # type: ignore[arg-type]
        config.timeout_graceful_shutdown = 2
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve([listener]))
        await eventually(lambda: server.started)
        yield server
        server.should_exit = True
        await task


async def connect(server: uvicorn.Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with serving() as server:
        reader, writer = await connect(server)
        yield reader, writer
        await leave(writer)


async def until_empty(server: uvicorn.Server) -> None:
    await eventually(lambda: not (server.server_state.connections or server.server_state.tasks))


@pytest.mark.parametrize("sent", [b"", HEAD])
async def test_a_head_that_does_not_come_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
    async with connection() as (reader, writer):
        writer.write(sent)
        with suppress(ConnectionError):
            assert await reader.read() == b""


async def test_what_is_no_request_does_not_keep_an_idle_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with connection() as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert await reader.readuntil(b"done")
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)
        writer.write(b"\r\n")  # a parser skips it, and takes it for a sign of life
        async with asyncio.timeout(4):  # less than uvicorn's own timeout, which is off now
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


@pytest.mark.parametrize("more", [b"", b"Connection: close\r\n"])
async def test_an_answer_that_is_not_taken_is_thrown_away(more: bytes) -> None:
    async with serving(large, stall_seconds=0.1) as server:
        _, writer = await connect(server)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(HEAD + more + b"\r\n")
        await eventually(lambda: server.server_state.total_requests)
        await until_empty(server)
        await leave(writer)


async def test_an_answer_that_is_taken_slowly_arrives() -> None:
    async with serving(large, stall_seconds=0.1) as server:
        reader, writer = await connect(server)
        writer.write(HEAD + b"Connection: close\r\n\r\n")
        read = 0
        while piece := await reader.read(LARGE // 8):
            read += len(piece)
            await asyncio.sleep(0.002)
        assert read > LARGE
        await leave(writer)


async def test_beyond_the_limit_connections_are_closed_and_it_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(protocol, "_full", protocol._Full())
    async with serving(max_connections=2) as server:
        kept = [await connect(server) for _ in range(2)]
        for reader, writer in kept:
            writer.write(HEAD + b"\r\n")
            assert await reader.readuntil(b"done")
        for _ in range(20):
            reader, writer = await connect(server)
            assert (await reader.read()).startswith(b"HTTP/1.1 503")
            await leave(writer)
        kept[0][1].write(HEAD + b"\r\n")
        assert await kept[0][0].readuntil(b"done")
        await leave(kept.pop()[1])
        await eventually(lambda: len(server.server_state.connections) == 1)
        reader, writer = await connect(server)
        writer.write(HEAD + b"\r\n")
        assert await reader.readuntil(b"done")
        await leave(writer)
        await leave(kept.pop()[1])
    told = [record for record in caplog.records if "max_connections" in record.getMessage()]
    assert [record.levelno for record in told] == [logging.WARNING]


def open_files() -> int:
    return psutil.Process().num_fds()


async def test_connections_that_come_and_go_leave_nothing() -> None:
    async with serving() as server:
        before = open_files(), len(asyncio.all_tasks())
        for number in range(500):
            _, writer = await connect(server)
            writer.write((b"", HEAD, HEAD + b"\r\n")[number % 3])
            await leave(writer)
        await until_empty(server)
        assert (open_files(), len(asyncio.all_tasks())) == before
