"""The door: every request passes here before anything of it is read or done."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.errors import HeadraceError, Overloaded
from headrace.http.auth import Keyring, OriginGuard
from headrace.http.failures import error_response
from headrace.telemetry import Metrics

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
"""Answered without a key."""

ALWAYS_ADMITTED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answered however busy the server is."""


class Gate:
    """Checks origin and key, then admits at most `max_pending` requests at a time.

    1. A path of `OPEN_PATHS` passes. 2. A foreign host or origin gets 403. 3. A missing or unknown
    key gets 401. 4. A path of `ALWAYS_ADMITTED` passes. 5. Above the limit: 429 at once.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keyring: Keyring,
        origins: OriginGuard,
        max_pending: int,
        metrics: Metrics,
    ) -> None:
        self.app = app
        self._keyring = keyring
        self._origins = origins
        self._max_pending = max_pending
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
        if scope["path"] in ALWAYS_ADMITTED:
            await self.app(scope, receive, send)
            return
        self._pending += 1
        self._metrics.in_progress.set(self._pending)
        try:
            await self.app(scope, receive, send)
        finally:
            self._pending -= 1
            self._metrics.in_progress.set(self._pending)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        self._origins.check(headers)
        scope["headrace.caller"] = self._keyring.caller(headers)
        if self._pending >= self._max_pending and scope["path"] not in ALWAYS_ADMITTED:
            raise Overloaded(
                f"{self._pending} requests are in progress, which is the limit "
                "(server.max_pending); try again later"
            )
