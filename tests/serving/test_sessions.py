"""Sessions behind their topics, and owners that are real processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.config.options import SessionOptions
from headrace.errors import InvalidField, Overloaded, UnknownSession
from headrace.serving import sessions
from headrace.serving.control import LocalControl
from headrace.serving.session_table import OpenSessions
from headrace.serving.sessions import (
    LIST,
    OPEN,
    RENEW,
    SHOW,
    ListSessions,
    OneSession,
    RenewSession,
    install,
)


def order(count: int = 1, pid: int | None = None, ttl: float | None = None) -> OpenSessions:
    return OpenSessions("", "ann", ("laws",), ("public",), count, ttl, pid)


async def test_options_count_from_now_on() -> None:
    options = SessionOptions(per_owner=1)
    control = LocalControl()
    async with install(control, lambda: options):
        await control.ask(OPEN, order())
        with pytest.raises(Overloaded):
            await control.ask(OPEN, order())
        options = SessionOptions(per_owner=2, max_ttl_seconds=10.0, ttl_seconds=10.0)
        (opened,) = (await control.ask(OPEN, order())).sessions
        assert opened.ttl_seconds == 10
        with pytest.raises(InvalidField):
            await control.ask(RENEW, RenewSession("", opened.id, 11))


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


async def test_sessions_of_an_owner_that_dies_are_taken_back(
    monkeypatch: pytest.MonkeyPatch, owner: subprocess.Popen[bytes]
) -> None:
    monkeypatch.setattr(sessions, "SWEEP_SECONDS", 0.02)
    control = LocalControl()
    async with install(control, SessionOptions):
        opened = (await control.ask(OPEN, order(2, owner.pid))).sessions
        (other,) = (await control.ask(OPEN, order())).sessions
        await asyncio.sleep(0.1)  # some sweeps
        assert len((await control.ask(LIST, ListSessions(""))).sessions) == 3
        owner.kill()  # it stays a zombie until it is waited for
        async with asyncio.timeout(20):
            while len((await control.ask(LIST, ListSessions(""))).sessions) > 1:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for session in opened:
            with pytest.raises(UnknownSession):
                await control.ask(SHOW, OneSession("", session.id))
        await control.ask(SHOW, OneSession("", other.id))


async def test_a_process_that_is_not_there_owns_nothing(owner: subprocess.Popen[bytes]) -> None:
    owner.kill()
    owner.wait()
    control = LocalControl()
    async with install(control, SessionOptions):
        with pytest.raises(InvalidField, match="owner_pid"):
            await control.ask(OPEN, order(pid=owner.pid))
