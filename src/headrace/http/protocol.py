"""The connection below the application: what is not yet a request has a deadline too."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 30.0
MAX_HEAD_BYTES = 64 * 1024


class Protocol(HttpToolsProtocol):
    """Closes a connection whose first request, or whose request line and headers, do not arrive
    within `HEAD_SECONDS` or exceed `MAX_HEAD_BYTES`; uvicorn would wait for them, and keep them,
    without bound."""

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._deadline is not None:  # what came belongs to a head that is not complete
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        self._relax()
        super().on_headers_complete()

    def _watch(self) -> None:
        self._relax()
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
