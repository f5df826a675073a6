"""One of several server processes: HTTP, pipeline and retrieval over the models of the host.

Started by `headrace.cli.supervise` as `python -m headrace.cli.server_process LISTENER HOST SHARES
SLOTS SLOT`: the file numbers of the listening socket, of the socket to the host and of the shared
counts, the number of processes, and which of them this is. SIGTERM lets it finish its running
answers; when the host is gone it ends, for it has no models then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import threading
import time

import uvicorn

from headrace.app import application
from headrace.cli.accepting import Acceptor, Shares
from headrace.cli.joining import SERVING, UNABLE, Serving, Unable
from headrace.cli.server import Server, server_options
from headrace.config.options import Config
from headrace.errors import HeadraceError
from headrace.http.app import create_app
from headrace.serving.hosting import Host
from headrace.serving.remote import RemoteHost
from headrace.serving.settings import SHOW, following
from headrace.serving.survey import Nothing, answer_own_metrics
from headrace.telemetry import Metrics, configure_logging

log = logging.getLogger("headrace.server")

END_SECONDS = 3.0
"""How long a process may take to clean up when the host is gone."""


class MemberServer(Server):
    """Accepts from a socket that it shares. Tells the host when it serves."""

    def __init__(self, config: uvicorn.Config, host: RemoteHost, shares: Shares) -> None:
        super().__init__(config)
        self._host = host
        self._shares = shares
        self._acceptors: list[Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=[])
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )

        def held() -> int:
            return len(self.server_state.connections)

        self._acceptors = [Acceptor(one, protocol, held, self._shares) for one in sockets or ()]
        self.servers.extend(self._acceptors)  # type: ignore[arg-type]
        await self._host.control.ask(SERVING, Serving(os.getpid()))

    async def on_tick(self, counter: int) -> bool:
        for acceptor in self._acceptors:
            acceptor.update()
        return await super().on_tick(counter)


async def serve(listener: socket.socket, end: socket.socket, shares: Shares) -> int:
    """Returns the exit status."""
    configure_logging()
    server: MemberServer | None = None

    def gone() -> None:
        log.error("the host process is gone; this server process ends")
        threading.Thread(target=_end_anyway, daemon=True).start()
        if server is not None:
            server.should_exit = server.force_exit = True

    remote = RemoteHost(gone)
    await remote.connect(end)
    try:
        shown = await remote.control.ask(SHOW, Nothing())
        config = Config.model_validate_json(shown.config)
        metrics = Metrics()
        answer_own_metrics(remote.answers, metrics)
        async with application(config, Host(remote.models, remote.control, metrics)) as services:
            app = create_app(services)
            server = MemberServer(server_options(config, app), remote, shares)
            async with following(remote.control, shown.version, app.state.live.configure):
                await server.serve(sockets=[listener])
    except HeadraceError as error:
        await remote.control.ask(UNABLE, Unable(os.getpid(), error.code, error.message))
        return 1
    finally:
        await remote.close()
    return 0


def _end_anyway() -> None:
    """Whatever the event loop and other threads may be doing."""
    time.sleep(END_SECONDS)
    os._exit(1)


def main() -> None:
    listener, end, shared, slots, slot = map(int, sys.argv[1:])
    shares = Shares(shared, slots, slot)
    os.close(shared)
    try:
        sys.exit(
            asyncio.run(serve(socket.socket(fileno=listener), socket.socket(fileno=end), shares))
        )
    except HeadraceError as error:  # the host is gone, and nobody else would be told
        log.error("%s", error.message)
        sys.exit(1)


if __name__ == "__main__":
    main()
