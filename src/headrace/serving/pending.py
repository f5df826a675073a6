"""What a client's requests wait for."""

from __future__ import annotations

import asyncio
from collections import deque

from headrace.errors import HeadraceError
from headrace.serving import wire
from headrace.serving.silence import Kind
from headrace.types import Delta


class Awaited:
    """One reply. `since` is the time from which the worker owes it."""

    __slots__ = ("future", "kind", "since")

    def __init__(self, kind: Kind, since: float) -> None:
        self.kind = kind
        self.since: float | None = since
        self.future: asyncio.Future[wire.Answer] = asyncio.get_running_loop().create_future()

    def put(self, reply: wire.Answer) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: HeadraceError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Stream:
    """Deltas that have come and were not read yet: at most the window. `since` is the time from
    which the worker owes the next one, or `None` while the reader is a whole window behind."""

    __slots__ = ("_error", "_granted", "_loop", "_ready", "_unread", "_waiter", "last", "since")

    kind = Kind.WORK

    def __init__(self, since: float, window: int) -> None:
        self.since: float | None = since
        self.last = False
        self._granted = window
        self._unread = 0  # read by the caller, and not granted anew
        self._ready: deque[Delta] = deque()
        self._error: HeadraceError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def put(self, parts: wire.Parts) -> None:
        self._ready.extend(parts.deltas)
        self._granted -= len(parts.deltas)
        self.last = parts.last
        if self.last or self._granted <= 0:
            self.since = None
        self._wake()

    def fail(self, error: HeadraceError) -> None:
        """After what has come, the reader gets this error."""
        self._error = error
        self.since = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> Delta | None:
        """`None` at the end. Raises what the stream failed with."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self.last:
                return None
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._unread += 1
        return self._ready.popleft()

    def to_grant(self, window: int) -> int:
        """How many more deltas may come now; in steps of half a window."""
        if self.last or 2 * self._unread < window:
            return 0
        more, self._unread = self._unread, 0
        self._granted += more
        if self.since is None:
            self.since = self._loop.time()
        return more
