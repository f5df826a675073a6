"""The door: every request passes here before anything of it is read or done."""

from __future__ import annotations

import math
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.errors import HeadraceError, Overloaded
from headrace.http.auth import Caller
from headrace.http.calls import read_headers
from headrace.http.context import context_in
from headrace.http.drain import Drain
from headrace.http.failures import error_response
from headrace.telemetry import Metrics
from headrace.types import Lane

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""Answered without a key."""

ALWAYS_ADMITTED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered however busy the server is."""

BULK_SHARE = 0.75
"""Of the places, for requests that say `X-Lane: bulk`: people always find one of the others."""


class Gate:
    """Checks origin and key, then admits a number of requests at a time.

    1. A path of `OPEN_PATHS` passes. 2. A foreign host or origin gets 403. 3. A missing or unknown
    key gets 401. 4. A path of `ALWAYS_ADMITTED` passes. 5. When the server is shutting down: 503.
    6. A wrong deadline or lane gets 422. 7. An administrator's request passes: a server that is
    full of stuck requests must be helped. 8. Above this process's share of `server.max_pending`,
    or in the bulk lane above `BULK_SHARE` of that: 429 at once.
    """

    def __init__(self, app: ASGIApp, *, drain: Drain, metrics: Metrics) -> None:
        self.app = app
        self._drain = drain
        self._pending = 0
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self.app(scope, receive, send)
            return
        try:
            self._check(scope)
        except HeadraceError as error:
            self._metrics.refused.labels(error.code).inc()
            await error_response(error)(scope, receive, send)
            return
        if scope["path"] in ALWAYS_ADMITTED or _administers(scope):
            await self.app(scope, receive, send)
            return
        place = scope["headrace.place"] = Place(self._took)
        try:
            await self.app(scope, receive, send)
        finally:
            place.leave()

    def _took(self, places: int) -> None:
        self._pending += places
        self._metrics.in_progress.set(self._pending)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        context = context_in(scope)
        context.origins.check(headers)
        scope["headrace.caller"] = context.keyring.caller(headers)
        if scope["path"] in ALWAYS_ADMITTED:
            return
        self._drain.check()
        options = context.services.config.server
        asked = scope["headrace.asked"] = read_headers(headers, options.max_deadline_ms)
        if _administers(scope):
            return
        limit = math.ceil(options.max_pending / options.processes)
        if asked.lane is Lane.BULK:
            limit = math.ceil(limit * BULK_SHARE)
        if self._pending >= limit:
            raise Overloaded(
                f"{self._pending} requests are in progress, and {limit} is the limit "
                f"({'for the bulk lane, ' if asked.lane is Lane.BULK else ''}server.max_pending); "
                "try again later"
            )


def _administers(scope: Scope) -> bool:
    caller: Caller = scope["headrace.caller"]
    return caller.admin and scope["path"].startswith("/admin/")


class Place:
    """What a request in progress takes of the server. One that only waits for something to happen
    leaves it early."""

    def __init__(self, took: Callable[[int], None]) -> None:
        self._took: Callable[[int], None] | None = took
        took(1)

    def leave(self) -> None:
        if self._took is not None:
            self._took(-1)
            self._took = None
