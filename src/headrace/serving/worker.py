"""A worker process: one engine with one model, behind a socket. `launch` starts it.

The event loop only moves messages; the engine computes in threads, and counts in one of its own,
so that a count never waits behind a batch. When the other end of the socket is gone, the process
ends at once, whatever a thread is doing: no worker outlives its server, not even one killed
with -9.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

from headrace import __version__
from headrace.engines import machine
from headrace.engines.base import Engine
from headrace.engines.registry import create
from headrace.errors import HeadraceError, ModelFailed
from headrace.serving import wire
from headrace.serving.frames import Frames, connect, frame
from headrace.serving.labour import Labour
from headrace.types import Delta

UNLOAD_SECONDS = 2.0


class Credit:
    """How many deltas a stream may still send."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.more = asyncio.Event()

    def grant(self, deltas: int) -> None:
        self.left += deltas
        self.more.set()

    async def take(self) -> None:
        while self.left <= 0:
            self.more.clear()
            await self.more.wait()
        self.left -= 1


class Worker:
    """Answers the messages of `headrace.serving.wire`. `gone` is set when nobody asks any more."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.frames = Frames(wire.to_worker, self._receive, self._lost)
        self.gone = asyncio.Event()
        self._engine = Engine()
        self._serving = False
        self._move: asyncio.Task[None] | None = None
        self._streams: dict[int, tuple[asyncio.Task[None], Credit]] = {}
        self._parts: dict[int, list[Delta]] = {}
        self._labour: list[Labour] = []
        self._answered = 0

    @property
    def steps(self) -> int:
        """Grows while work is being done; counting is none."""
        return self._answered + self._engine.steps

    # Messages -----------------------------------------------------------------------------------

    def _receive(self, message: wire.ToWorker) -> None:
        match message:
            case wire.Cancel(id):
                self._cancel(id)
            case wire.Grant(id, deltas):
                if id in self._streams:
                    self._streams[id][1].grant(deltas)
            case wire.Load() | wire.Park():
                self._serving = False
                self._move = self._loop.create_task(self._moved(message, self._move))
            case _ if not self._serving:
                self._fail(message.id, ModelFailed("the model is not on its seat"))
            case wire.Generate():
                credit = Credit(message.window)
                task = self._loop.create_task(self._stream(message, credit))
                self._streams[message.id] = (task, credit)
                task.add_done_callback(partial(self._streamed, message.id))
            case wire.Count():
                self._labour[1].put(message)
            case _:
                self._labour[0].put(message)

    def _lost(self, damage: ModelFailed | None) -> None:
        if damage is not None:
            sys.stderr.write(f"{damage}\n")
        self.gone.set()

    def _cancel(self, id: int) -> None:
        if id in self._streams:
            self._streams[id][0].cancel()
        for labour in self._labour:
            labour.cancel(id)

    def _fail(self, id: int, error: HeadraceError) -> None:
        retry_after = getattr(error, "retry_after", 0.0)
        self.frames.send(wire.Failed(id, error.code, error.message, retry_after))

    # Moves --------------------------------------------------------------------------------------

    async def _moved(
        self, message: wire.Load | wire.Park, before: asyncio.Task[None] | None
    ) -> None:
        """Off the seat first, when what is running there has ended; then on to the next one."""
        if before is not None:
            await before
        await self._unload()
        if isinstance(message, wire.Park):
            self.frames.send(wire.Parked())
            return
        try:
            self._engine = create(message.spec.engine)
            info = await asyncio.to_thread(self._engine.load, message.spec, message.seat)
        except HeadraceError as error:
            self._fail(0, error)
        except MemoryError:
            self._fail(0, self._out_of_memory("to load the model"))
        else:
            self._labour = [
                Labour(self._compute, self._engine.parallel, "compute"),
                Labour(self._compute, 1, "count"),
            ]
            self._serving = True
            self.frames.send(wire.Loaded(info))

    async def _unload(self) -> None:
        if not self._labour:
            return
        await asyncio.gather(*(task for task, _ in self._streams.values()), return_exceptions=True)
        labour, self._labour = self._labour, []
        for one in labour:
            await asyncio.to_thread(one.finish)
        await asyncio.to_thread(self._engine.unload)
        self._engine = Engine()
        await asyncio.to_thread(machine.give_back)

    async def end(self) -> None:
        """Let the engine clean up, if that is quick: it may still be computing."""
        if self._labour:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNLOAD_SECONDS):
                    await asyncio.to_thread(self._engine.unload)

    # Work ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _answer(self, id: int) -> Iterator[None]:
        """Whatever goes wrong inside is reported under its id and hurts no other."""
        failure: HeadraceError
        try:
            yield
        except HeadraceError as error:
            failure = error
        except MemoryError:
            failure = self._out_of_memory("for this request; send less at once")
        except Exception as error:  # noqa: BLE001 - process boundary: a bug of an engine is told
            failure = ModelFailed(f"the engine failed: {type(error).__name__}: {error}")
        else:
            return
        self._loop.call_soon_threadsafe(self._fail, id, failure)

    def _out_of_memory(self, what: str) -> ModelFailed:
        held = machine.resident_bytes() // machine.MIB
        return ModelFailed(f"there is not enough memory {what}; the worker holds {held} MiB")

    def _compute(self, message: wire.Call) -> None:
        """In a thread: also the reply is encoded there."""
        with self._answer(message.id):
            reply: wire.Answer
            match message:
                case wire.Embed(id, texts, kind):
                    reply = wire.Array.of(id, self._engine.embed(texts, kind))
                case wire.Score(id):
                    reply = wire.Array.of(id, self._engine.score(message.pairs()))
                case wire.Compress(id, texts):
                    reply = wire.Codes(id, tuple(self._engine.compress(texts)))
                case wire.Count(id, texts):
                    reply = wire.Counts(id, tuple(self._engine.count(texts)))
            self._loop.call_soon_threadsafe(self.frames.send_frame, frame(reply))
        if not isinstance(message, wire.Count):
            self._answered += 1

    async def _stream(self, message: wire.Generate, credit: Credit) -> None:
        id = message.id
        with self._answer(id):
            deltas = self._engine.generate(message.messages, message.params)
            async with contextlib.aclosing(deltas):
                async for delta in deltas:
                    await credit.take()
                    self._put(id, delta)
            self._flush()
            self.frames.send(wire.Parts(id, (), last=True))
        self._answered += 1

    def _streamed(self, id: int, done: asyncio.Task[None]) -> None:
        del self._streams[id]

    def _put(self, id: int, delta: Delta) -> None:
        """Deltas that come in one turn of the loop leave together."""
        self._answered += 1
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.setdefault(id, []).append(delta)

    def _flush(self) -> None:
        parts, self._parts = self._parts, {}
        for id, deltas in parts.items():
            self.frames.send(wire.Parts(id, tuple(deltas)))
        self.frames.flush()


class Heart(threading.Thread):
    """Tells every `period` seconds that the process lives and how far it is, whatever the event
    loop and the engine do, unless native code holds the Python lock; sees to it that the process
    ends when nobody listens."""

    def __init__(self, worker: Worker, sock: socket.socket, period: float) -> None:
        super().__init__(name="heart", daemon=True)
        self._worker = worker
        self._sock = sock
        self._period = period

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._sock.sendall(frame(wire.Pulse(self._worker.steps)))
                time.sleep(self._period)
        # The loop sees it too, and cleans up; it has a little longer than it may need.
        time.sleep(2 * UNLOAD_SECONDS)
        end()


def end() -> None:
    """The process and what it has started: a thread may still be computing for a server that is
    gone, and nobody waits for it."""
    sys.stderr.flush()
    if os.getpgrp() == os.getpid():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(os.getpid(), signal.SIGTERM)
    os._exit(0)


async def _serve(link: int, pulse: int, period: float, folder: str) -> None:
    try:
        worker = Worker()
        await connect(socket.socket(fileno=link), worker.frames)
        worker.frames.send(wire.Hello(__version__))
        Heart(worker, socket.socket(fileno=pulse), period).start()
        await worker.gone.wait()
        await worker.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        end()


def run(link: int, pulse: int, period: float, folder: str) -> None:
    """Serve until the other end is gone. `folder` is this worker's own, and goes with it."""
    asyncio.run(_serve(link, pulse, period, folder))
