"""Clients that take nothing, or send too much, over a real socket: bounded, and nobody else hears
of it."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from http_app import Live, live

from headrace.config.model_options import DefaultModels
from headrace.config.options import Config, ServerOptions
from headrace.serving.models import Models
from headrace.types import Delta

PIECE = 64 * 1024


class Endless:
    """A generator that never stops, and tells what it made and that it was stopped."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.made = 0
        self.stopped = threading.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._models, name)

    async def generate(self, *_: object, **__: object) -> AsyncGenerator[Delta, None]:
        try:
            while True:
                self.made += 1
                yield Delta("x" * PIECE)
        finally:
            self.stopped.set()


def wrapped() -> tuple[Callable[[Models], Models], list[Endless]]:
    made: list[Endless] = []

    def wrap(models: Models) -> Models:
        made.append(Endless(models))
        return made[0]  # type: ignore[return-value]

    return wrap, made


@pytest.fixture
def endless() -> tuple[Callable[[Models], Models], list[Endless]]:
    return wrapped()


@pytest.fixture
def server(
    filled_copy: Path,
    echo: dict[str, Any],
    endless: tuple[Callable[[Models], Models], list[Endless]],
) -> Iterator[Live]:
    config = Config(
        data_dir=filled_copy,
        models=echo,
        defaults=DefaultModels(generator="echo-generator", embedder="echo-embedder"),
        server=ServerOptions(stall_seconds=0.3, max_body_mib=1),
    )
    with live(config, endless[0]) as running:
        yield running


def connected(server: Live, receive_buffer: int | None = None) -> socket.socket:
    found = socket.socket()
    if receive_buffer is not None:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    address = urlsplit(server.url)
    found.settimeout(20)
    found.connect((address.hostname, address.port))
    return found


def read_all(client: socket.socket) -> None:
    while client.recv(1 << 20):
        pass


def head(path: str, length: int, *more: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def test_a_client_that_never_reads_stops_the_model_and_is_cut_off(
    server: Live, endless: tuple[Callable[[Models], Models], list[Endless]]
) -> None:
    body = b'{"model":"echo-generator","stream":true,"messages":[{"role":"user","content":"x"}]}'
    with connected(server, receive_buffer=4096) as client:
        client.sendall(head("/v1/chat/completions", len(body)) + body)
        assert endless[1][0].stopped.wait(20)
        # Some lie in the queue of the stream, in the transport and in the kernel (4 MiB and more).
        assert endless[1][0].made < 64 + 16 * 1024 * 1024 // PIECE
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        with pytest.raises(ConnectionError):
            read_all(client)


def test_a_huge_body_is_refused_without_being_read(server: Live) -> None:
    size, sent = 100 * 1024 * 1024, 0
    with connected(server) as client:
        client.sendall(head("/v1/embeddings", size))
        try:
            while sent < size:
                sent += client.send(b" " * PIECE)
        except ConnectionError:
            pass
        assert client.recv(PIECE).startswith(b"HTTP/1.1 413")
    assert sent < size // 3
    assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_a_huge_body_of_unknown_length_is_refused_too(server: Live) -> None:
    size, sent = 100 * 1024 * 1024, 0
    with connected(server) as client:
        start = head("/v1/embeddings", 0, "Transfer-Encoding: chunked")
        client.sendall(start.replace(b"Content-Length: 0\r\n", b""))
        try:
            while sent < size:
                client.sendall(b"%x\r\n%b\r\n" % (PIECE, b" " * PIECE))
                sent += PIECE
        except ConnectionError:
            pass
        assert client.recv(PIECE).startswith(b"HTTP/1.1 413")
    assert sent < size // 3
