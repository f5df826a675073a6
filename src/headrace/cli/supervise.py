"""The host process of several server processes: it holds the socket and the models, and keeps the
processes alive.

All accept from one listening socket that they inherit. With a socket each (SO_REUSEPORT) the kernel
would deal out connections by a hash, to busy, stopped and idle processes alike, and one that ends
would take the connections with it that wait in its queue; from a common queue whoever is free takes
the next (`headrace.cli.accepting`), and a connection not yet accepted is lost with nobody.

A server process is told everything over a socket pair and leaves no path on the disk. When the host
ends, for whatever reason, the pair closes and the process ends. It has a session of its own, so
Ctrl-C at the terminal reaches the host alone, which then ends the processes in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from asyncio import FIRST_COMPLETED
from collections.abc import Iterator

from headrace.cli.accepting import Shares
from headrace.cli.joining import SERVING, UNABLE, Serving, Unable
from headrace.cli.listening import SIGNALS, announce, listen, warmup_of
from headrace.config.options import Config
from headrace.config.origin import Origin
from headrace.errors import HeadraceError, by_code
from headrace.serving.control import LocalControl
from headrace.serving.host import HostServer
from headrace.serving.hosting import model_host
from headrace.serving.survey import Nothing, Surveyor
from headrace.telemetry import configure_logging

log = logging.getLogger(__name__)

MAX_FAILURES = 5
"""So many processes end without that one has served, and the host gives up."""

STEADY_SECONDS = 10.0
"""A process that ends before has its successor wait, and that one's twice as long."""

FIRST_DELAY = 0.1
LAST_DELAY = 5.0

KILL_SECONDS = 5.0
"""How long a process may take to end beyond what its requests may take."""


async def supervise(config: Config, origin: Origin) -> int:
    """Serve `config`, and what becomes of it where it came from, with `server.processes` processes
    until a signal says stop; the exit status is 130 after Ctrl-C, 0 after SIGTERM. Raises
    `HeadraceError` if the processes cannot serve."""
    configure_logging()
    with listen(config.server) as listener:
        async with (
            model_host(config, origin) as host,
            HostServer(host.models, host.control) as server,
            warmup_of(config, host).in_background(),
        ):
            host.surveyor.servers = server
            processes = Processes(config, listener, server, host.surveyor)
            processes.register(host.control)
            with processes.signals():
                await processes.run()
    return 130 if processes.interrupted else 0


class Processes:
    """The server processes, one for each slot, numbered from 1. A slot's process that ends is
    replaced: soon if it had lived for a while, else after a delay that doubles up to 5 s."""

    def __init__(
        self, config: Config, listener: socket.socket, server: HostServer, surveyor: Surveyor
    ) -> None:
        self.interrupted = False
        self._config = config
        self._listener = listener
        self._server = server
        self._surveyor = surveyor
        self._shares = Shares.make(config.server.processes)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._serving: set[int] = set()  # PIDs
        self._served = asyncio.Event()  # all of them, once
        self._failures = 0
        self._stopping = asyncio.Event()
        self._at_once = asyncio.Event()
        self._cause: HeadraceError | None = None

    def register(self, control: LocalControl) -> None:
        """Answer what new processes ask."""

        async def serving(told: Serving) -> Nothing:
            self._serving.add(told.pid)
            self._failures = 0
            if len(self._serving) == self._config.server.processes and not self._served.is_set():
                self._served.set()
                announce(self._config.server, self._listener)
            return Nothing()

        async def unable(told: Unable) -> Nothing:
            log.warning("server process %d cannot serve: %s", told.pid, told.message)
            if not self._served.is_set():
                self._give_up(by_code(told.code, told.message))
            return Nothing()

        control.answer(SERVING, serving)
        control.answer(UNABLE, unable)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the processes after their running answers, the second
        at once."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._stop, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _stop(self, number: int) -> None:
        self.interrupted |= number == signal.SIGINT
        if self._stopping.is_set():
            self._at_once.set()
        self._stopping.set()

    def _give_up(self, cause: HeadraceError) -> None:
        self._cause = self._cause or cause
        self._stopping.set()

    async def run(self) -> None:
        """Returns when all processes have ended after a signal. Raises what kept them from
        serving."""
        async with asyncio.TaskGroup() as group:
            slots = range(1, self._config.server.processes + 1)
            keepers = [group.create_task(self._keep(slot)) for slot in slots]
            await self._stopping.wait()
            hurry = group.create_task(self._at_once.wait())
            await self._end(asyncio.gather(*keepers), hurry)
            hurry.cancel()
        os.close(self._shares)
        if self._cause is not None:
            raise self._cause

    async def _end(self, ended: asyncio.Future[list[None]], hurry: asyncio.Task[bool]) -> None:
        """Ask the processes to end, ask again, and see that they do."""
        self._listener.close()  # else the kernel would go on queueing connections for nobody
        self._signal(signal.SIGTERM)
        patience = self._config.server.shutdown_seconds + KILL_SECONDS
        await asyncio.wait((ended, hurry), timeout=patience, return_when=FIRST_COMPLETED)
        if not ended.done():
            self._signal(signal.SIGTERM)  # the second one: without waiting for answers
            await asyncio.wait((ended,), timeout=KILL_SECONDS)
        if not ended.done():
            log.warning("server processes do not end; killing them")
            self._signal(signal.SIGKILL)
            await ended

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)

    async def _keep(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            began = loop.time()
            how = await self._live(slot)
            if self._stopping.is_set():
                return
            self._surveyor.restarts += 1
            log.warning("server process %d ended (%s); another one takes its place", slot, how)
            self._judge(how)
            steady = loop.time() - began >= STEADY_SECONDS
            delay = FIRST_DELAY if steady else min(2 * delay, LAST_DELAY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()

    def _judge(self, how: str) -> None:
        self._failures += 1
        if self._failures >= MAX_FAILURES and not self._serving:
            self._give_up(
                HeadraceError(
                    f"server processes end before they serve, {MAX_FAILURES} in a row; the last "
                    f"one: {how}; what they said stands above"
                )
            )

    async def _live(self, slot: int) -> str:
        """Start a process; how it ended, once it has."""
        try:
            process = await self._start(slot)
        except OSError as error:
            return f"it could not be started: {error.strerror}"
        status = await process.wait()
        del self._processes[slot]
        self._serving.discard(process.pid)
        how = f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return f"PID {process.pid}, {how}"

    async def _start(self, slot: int) -> asyncio.subprocess.Process:
        ours, theirs = socket.socketpair()
        with theirs:
            numbers = (self._listener.fileno(), theirs.fileno(), self._shares)
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "headrace.cli.server_process"),
                    *map(str, (*numbers, self._config.server.processes, slot)),
                    pass_fds=numbers,
                    stdin=asyncio.subprocess.DEVNULL,
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._processes[slot] = process
        if self._stopping.is_set():
            process.terminate()
        await self._server.attach(ours, str(slot))
        return process
