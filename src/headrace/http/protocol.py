"""The connection below the application: how many there are, and what is not a request has a
deadline too."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import time
from typing import ClassVar, NamedTuple

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headrace.config.options import ServerOptions

log = logging.getLogger("headrace.http")

HEAD_SECONDS = 30.0
MAX_HEAD_BYTES = 64 * 1024
LOG_SECONDS = 60.0

_AT_ONCE = struct.pack("ii", 1, 0)  # linger for no time: closing resets the connection

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
)


class Bounds(NamedTuple):
    """`connections` open at a time; `stall_seconds` is how long a client may take nothing of an
    answer that is complete (while it is made, `headrace.http.lifetime` watches)."""

    connections: int = 2048
    stall_seconds: float = 60.0


class Protocol(HttpToolsProtocol):
    """Closes a connection whose first request, or whose request line and headers, do not arrive
    within `HEAD_SECONDS` or exceed `MAX_HEAD_BYTES`; uvicorn would wait for them, and keep them,
    without bound. Closes one whose client does not take its answer, where uvicorn would wait for
    that. Beyond `bounds.connections`, new ones get 503 and are closed."""

    bounds: ClassVar[Bounds] = Bounds()
    _deadline: asyncio.TimerHandle | None = None
    _flush: asyncio.TimerHandle | None = None
    _head_bytes = 0

    @classmethod
    def bounded(cls, options: ServerOptions) -> type[Protocol]:
        """The class that uvicorn makes its connections of."""
        bounds = Bounds(options.max_connections, options.stall_seconds)
        return type("BoundedProtocol", (cls,), {"bounds": bounds})

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.bounds.connections:
            _full.note(self.bounds.connections)
            transport.write(_FULL)
            transport.close()
            return
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        if self._flush is not None:
            self._flush.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["headrace.abort"] = self._cut  # type: ignore[typeddict-unknown-key]
        self._watch()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # nothing that still comes is read
            return
        super().data_received(data)
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._watch()  # uvicorn took it for a request and forgot that the connection is idle
        if self._deadline is not None:  # what came belongs to a head that is not complete
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self._relax()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_flush(self.transport.get_write_buffer_size())

    def _watch_flush(self, left: int) -> None:
        """`left` bytes of an answer are in memory; look again whether the client has taken some."""
        if left:
            self._flush = self.loop.call_later(self.bounds.stall_seconds, self._check_flush, left)

    def _check_flush(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left >= before:
            self._cut()
        else:
            self._watch_flush(left)

    def _cut(self) -> None:
        """Throw away what the client does not take, with the megabytes that the kernel holds."""
        taken: socket.socket | None = self.transport.get_extra_info("socket")
        if taken is not None and taken.fileno() >= 0:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _watch(self) -> None:
        self._relax()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Full:
    """Logs once in a while that connections were refused, and how many: a flood of them must not
    become a flood of lines."""

    def __init__(self) -> None:
        self._refused = 0
        self._told = -LOG_SECONDS

    def note(self, limit: int) -> None:
        self._refused += 1
        now = time.monotonic()
        if now - self._told >= LOG_SECONDS:
            log.warning(
                "%d connections refused: %d are open, the limit (server.max_connections)",
                self._refused,
                limit,
            )
            self._told, self._refused = now, 0


_full = _Full()
