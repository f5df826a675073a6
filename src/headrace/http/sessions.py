"""Retrieval sessions of agents: open, keep, hold, release."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import uuid
from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from headrace.errors import Forbidden, HeadraceError, UnknownCollection
from headrace.http.context import caller_of, context_of, encode, json_response
from headrace.http.describe import described
from headrace.http.failures import body_of
from headrace.http.requests import OpenSessionsRequest, RenewSessionRequest
from headrace.http.sse import EventStream, event
from headrace.serving.control import Control
from headrace.serving.session_table import OpenSessions, Session
from headrace.serving.sessions import (
    HOLD,
    LIST,
    OPEN,
    RELEASE,
    RENEW,
    SHOW,
    HoldSession,
    ListSessions,
    OneSession,
    RenewSession,
    Sessions,
)

router = APIRouter(tags=["Sessions"])

MISSED = 3
"""Heartbeats that may be missed before a connection that holds a session counts as gone."""

_LET_GO_SECONDS = 2.0


@router.post(
    "/api/sessions",
    summary="Open retrieval sessions",
    status_code=201,
    responses=described(Sessions, status=201),
)
async def open_sessions(request: Request, body: OpenSessionsRequest) -> Response:
    """`count` sessions, or none: 429 where the owner's or the server's limit would be passed, with
    who holds how many. A session searches its `collections` with at most the access set that its
    opener has now, and lives for `ttl_seconds` after it was opened or last renewed, but not longer
    than the process `owner_pid`. Name it in `X-Session` (or the field `session`) of a request."""
    context, caller = context_of(request), caller_of(request)
    known = await context.collections()
    for name in body.collections:
        if name not in known:
            raise UnknownCollection(name, known)
    if body.owner_pid is not None and not _is_local(request):
        raise Forbidden("owner_pid: only for callers on the server's own machine")
    order = OpenSessions(
        key=caller.name,
        owner=body.owner,
        collections=body.collections,
        access=tuple(sorted(caller.narrow(body.access))),
        count=body.count,
        ttl_seconds=body.ttl_seconds,
        pid=body.owner_pid,
    )
    return json_response(await context.services.control.ask(OPEN, order), 201)


def _is_local(request: Request) -> bool:
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


@router.get("/api/sessions", summary="Open sessions", responses=described(Sessions))
async def list_sessions(
    request: Request, owner: Annotated[str | None, Query(max_length=128)] = None
) -> Response:
    """Those that were opened with the caller's API key, of one owner or of all."""
    asked = ListSessions(caller_of(request).name, owner)
    return json_response(await context_of(request).services.control.ask(LIST, asked))


@router.get("/api/sessions/{session_id}", summary="One session", responses=described(Session))
async def show_session(request: Request, session_id: str) -> Response:
    asked = OneSession(caller_of(request).name, session_id)
    return json_response(await context_of(request).services.control.ask(SHOW, asked))


@router.post(
    "/api/sessions/{session_id}/renew", summary="Keep a session", responses=described(Session)
)
async def renew_session(
    request: Request, session_id: str, body: RenewSessionRequest | None = None
) -> Response:
    """Its time begins anew."""
    ttl = None if body is None else body.ttl_seconds
    asked = RenewSession(caller_of(request).name, session_id, ttl)
    return json_response(await context_of(request).services.control.ask(RENEW, asked))


@router.delete(
    "/api/sessions/{session_id}", summary="Release a session", responses=described(Session)
)
async def release_session(request: Request, session_id: str) -> Response:
    """Requests that are under way in it go on."""
    asked = OneSession(caller_of(request).name, session_id)
    return json_response(await context_of(request).services.control.ask(RELEASE, asked))


@router.get(
    "/api/sessions/{session_id}/hold",
    summary="Hold a session",
    responses=described(Session, stream=True),
)
async def hold_session(request: Request, session_id: str) -> Response:
    """Server-sent events named `session`, one every `server.heartbeat_seconds`. While the
    connection is open the session does not expire; a few seconds after it closes the session is
    released, unless its owner holds or renews it again."""
    context, caller = context_of(request), caller_of(request)
    request.scope["headrace.place"].leave()  # it waits, and takes nothing from the others
    exchange = request.scope["headrace.exchange"]
    exchange.idle = True
    heartbeat = context.services.config.server.heartbeat_seconds
    held = _held(context.services.control, caller.name, session_id, heartbeat)
    return EventStream(held, heartbeat=heartbeat, on_error=lambda e: event(body_of(e), "error"))


async def _held(
    control: Control, key: str, session_id: str, heartbeat: float
) -> AsyncGenerator[bytes, None]:
    holder = uuid.uuid4().hex
    beat = HoldSession(key, session_id, holder, MISSED * heartbeat)
    try:
        while True:
            session = await control.ask(HOLD, beat)
            yield event(encode(session), "session")
            await asyncio.sleep(heartbeat)
    finally:
        # Where the host does not answer, the lease ends by itself.
        with contextlib.suppress(HeadraceError, TimeoutError):
            async with asyncio.timeout(_LET_GO_SECONDS):
                await control.ask(HOLD, HoldSession(key, session_id, holder, 0))
