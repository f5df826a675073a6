"""The server process around the application: its socket, its signals, its first words."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import Iterator

import uvicorn

from headrace.app import LocalHost, application, model_host
from headrace.cli import terminal
from headrace.config.options import Config, ServerOptions
from headrace.errors import ConfigError
from headrace.http.app import create_app
from headrace.http.protocol import Protocol
from headrace.serving.warmup import Warmup
from headrace.telemetry import configure_logging

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


def warmup_of(config: Config, host: LocalHost) -> Warmup:
    """Loads the default models; what cannot be loaded makes the server not ready."""
    defaults = config.defaults
    names = (defaults.embedder, defaults.generator, defaults.reranker)
    warmup = Warmup(host.models, [name for name in names if name is not None])
    host.surveyor.failures = warmup.failures
    return warmup


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


def listen(server: ServerOptions) -> socket.socket:
    """A listening socket. Raises `ConfigError` if the address cannot be had."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        place = (str(address[0]), server.port)
        listener = socket.create_server(place, family=family, backlog=1024)
        # Connections inherit it. asyncio sets it only on sockets whose protocol number is given,
        # and without it every response waits 40 ms for the client's delayed acknowledgement.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {server.host} port {server.port}: {error.strerror}; "
            "--port 0 takes a free port"
        ) from error


def announce(server: ServerOptions, listener: socket.socket) -> None:
    """Say where the server is, and warn if strangers can reach it."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    console = terminal.out()
    console.print(
        f"Headrace listens on {url} (OpenAI's API: {url}/v1, its document: {url}/openapi.json)"
    )
    console.file.flush()
    if not server.keys and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        terminal.err().print(
            "warning: whoever reaches this address can use it; set server.keys, or listen on "
            "127.0.0.1"
        )
