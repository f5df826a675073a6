"""The load generator: `python -m bench.load_process`, with a `Plan` on its first line of input.

Answers "ready" when the warm-up is over, and in the end a `Report`. Frugal: one asyncio protocol
per connection and httptools for parsing, about 0.1 ms of CPU per request, where a client library
for people takes 1 ms. No garbage collection, whose pauses would count as latency.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import random
import re
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from typing import NamedTuple

import httptools
import msgspec

from bench.load import Ask, Plan, Report

CONTENT = re.compile(rb'"(?:content|text)": ?"[^"]')
TOKENS = re.compile(rb'"completion_tokens": ?(\d+)')
STALE = "closed before it was asked again"
"""A server may close an idle connection at any moment; what was just sent on it is sent again on
a new one, as every HTTP client does, and is no error."""
DRAIN_SECONDS = 30.0
SLOW_BUFFER = 2048


class Answer(NamedTuple):
    """`first` is the time of the first event with content, 0 without; `events` the times of all
    of them; `error` what went wrong, if anything."""

    ended: float
    first: float
    events: list[float]
    tokens: int
    error: str


class Connection(asyncio.Protocol):
    """One connection that asks one thing at a time."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._asked = 0
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, ask: Ask) -> asyncio.Future[Answer]:
        self._asked += 1
        self._heard = False
        self._events: list[float] = []
        self._tail = b""
        self._done = False
        self._streams = False
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(head(ask, self._host) + ask.body)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {type(error).__name__}")
            self._transport.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self._streams = value.startswith(b"text/event-stream")

    def on_body(self, body: bytes) -> None:
        if not self._streams:
            return
        seen = self._tail + body
        cut = seen.rfind(b"\n\n") + 2
        whole, self._tail = (seen[:cut], seen[cut:]) if cut > 1 else (b"", seen)
        if found := len(CONTENT.findall(whole)):
            self._events += [time.perf_counter()] * found
        if b"completion_tokens" in whole and (tokens := TOKENS.search(whole)):
            self._tokens = int(tokens[1])
        self._done |= b"data: [DONE]" in whole

    _tokens = 0

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        keep = self._parser.should_keep_alive()
        error = "" if status == 200 else f"HTTP {status}"
        if not error and self._streams and not self._done:
            error = "stream without its end"
        self._parser = httptools.HttpResponseParser(self)
        if not keep:
            self.closed = True
            self._transport.close()
        self._end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None:
            stale = self._asked > 1 and not self._heard
            self._end(STALE if stale else "connection lost")

    def _end(self, error: str) -> None:
        answer, self._answer = self._answer, None
        if answer is None or answer.done():
            return
        now = time.perf_counter()
        first = self._events[0] if self._events else 0.0
        answer.set_result(Answer(now, first, self._events, self._tokens, error))
        self._tokens = 0

    def close(self) -> None:
        self.closed = True
        self._transport.abort()


def head(ask: Ask, host: str) -> bytes:
    """The request line and headers."""
    verb = "POST" if ask.body else "GET"
    return (
        f"{verb} {ask.path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(ask.body)}\r\n\r\n"
    ).encode()


