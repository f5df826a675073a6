"""The two roles on a link: who asks keeps replies by id, who answers keeps tasks by id."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from headrace.errors import HeadraceError, ModelFailed
from headrace.serving import hostwire as wire

log = logging.getLogger(__name__)

R = TypeVar("R", bound=wire.Request)


class Replies:
    """What has arrived for one request and was not taken yet. For one reader."""

    __slots__ = ("_arrived", "_failure", "_waiter")

    def __init__(self) -> None:
        self._arrived: deque[wire.Reply] = deque()
        self._failure: HeadraceError | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, reply: wire.Reply) -> None:
        self._arrived.append(reply)
        self._wake()

    def fail(self, error: HeadraceError) -> None:
        """After what has arrived, the reader gets this error."""
        self._failure = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> wire.Reply:
        """Raises the error that the request failed with."""
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        reply = self._arrived.popleft()
        if type(reply) is wire.Failed:
            raise reply.error()
        return reply


class Asking:
    """Requests under way to the other end. `other` is its name in errors."""

    def __init__(self, other: str) -> None:
        self._other = other
        self._ids = itertools.count(1)
        self._open: dict[int, Replies] = {}
        self._ended = False

    @contextlib.contextmanager
    def request(
        self,
        send: Callable[[wire.Request | wire.Cancel], None],
        make: Callable[[int], wire.Request],
    ) -> Iterator[tuple[int, Replies]]:
        """Send the message that `make` makes for an id. Leaving the body by an error or a
        cancellation cancels the request at the other end. Raises `ModelFailed` if it is gone."""
        if self._ended:
            raise self._gone()
        number, replies = next(self._ids), Replies()
        self._open[number] = replies
        finished = False
        try:
            send(make(number))
            yield number, replies
            finished = True
        finally:
            del self._open[number]
            if not finished:
                send(wire.Cancel(number))

    def deliver(self, reply: wire.Reply) -> None:
        replies = self._open.get(reply.id)
        if replies is not None:  # it was cancelled while the reply was on its way
            replies.put(reply)

    def end(self) -> None:
        """The other end is gone: all requests fail, now and from now on."""
        self._ended = True
        for replies in self._open.values():
            replies.fail(self._gone())

    def _gone(self) -> ModelFailed:
        return ModelFailed(f"{self._other} is gone, and with it this request; try again")


class Answering:
    """Work under way for the other end, a task for each request."""

    def __init__(self, send: Callable[[wire.Failed], None]) -> None:
        self._send = send
        self._asked: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, request: R, work: Callable[[R], Awaitable[None]]) -> None:
        """Do the work in a task. Whatever goes wrong is reported under the request's id and hurts
        no other."""
        number = request.id
        task = asyncio.create_task(self._answer(request, work))
        self._asked[number] = task
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(number, done))

    async def _answer(self, request: R, work: Callable[[R], Awaitable[None]]) -> None:
        try:
            await work(request)
        except HeadraceError as error:
            self._send(wire.Failed.of(request.id, error))
        except Exception:
            log.exception("a request of another process met a defect")
            message = "internal error in another process of the server; its log says more"
            self._send(wire.Failed(request.id, HeadraceError.code, message))

    def _done(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._asked.get(number) is not task:
            return  # cancelled by who asked, who waits for nothing
        del self._asked[number]
        if task.cancelled():
            self._send(wire.Failed.of(number, ModelFailed("the work was ended; try again")))

    def cancel(self, number: int) -> None:
        """Whoever asked no longer wants it."""
        task = self._asked.pop(number, None)
        if task is not None:
            task.cancel()

    async def end(self) -> None:
        """Cancel all work; returns when none is left."""
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks)
