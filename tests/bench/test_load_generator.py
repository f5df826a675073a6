"""The load generator against a real server: what it counts is what happened."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from bench.load import Ask, Plan, Report, beside, generate
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

EVENT = 'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
USAGE = 'data: {"choices":[],"usage":{"completion_tokens":3}}\n\n'


async def plain(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def busy(request: Request) -> Response:
    return PlainTextResponse("", 429)


async def stream(request: Request) -> Response:
    whole = request.url.path == "/stream"

    async def events() -> AsyncIterator[str]:
        yield 'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
        for _ in range(3):
            await asyncio.sleep(0.01)
            yield EVENT
        if whole:
            yield USAGE + "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@contextmanager
def serving() -> Iterator[str]:
    paths = {"/plain": plain, "/busy": busy, "/stream": stream, "/cut": stream}
    routes = [Route(path, handler, methods=["GET", "POST"]) for path, handler in paths.items()]
    config = uvicorn.Config(Starlette(routes=routes), log_level="error")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(30)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving() as found:
        yield found


def test_closed_loop_keeps_as_many_requests_in_the_system_as_clients(address: str) -> None:
    report = generate(Plan(address, [Ask.post("/plain", a=1)], clients=4, seconds=0.5, warmup=0.1))
    assert report.errors == {}
    assert report.throughput > 20
    assert report.little == pytest.approx(4, rel=0.3)
    assert report.cpu > 0


def test_open_loop_sends_at_its_rate(address: str) -> None:
    plan = Plan(address, [Ask("/plain")], "open", rate=100.0, seconds=1.0, warmup=0.1)
    report = generate(plan)
    assert report.errors == {}
    assert len(report.latencies) == pytest.approx(100, abs=50)


def test_errors_are_counted_by_kind_and_have_no_latency(address: str) -> None:
    asks = [Ask("/busy"), Ask("/plain")]
    report = generate(Plan(address, asks, clients=1, seconds=0.3, warmup=0.0))
    assert set(report.errors) == {"HTTP 429"}
    assert report.failed == pytest.approx(len(report.latencies), abs=1)


def test_streams_are_timed_to_their_first_content_and_counted(address: str) -> None:
    report = generate(Plan(address, [Ask("/stream")], clients=2, seconds=0.5, warmup=0.1))
    assert report.errors == {}
    assert set(report.sizes) == {3}
    assert report.tokens == 3 * len(report.latencies)
    assert all(
        0.01 <= first < whole for first, whole in zip(report.first, report.latencies, strict=True)
    )


def test_a_stream_without_its_end_is_an_error(address: str) -> None:
    report = generate(Plan(address, [Ask("/cut")], clients=1, seconds=0.3, warmup=0.0))
    assert set(report.errors) == {"stream without its end"}
    assert report.latencies == []


def test_nobody_there_is_an_error_not_an_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    report = generate(Plan(f"127.0.0.1:{port}", [Ask("/")], clients=1, seconds=0.3, warmup=0.0))
    assert set(report.errors) == {"connecting: ConnectionRefusedError"}


def test_held_connections_stay_until_the_end(address: str) -> None:
    idle = Plan(address, [Ask("/plain")], "idle", clients=5, seconds=0)
    slow = Plan(address, [Ask("/stream")], "slow", clients=5, seconds=0)
    with beside(idle) as one, beside(slow) as two:
        assert one.report().open == 5
        assert two.report().open == 5


def test_merged_reports_are_as_if_measured_in_one_go() -> None:
    first = Report(seconds=1.0, latencies=[0.5], errors={"a": 1})
    second = Report(seconds=3.0, latencies=[0.25, 0.25], errors={"a": 1, "b": 2})
    both = first.merged(second)
    assert both.throughput == 3 / 4
    assert Counter(both.errors) == {"a": 2, "b": 2}
    assert both.little == 1 / 4
