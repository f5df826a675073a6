"""Accepting from a socket that several processes share, so that each gets its share.

Whoever the kernel wakes first could take a whole burst, and keep-alive connections stay where they
are. So each process writes how many it holds where all can see it, and who holds more than another
lets that one go first: for a millisecond, since it may be busy or hang.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import os
import socket
import tempfile
from collections.abc import Callable

log = logging.getLogger(__name__)

COURTESY_SECONDS = 0.001
EXHAUSTED_SECONDS = 1.0
"""How long nothing is accepted when the system has no room for another connection."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_ITEM = 4  # bytes


class Shares:
    """Connections held by each process, in memory that they share. `slot` counts from 1."""

    def __init__(self, file_number: int, slots: int, slot: int) -> None:
        self._memory = mmap.mmap(file_number, _ITEM * slots)
        self._counts = memoryview(self._memory).cast("i")
        self._mine = slot - 1
        self.hold(0)

    @staticmethod
    def make(slots: int) -> int:
        """The number of a new file for `slots` processes, which has no name."""
        with tempfile.TemporaryFile() as file:
            file.truncate(_ITEM * slots)
            return os.dup(file.fileno())

    def hold(self, connections: int) -> None:
        self._counts[self._mine] = connections

    def another_holds_less(self) -> bool:
        return min(self._counts) < self._counts[self._mine]

    def close(self) -> None:
        self._counts.release()
        self._memory.close()


class Acceptor:
    """Makes a protocol for each connection, until closed. `held` tells how many connections there
    are. Stands where uvicorn has an `asyncio.Server`."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        held: Callable[[], int],
        shares: Shares,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._held = held
        self._shares = shares
        self._loop = asyncio.get_running_loop()
        self._joining: set[asyncio.Task[object]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._closed = False
        listener.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._offered)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, then)

    def update(self) -> None:
        """Tell the others how many connections this process holds."""
        self._shares.hold(self._held() + len(self._joining))

    def _offered(self) -> None:
        self.update()
        if self._shares.another_holds_less():
            self._wait(COURTESY_SECONDS, self._take_anyway)
        else:
            self._take()

    def _take_anyway(self) -> None:
        self._listen()
        self._take()

    def _take(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another process was faster, or the client has left
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            log.error("no connection can be accepted for now: %s", error.strerror)
            self._wait(EXHAUSTED_SECONDS, self._listen)
            return
        connection.setblocking(False)
        task: asyncio.Task[object] = self._loop.create_task(self._join(connection))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)
        self.update()

    async def _join(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone already
            connection.close()

    def close(self) -> None:
        """Accept nothing more."""
        if self._closed:
            return
        self._closed = True
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener)
        self._listener.close()

    async def wait_closed(self) -> None:
        if self._joining:
            await asyncio.wait(self._joining)
        self._shares.close()
