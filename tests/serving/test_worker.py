"""A worker whose server goes away."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from headrace.engines.base import Engine, ModelInfo, ModelSpec
from headrace.serving import wire, worker
from headrace.types import Role


async def test_a_worker_ends_when_its_server_goes_away_during_a_load(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entered, release = threading.Event(), threading.Event()

    class Endless(Engine):
        def load(self, spec: ModelSpec, device: str = "cpu") -> ModelInfo:
            entered.set()
            release.wait()
            return ModelInfo(spec.name, spec.role, spec.engine, "endless")

    monkeypatch.setattr(worker, "create", lambda name: Endless())
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    _, server = await asyncio.open_unix_connection(sock=ours)
    serving = asyncio.create_task(worker.Worker(reader, writer).serve())
    spec = ModelSpec("slow", Role.EMBEDDER, "echo", "", "", {})
    wire.write(server, wire.Load(spec))
    try:
        await asyncio.to_thread(entered.wait)
        assert not serving.done()
        server.close()
        await asyncio.wait_for(serving, 30)
    finally:
        release.set()
        writer.close()
