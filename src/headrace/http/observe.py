"""What each request leaves behind: metrics, a log line, and its number in a response header."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.telemetry import Metrics

log = logging.getLogger("headrace.http")


class Observe:
    """Outermost of our middleware. Logs the path without its query, and no header."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        number = uuid.uuid4().hex
        scope["headrace.request_id"] = number
        status, first = 0, 0.0

        async def observed(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", number.encode())]
            elif not first:
                first = time.perf_counter()
            await send(message)

        try:
            await self.app(scope, receive, observed)
            status = status or 499
        finally:
            self._record(scope, status or 500, time.perf_counter() - began, first - began)

    def _record(self, scope: Scope, status: int, seconds: float, first: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(scope["method"], route, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        if first > 0:
            self._metrics.first_byte_seconds.labels(route).observe(first)
        log.info(
            "%s %s %d %.1f ms %s",
            scope["method"],
            scope["path"],
            status,
            1000 * seconds,
            scope["headrace.request_id"],
        )
