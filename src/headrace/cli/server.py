"""The server process around the application: its socket, its signals, its first words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import time
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import State

from headrace.app import application
from headrace.cli.listening import SIGNALS, announce, listen, warmup_of
from headrace.config.options import Config, ServerOptions
from headrace.config.origin import Origin
from headrace.http.app import create_app
from headrace.http.drain import Drain
from headrace.http.protocol import Protocol
from headrace.serving.hosting import model_host
from headrace.serving.settings import following
from headrace.telemetry import configure_logging

GC_ALLOCATIONS = 20_000
"""Objects made and kept between two collections of the youngest; Python's own number is 700, and a
search makes about a thousand for as long as it lasts."""
FLUSH_SECONDS = 2
"""For the last bytes of ended answers to leave."""


async def serve(config: Config, origin: Origin) -> int:
    """Serve `config`, and what becomes of it where it came from, until a signal says stop; the exit
    status is 130 after Ctrl-C, 0 after SIGTERM."""
    configure_logging()
    with listen(config.server) as listener:
        async with model_host(config, origin) as host, application(config, host) as services:
            warmup = warmup_of(config, host)
            app = create_app(services)
            server = Server(server_options(config, app))
            version, configure = services.config_version, app.state.live.configure
            async with (
                warmup.in_background(),
                following(services.control, version, configure),
            ):
                announce(config.server, listener)
                await server.serve(sockets=[listener])
    return 130 if server.interrupted else 0


def server_options(config: Config, app: FastAPI) -> uvicorn.Config:
    """How uvicorn serves the application."""
    return uvicorn.Config(
        app,
        http=Protocol.bounded(config.server),
        log_config=None,
        access_log=False,
        timeout_keep_alive=max(1, round(config.server.keepalive_seconds)),
        timeout_graceful_shutdown=FLUSH_SECONDS,
    )


class Server(uvicorn.Server):
    """Ends on SIGINT or SIGTERM (the second does not wait) by returning from `serve`, where its
    base raises the signal once more, which would end the process before its workers.

    Between the signal and the end it drains: new requests are refused, running ones have
    `server.shutdown_seconds`, and what is left then is told so."""

    interrupted = False
    _expires: float | None = None  # when running requests are ended, since a signal came

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """What is there by now stays to the end: the collector need not walk through it for every
        few hundred objects of a request, which was a twelfth of a search's CPU time."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
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
        if self._expires is not None:
            self.should_exit = self.force_exit = True
            return
        state = self._app_state()
        options: ServerOptions = state.live.server
        self._expires = time.monotonic() + options.shutdown_seconds
        state.drain.begin()
        if options.processes > 1 and self.started:  # the others take the new connections
            for listener in self.servers:
                listener.close()

    def _app_state(self) -> State:
        assert isinstance(self.config.app, FastAPI)
        return self.config.app.state

    async def on_tick(self, counter: int) -> bool:
        if self._expires is not None:
            drain: Drain = self._app_state().drain
            if time.monotonic() >= self._expires:
                drain.expire()
                self.should_exit = True
            self.should_exit |= drain.empty
        return await super().on_tick(counter)
