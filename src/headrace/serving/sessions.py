"""Retrieval sessions in the host: the table's clock, its handlers, and the task that sweeps it.

Server processes ask by the topics below; with one process or with many, there is one table.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import psutil

from headrace.config.options import SessionOptions
from headrace.errors import InvalidField
from headrace.serving.control import LocalControl, Topic
from headrace.serving.session_table import Limits, OpenSessions, Session, Table

SWEEP_SECONDS = 1.0
"""How long a dead owner may keep a session, at most."""


class Sessions(msgspec.Struct, frozen=True):
    sessions: tuple[Session, ...]


class ListSessions(msgspec.Struct, frozen=True):
    """Of one owner, or of all owners with this key."""

    key: str
    owner: str | None = None


class OneSession(msgspec.Struct, frozen=True):
    key: str
    id: str


class RenewSession(msgspec.Struct, frozen=True):
    key: str
    id: str
    ttl_seconds: float | None = None


class HoldSession(msgspec.Struct, frozen=True):
    """`holder` names the connection, which says so again within `lease_seconds`; 0 lets go."""

    key: str
    id: str
    holder: str
    lease_seconds: float


OPEN = Topic("sessions.open", OpenSessions, Sessions)
LIST = Topic("sessions.list", ListSessions, Sessions)
SHOW = Topic("sessions.show", OneSession, Session)
USE = Topic("sessions.use", OneSession, Session)
RENEW = Topic("sessions.renew", RenewSession, Session)
RELEASE = Topic("sessions.release", OneSession, Session)
HOLD = Topic("sessions.hold", HoldSession, Session)


@contextlib.asynccontextmanager
async def install(
    control: LocalControl, options: Callable[[], SessionOptions]
) -> AsyncIterator[None]:
    """Answer the topics until left. `options` is asked anew each time."""
    desk = _Desk(options)
    control.answer(OPEN, desk.open)
    control.answer(LIST, desk.list)
    control.answer(SHOW, desk.show)
    control.answer(USE, desk.use)
    control.answer(RENEW, desk.renew)
    control.answer(RELEASE, desk.release)
    control.answer(HOLD, desk.hold)
    sweeper = asyncio.create_task(desk.sweep())
    try:
        yield
    finally:
        sweeper.cancel()
        await asyncio.wait([sweeper])
        if not sweeper.cancelled():
            sweeper.result()


class _Desk:
    """The handlers: they only add the time to what they are asked."""

    def __init__(self, options: Callable[[], SessionOptions]) -> None:
        self._options = options
        self._table = Table(lambda: secrets.token_urlsafe(16))
        self._processes: dict[int, psutil.Process] = {}

    def _limits(self) -> Limits:
        options = self._options()
        return Limits(
            options.ttl_seconds, options.max_ttl_seconds, options.per_owner, options.total
        )

    async def open(self, order: OpenSessions) -> Sessions:
        if order.pid is not None:
            self._meet(order.pid)
        return Sessions(self._table.open(time.monotonic(), order, self._limits()))

    def _meet(self, pid: int) -> None:
        """Remember which process has this PID now: a later one with the same PID is another."""
        process = self._processes.get(pid)
        if process is not None and _alive(process):
            return
        if process is not None:
            self._table.sweep(time.monotonic(), {pid})
        try:
            self._processes[pid] = psutil.Process(pid)
        except psutil.Error as error:
            raise InvalidField(
                f"owner_pid: there is no process {pid} on the server's machine", field="owner_pid"
            ) from error

    async def list(self, asked: ListSessions) -> Sessions:
        return Sessions(self._table.listed(time.monotonic(), asked.key, asked.owner))

    async def show(self, asked: OneSession) -> Session:
        return self._table.show(time.monotonic(), asked.key, asked.id)

    async def use(self, asked: OneSession) -> Session:
        return self._table.use(time.monotonic(), asked.key, asked.id)

    async def renew(self, asked: RenewSession) -> Session:
        now = time.monotonic()
        return self._table.renew(now, asked.key, asked.id, asked.ttl_seconds, self._limits())

    async def release(self, asked: OneSession) -> Session:
        return self._table.release(time.monotonic(), asked.key, asked.id)

    async def hold(self, asked: HoldSession) -> Session:
        now = time.monotonic()
        if asked.lease_seconds > 0:
            return self._table.hold(now, asked.key, asked.id, asked.holder, asked.lease_seconds)
        return self._table.let_go(now, asked.key, asked.id, asked.holder)

    async def sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            gone = {pid for pid, process in self._processes.items() if not _alive(process)}
            self._table.sweep(time.monotonic(), gone)
            kept = self._table.pids()
            self._processes = {p: process for p, process in self._processes.items() if p in kept}


def _alive(process: psutil.Process) -> bool:
    """By PID and start time. A zombie only waits for its parent."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
