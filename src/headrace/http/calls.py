"""What a request asks of the models beside its answer: how soon, in which lane, in which session.

Headers may be on any request; the same deadline and session may stand in a body (`Asking`). All of
it is read here, and becomes one `Call` with the caller's access set.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import Scope

from headrace.errors import Forbidden, InvalidField
from headrace.http.auth import Caller
from headrace.http.context import Context, caller_of, context_of
from headrace.http.requests import Asking
from headrace.serving.sessions import USE, OneSession
from headrace.types import Call, Lane


class Asked(NamedTuple):
    """By headers. `arrived` and `deadline` are times of `time.monotonic()`."""

    arrived: float
    deadline: float | None = None
    lane: Lane | None = None
    session: str | None = None


def read_headers(headers: Headers, max_deadline_ms: int) -> Asked:
    """Raises `InvalidField`."""
    arrived = time.monotonic()
    deadline = None
    text = headers.get("x-deadline-ms")
    if text is not None:
        if not (text.isascii() and text.isdecimal() and len(text) <= 12):
            raise InvalidField("X-Deadline-Ms: a whole number is needed", field="X-Deadline-Ms")
        deadline = arrived + _checked(int(text), "X-Deadline-Ms", max_deadline_ms) / 1000
    lane = headers.get("x-lane")
    if lane is not None and lane not in list(Lane):
        raise InvalidField(
            f"X-Lane: one of {', '.join(Lane)} is needed, not {lane[:40]!r}", field="X-Lane"
        )
    return Asked(arrived, deadline, None if lane is None else Lane(lane), headers.get("x-session"))


def _checked(ms: int, field: str, most: int) -> int:
    if not 1 <= ms <= most:
        raise InvalidField(
            f"{field}: 1 to {most} milliseconds (server.max_deadline_ms), not {ms}", field=field
        )
    return ms


def asked_of(scope: Scope) -> Asked:
    """What the gate has read; nothing for a request that did not pass it."""
    found: Asked | None = scope.get("headrace.asked")
    return found or Asked(time.monotonic())


class Bound(NamedTuple):
    """A request's call of models, and its caller with the access set that counts for it (within a
    session: what both the caller and the session may read)."""

    call: Call
    caller: Caller


async def bind(
    request: Request, body: Asking, *, collection: str | None = None, bulk: bool = False
) -> Bound:
    """From here on the request ends at its deadline, and counts for its session. `bulk` is the lane
    of a request that names none.

    Raises `InvalidField`, `UnknownSession`; `Forbidden` if the session does not have the
    collection."""
    asked = asked_of(request.scope)
    most = context_of(request).services.config.server.max_deadline_ms
    deadline = asked.arrived + most / 1000
    if body.deadline_ms is not None:
        deadline = asked.arrived + _checked(body.deadline_ms, "deadline_ms", most) / 1000
    if asked.deadline is not None:
        deadline = min(deadline, asked.deadline)
    exchange = request.scope.get("headrace.exchange")
    if exchange is not None:
        exchange.expire_at(deadline)
    caller = caller_of(request)
    name = _session_name(asked.session, body.session)
    if name is not None:
        caller = await _in_session(context_of(request), caller, name, collection)
    lane = asked.lane or (Lane.BULK if bulk else Lane.INTERACTIVE)
    return Bound(Call(lane, deadline), caller)


def _session_name(header: str | None, field: str | None) -> str | None:
    if header is not None and field is not None and header != field:
        raise InvalidField("session: not the one that X-Session names", field="session")
    return header if header is not None else field


async def _in_session(
    context: Context, caller: Caller, name: str, collection: str | None
) -> Caller:
    """Counts the request; the caller within the session's access set."""
    session = await context.services.control.ask(USE, OneSession(caller.name, name))
    if collection is not None and collection not in session.collections:
        has = ", ".join(session.collections)
        raise Forbidden(
            f"session {name!r} was opened for {has}; open one with collection {collection!r}",
            field="session",
        )
    return replace(caller, access=caller.narrow(session.access))
