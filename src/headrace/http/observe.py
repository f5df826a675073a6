"""What each request begins with and leaves behind: the configuration it runs under; metrics, a log
line, and in its response's headers its number and the configuration's version."""

from __future__ import annotations

import logging
import time
import uuid

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.http.context import Live, begin
from headrace.telemetry import Metrics

log = logging.getLogger("headrace.http")


class Observe:
    """Outermost of our middleware. Logs the path without its query, and no header."""

    def __init__(self, app: ASGIApp, *, live: Live, metrics: Metrics) -> None:
        self.app = app
        self._live = live
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        number = uuid.uuid4().hex
        scope["headrace.request_id"] = number
        version = begin(scope, self._live).services.config_version
        own = ((b"x-request-id", number.encode()), (b"x-headrace-config", version.encode()))
        status, first = 0, 0.0

        async def observed(message: Message) -> None:
            nonlocal status, first
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *own]
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