class Generator:
    """Carries one plan out."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._asks = itertools.cycle(plan.asks)
        self._report = Report(latencies=[], first=[], sizes=[])
        self._errors: Counter[str] = Counter()
        self._idle: list[Connection] = []
        self._stop = asyncio.Event()
        begin = time.perf_counter()
        self._from = begin + plan.warmup
        self._until = self._from + (plan.seconds or float("inf"))

    async def run(self) -> Report:
        work: Coroutine[None, None, None]
        match self._plan.kind:
            case "closed":
                work = self._closed()
            case "open":
                work = self._open()
            case "slow" | "idle":
                work = self._hold()
        async with asyncio.TaskGroup() as group:
            clock = group.create_task(self._clock())
            await work
            await clock
        self._report.errors = dict(self._errors)
        return self._report

    async def _clock(self) -> None:
        """Says when the warm-up is over, and measures the time and the CPU time after it."""
        if self._plan.kind in ("slow", "idle"):
            await self._stop.wait()
            return
        await asyncio.sleep(self._from - time.perf_counter())
        began, cpu = time.perf_counter(), time.process_time()
        say(b"ready\n")
        if self._plan.seconds:
            await asyncio.sleep(self._until - time.perf_counter())
        else:
            await end_of_input()
        self._until = time.perf_counter()
        self._report.seconds = self._until - began
        self._report.cpu = time.process_time() - cpu
        self._stop.set()

    async def _closed(self) -> None:
        async def client() -> None:
            connection: Connection | None = None
            while not self._stop.is_set():
                if connection is None or connection.closed:
                    connection = await self._connect()
                    if connection is None:
                        await asyncio.sleep(0.1)
                        continue
                await self._ask(connection, time.perf_counter())
            if connection is not None:
                connection.close()

        async with asyncio.TaskGroup() as group:
            for _ in range(self._plan.clients):
                group.create_task(client())

    async def _open(self) -> None:
        chance = random.Random(self._plan.seed)
        running: set[asyncio.Task[None]] = set()
        due = time.perf_counter()
        while not self._stop.is_set():
            due += chance.expovariate(self._plan.rate)
            delay = due - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            task = asyncio.create_task(self._arrive(due))
            running.add(task)
            task.add_done_callback(running.discard)
        if running:
            _, late = await asyncio.wait(running, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
            if late:
                self._errors["no answer in the end"] = len(late)
            await asyncio.gather(*late, return_exceptions=True)
        for connection in self._idle:
            connection.close()

    async def _arrive(self, due: float) -> None:
        connection: Connection | None = None
        while self._idle and (connection is None or connection.closed):
            connection = self._idle.pop()
        if connection is None or connection.closed:
            connection = await self._connect()
        if connection is None:
            return
        while not await self._ask(connection, due):
            connection = await self._connect()
            if connection is None:
                return
        if not connection.closed:
            self._idle.append(connection)

    async def _connect(self) -> Connection | None:
        address = self._plan.address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._plan.timeout):
                if address.startswith("/"):
                    made = loop.create_unix_connection(lambda: Connection("localhost"), address)
                    return (await made)[1]
                host, port = address.rsplit(":", 1)
                made = loop.create_connection(lambda: Connection(address), host, int(port))
                return (await made)[1]
        except OSError as error:
            self._count(f"connecting: {type(error).__name__}")
            return None

    def _count(self, error: str) -> None:
        if self._from <= time.perf_counter() <= self._until:
            self._errors[error] += 1

    async def _ask(self, connection: Connection, began: float) -> bool:
        """False if the connection turned out to be closed: ask again on another."""
        try:
            async with asyncio.timeout(self._plan.timeout):
                answer = await connection.ask(next(self._asks))
        except TimeoutError:
            connection.close()
            self._count("timeout")
            return True
        if answer.error != STALE:
            self._take(answer, began)
        return answer.error != STALE

    def _take(self, answer: Answer, began: float) -> None:
        """Closed loop: what ended in the measured time counts; open loop: what arrived in it."""
        report = self._report
        report.events += sum(self._from <= at <= self._until for at in answer.events)
        mark = began if self._plan.kind == "open" else answer.ended
        if not self._from <= mark <= self._until:
            return
        if answer.error:
            self._errors[answer.error] += 1
            return
        report.latencies.append(answer.ended - began)
        report.tokens += answer.tokens
        if answer.events:
            report.first.append(answer.first - began)
            report.sizes.append(len(answer.events))

    async def _hold(self) -> None:
        """Connections that stay until the input ends."""
        held: list[socket.socket] = []
        try:
            while len(held) < self._plan.clients:
                held.append(await self._held())
            say(b"ready\n")
            async with asyncio.TaskGroup() as group:
                if self._plan.kind == "slow":
                    reading = group.create_task(read_slowly(held))
                await end_of_input()
                if self._plan.kind == "slow":
                    reading.cancel()
            self._report.open = sum(is_open(one) for one in held)
        finally:
            for one in held:
                one.close()
        self._stop.set()

    async def _held(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        host, port = self._plan.address.rsplit(":", 1)
        one = socket.socket()
        one.setblocking(False)
        if self._plan.kind == "slow":  # what the kernel takes, the server need not keep
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)
        async with asyncio.timeout(self._plan.timeout):
            await loop.sock_connect(one, (host, int(port)))
            ask = next(self._asks)
            await loop.sock_sendall(one, head(ask, self._plan.address) + ask.body)
            if self._plan.kind == "idle":
                await loop.sock_recv(one, 65536)
        return one


async def read_slowly(held: list[socket.socket]) -> None:
    """One byte a second from each."""
    while True:
        for one in held:
            with contextlib.suppress(BlockingIOError, ConnectionError):
                one.recv(1)
        await asyncio.sleep(1.0)


def is_open(one: socket.socket) -> bool:
    """Has the other side not closed it? What it sent before does not matter."""
    try:
        while one.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def say(message: bytes) -> None:
    sys.stdout.buffer.write(message)
    sys.stdout.buffer.flush()


async def end_of_input() -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    loop.remove_reader(sys.stdin.fileno())


def main() -> None:
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    gc.disable()

    async def carry_out() -> Report:
        return await Generator(plan).run()

    say(msgspec.msgpack.encode(asyncio.run(carry_out())))


if __name__ == "__main__":
    main()
