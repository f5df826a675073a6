"""The server process around the application: its socket, its signals, its first words."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import uvicorn

from headrace.app import application
from headrace.cli.listening import SIGNALS, announce, listen, warmup_of
from headrace.config.options import Config
from headrace.http.app import create_app
from headrace.http.protocol import Protocol
from headrace.serving.hosting import model_host
from headrace.telemetry import configure_logging


async def serve(config: Config) -> int:
    """Serve until a signal says stop; the exit status is 130 after Ctrl-C, 0 after SIGTERM."""
    configure_logging()
    with listen(config.server) as listener:
        async with model_host(config) as host, application(config, host) as services:
            warmup = warmup_of(config, host)
            server = Server(
                uvicorn.Config(
                    create_app(services),
                    http=Protocol,
                    log_config=None,
                    access_log=False,
                    timeout_graceful_shutdown=max(1, round(config.server.shutdown_seconds)),
                )
            )
            async with warmup.in_background():
                announce(config.server, listener)
                await server.serve(sockets=[listener])
    return 130 if server.interrupted else 0


class Server(uvicorn.Server):
    """Ends on SIGINT or SIGTERM (the second does not wait) by returning from `serve`, where its
    base raises the signal once more, which would end the process before its workers."""

    interrupted = False

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
        self.force_exit = self.should_exit
        self.should_exit = True
