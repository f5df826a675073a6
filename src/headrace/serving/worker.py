"""A worker process: one engine with one model, behind a socket given by its file number.

Started as `python -m headrace.serving.worker FD`. The event loop only moves messages; the engine
computes in threads. Work that cannot be done at once waits in two lanes, interactive before bulk.
When the other end of the socket is gone, the process ends at once, whatever a thread is doing:
so no worker outlives its server, not even one killed with -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import sys
from collections.abc import Awaitable

from headrace.engines.base import Engine
from headrace.engines.registry import create
from headrace.errors import HeadraceError
from headrace.serving import wire
from headrace.types import Lane

UNLOAD_SECONDS = 2.0


class Worker:
    """Answers the messages of `headrace.serving.wire`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._engine = Engine()
        self._loaded = False
        self._running: dict[int, asyncio.Task[None]] = {}
        self._waiting: asyncio.PriorityQueue[tuple[bool, int, wire.Work]] = asyncio.PriorityQueue()
        self._order = itertools.count()
        self._dropped: set[int] = set()
        self._queued: set[int] = set()

    async def serve(self) -> None:
        """Until the other end closes, also while the model is being loaded."""
        first = await wire.read_request(self._reader)
        if not isinstance(first, wire.Load):
            return
        loading = asyncio.create_task(self._load(first))
        following = asyncio.create_task(wire.read_request(self._reader))
        await asyncio.wait((loading, following), return_when=asyncio.FIRST_COMPLETED)
        if following.done() and following.result() is None:
            return
        if not await loading:
            return
        message = await following
        async with asyncio.TaskGroup() as group:
            threads = [group.create_task(self._compute()) for _ in range(self._engine.parallel)]
            while message is not None:
                match message:
                    case wire.Cancel(id):
                        self._cancel(id)
                    case wire.Generate():
                        task = group.create_task(self._answer(message.id, self._generate(message)))
                        self._running[message.id] = task
                    case wire.Embed() | wire.Score() | wire.Count():
                        bulk = message.lane is Lane.BULK
                        self._queued.add(message.id)
                        self._waiting.put_nowait((bulk, next(self._order), message))
                    case wire.Load():
                        raise RuntimeError("a worker holds one model for its whole life")
                message = await wire.read_request(self._reader)
            for task in [*threads, *self._running.values()]:
                task.cancel()

    async def unload(self) -> None:
        """Let the engine clean up, if that is quick: it may still be computing."""
        if not self._loaded:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(UNLOAD_SECONDS):
                await asyncio.to_thread(self._engine.unload)

    async def _load(self, message: wire.Load) -> bool:
        try:
            self._engine = create(message.spec.engine)
            info = await asyncio.to_thread(self._engine.load, message.spec, message.device)
        except HeadraceError as error:
            await self._send(wire.Failed(0, error.code, error.message))
            return False
        self._loaded = True
        await self._send(wire.Loaded(info))
        return True

    def _cancel(self, id: int) -> None:
        task = self._running.get(id)
        if task is not None:
            task.cancel()
        elif id in self._queued:
            self._dropped.add(id)

    async def _compute(self) -> None:
        """One computing thread: the next item of the better lane, as soon as it is free."""
        while True:
            _, _, message = await self._waiting.get()
            self._queued.discard(message.id)
            if message.id in self._dropped:
                self._dropped.discard(message.id)
                continue
            await self._answer(message.id, self._call(message))

    async def _call(self, message: wire.Work) -> None:
        match message:
            case wire.Embed(id, texts, kind):
                found = await asyncio.to_thread(self._engine.embed, texts, kind)
                await self._send(wire.Array.of(id, found))
            case wire.Score(id, query, texts):
                found = await asyncio.to_thread(self._engine.score, query, texts)
                await self._send(wire.Array.of(id, found))
            case wire.Count(id, texts):
                counted = await asyncio.to_thread(self._engine.count, texts)
                await self._send(wire.Counts(id, tuple(counted)))

    async def _generate(self, message: wire.Generate) -> None:
        deltas = self._engine.generate(message.messages, message.params)
        async with contextlib.aclosing(deltas):
            async for delta in deltas:
                await self._send(wire.Part(message.id, delta))
        await self._send(wire.End(message.id))

    async def _answer(self, id: int, work: Awaitable[None]) -> None:
        """Do the work; whatever goes wrong in it is reported under its id and hurts no other."""
        try:
            await work
        except HeadraceError as error:
            retry_after = getattr(error, "retry_after", 0.0)
            await self._send(wire.Failed(id, error.code, error.message, retry_after))
        except Exception as error:  # noqa: BLE001 - process boundary: a bug of an engine is told
            text = f"{type(error).__name__}: {error}"
            await self._send(wire.Failed(id, "model_failed", f"the engine failed: {text}"))
        finally:
            self._running.pop(id, None)

    async def _send(self, message: wire.FromWorker) -> None:
        wire.write(self._writer, message)
        await self._writer.drain()


async def _main(file_number: int) -> None:
    reader, writer = await asyncio.open_unix_connection(
        sock=socket.socket(fileno=file_number), limit=wire.MAX_FRAME
    )
    try:
        worker = Worker(reader, writer)
        await worker.serve()
        writer.close()
        await writer.wait_closed()
        await worker.unload()
    finally:
        sys.stderr.flush()
        # A thread may still be computing for a server that is gone; nobody waits for it.
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
