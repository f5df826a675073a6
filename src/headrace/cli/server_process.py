"""One of several server processes: HTTP, pipeline and retrieval over the models of the host.

Started by `headrace.cli.supervise` as `python -m headrace.cli.server_process LISTENER HOST`, with
the file numbers of the listening socket and of the socket to the host. SIGTERM lets it finish its
running answers; when the host is gone it ends, for it has no models then.
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
from headrace.cli.joining import SERVING, SETTINGS, UNABLE, Serving, Unable
from headrace.cli.server import Server, server_options
from headrace.config.options import Config
from headrace.errors import HeadraceError
from headrace.http.app import create_app
from headrace.serving.hosting import Host
from headrace.serving.remote import RemoteHost
from headrace.serving.survey import Nothing, answer_own_metrics
from headrace.telemetry import Metrics, configure_logging

log = logging.getLogger("headrace.server")

BACKLOG = 1024
ACCEPTED_AT_ONCE = 1
"""Connections that one turn of the event loop takes from the common queue: the next goes to
whichever process is free first, where many at once would let one process take a whole burst."""

END_SECONDS = 3.0
"""How long a process may take to clean up when the host is gone."""


class MemberServer(Server):
    """Accepts from a socket that it shares. Tells the host when it serves."""

    def __init__(self, config: uvicorn.Config, host: RemoteHost) -> None:
        super().__init__(config)
        self._host = host

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            # asyncio takes one number both for connections accepted in one turn and for the
            # length of the kernel's queue.
            listener.listen(BACKLOG)
        await self._host.control.ask(SERVING, Serving(os.getpid()))


async def serve(listener: socket.socket, end: socket.socket) -> int:
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
        settings = await remote.control.ask(SETTINGS, Nothing())
        config = Config.model_validate_json(settings.config)
        metrics = Metrics()
        answer_own_metrics(remote.answers, metrics)
        async with application(config, Host(remote.models, remote.control, metrics)) as services:
            options = server_options(config, create_app(services))
            options.backlog = ACCEPTED_AT_ONCE
            server = MemberServer(options, remote)
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
    listener, end = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    try:
        sys.exit(asyncio.run(serve(listener, end)))
    except HeadraceError as error:  # the host is gone, and nobody else would be told
        log.error("%s", error.message)
        sys.exit(1)


if __name__ == "__main__":
    main()
