"""What comes before the first connection: the socket, and the first words."""

from __future__ import annotations

import ipaddress
import signal
import socket

from headrace.cli import terminal
from headrace.config.options import Config, ServerOptions
from headrace.errors import ConfigError
from headrace.serving.hosting import LocalHost
from headrace.serving.warmup import Warmup

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SEND_BUFFER = 128 * 1024
"""Bytes that the kernel keeps of what a client does not read, per connection (Linux takes twice as
much); by itself it would keep four MiB of each, for a hundred slow readers of streams 400."""


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
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
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


def warmup_of(config: Config, host: LocalHost) -> Warmup:
    """Loads the default models; what cannot be loaded makes the server not ready."""
    defaults = config.defaults
    names = (defaults.embedder, defaults.generator, defaults.reranker)
    warmup = Warmup(host.models, [name for name in names if name is not None])
    host.surveyor.failures = warmup.failures
    return warmup
