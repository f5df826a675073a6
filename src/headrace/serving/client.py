"""One live worker as the host sees it: its process, its requests, its health."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TypeVar

from headrace import __version__
from headrace.engines import machine
from headrace.engines.base import ModelInfo, ModelSpec, Pair, Vectors
from headrace.errors import ConfigError, HeadraceError, ModelFailed, Overloaded, by_code
from headrace.serving import wire
from headrace.serving.frames import Frames, connect
from headrace.serving.memory import Gpus, Memory, Meter
from headrace.serving.pending import Awaited, Stream
from headrace.serving.process import WorkerProcess
from headrace.serving.silence import Kind, Silence
from headrace.types import Delta, EmbedKind, GenerateParams, Lane, Message

log = logging.getLogger(__name__)

HELLO_SECONDS = 60.0
"""How long a new process may take to import what a worker needs."""

LOAD_SECONDS = 3600.0
"""Bound of a load: the first one may fetch gigabytes over a slow line."""

PARK_SECONDS = 60.0
"""Bound of a park, which waits for what is running."""

CLOSE_SECONDS = 5.0
"""How long a worker may take to clean up before it is killed."""

_Move = TypeVar("_Move", wire.Hello, wire.Loaded, wire.Parked)


@functools.cache
def _gpus() -> Gpus:
    return Gpus.found()


class WorkerClient:
    """All its methods belong to one event loop. Requests raise what the engine raised, or
    `ModelFailed` if the worker ends. `on_death` is called once, with the reason, when a worker
    that was started ends in any way but `close`; `alive` is False by then, and `close` remains to
    be called."""

    info: ModelInfo

    def __init__(
        self,
        spec: ModelSpec,
        process: WorkerProcess,
        silence: Silence,
        on_death: Callable[[HeadraceError], None] | None,
    ) -> None:
        self._spec = spec
        self._process = process
        self._silence = silence
        self._on_death = on_death
        self._loop = asyncio.get_running_loop()
        self._link = Frames(wire.from_worker, self._receive, self._lost)
        self._pulse = Frames(wire.pulses, lambda pulse: silence.pulsed(pulse.steps), lambda _: None)
        self._ids = itertools.count(1)
        self._pending: dict[int, Awaited | Stream] = {}
        self._meter = Meter(process.pid, _gpus())
        self._hello: wire.Hello | None = None
        self._moving: asyncio.Future[wire.FromWorker] | None = None
        self._failure: HeadraceError | None = None
        self._started = False
        self._held = 0  # bytes in memory when last asked, for the message if it dies
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def start(
        cls,
        spec: ModelSpec,
        *,
        seat: str = "cpu",
        cores: str = "",
        nice: int = 0,
        python: str | None = None,
        on_start: Callable[[int], None] | None = None,
        on_death: Callable[[HeadraceError], None] | None = None,
    ) -> WorkerClient:
        """Start a process and load the model; `on_start` is told its PID before the load, which
        may take long and all the memory there is. Raises what the load raised, `ModelFailed` if the
        process ended, `ConfigError` for an interpreter or cores that will not do."""
        limit = float(spec.options.get("timeout_seconds", 120.0))
        silence = Silence(limit, asyncio.get_running_loop().time)
        process = await WorkerProcess.spawn(
            spec.name, python=python, period=silence.period, nice=nice, cores=cores
        )
        client = cls(spec, process, silence, on_death)
        if on_start is not None:
            on_start(process.pid)
        try:
            await connect(process.link, client._link)
            await connect(process.pulse, client._pulse)
            await client._greet(python)
            await client.resume(seat)
        except BaseException as error:
            process.kill()
            await client._end(f"model {spec.name!r} was not loaded: {error}")
            raise
        client._started = True
        client._tasks.append(asyncio.create_task(client._watch(), name=f"watch {spec.name}"))
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._failure is None

    # Requests -----------------------------------------------------------------------------------

    async def stream(
        self, messages: Sequence[Message], params: GenerateParams
    ) -> AsyncGenerator[Delta, None]:
        """Closing it cancels the work. A reader that stops reading stops the engine a window of
        deltas later."""
        stream = Stream(self._loop.time(), wire.WINDOW)
        id = self._send(stream, lambda id: wire.Generate(id, tuple(messages), params))
        try:
            while (delta := await stream.next()) is not None:
                yield delta
                if more := stream.to_grant(wire.WINDOW):
                    self._link.send(wire.Grant(id, more))
        finally:
            self._forget(id, done=stream.last)

    async def embed(self, texts: Sequence[str], kind: EmbedKind, lane: Lane) -> Vectors:
        """float32 [n, dimensions]."""
        reply = await self._call(Kind.WORK, lambda id: wire.Embed(id, tuple(texts), kind, lane))
        assert isinstance(reply, wire.Array)
        return reply.values()

    async def score(self, pairs: Sequence[Pair], lane: Lane) -> Vectors:
        """float32 [n]."""
        reply = await self._call(Kind.WORK, lambda id: wire.Score.of(id, pairs, lane))
        assert isinstance(reply, wire.Array)
        return reply.values()

    async def compress(self, texts: Sequence[str], lane: Lane) -> tuple[bytes, ...]:
        reply = await self._call(Kind.WORK, lambda id: wire.Compress(id, tuple(texts), lane))
        assert isinstance(reply, wire.Codes)
        return reply.values

    async def count(self, texts: Sequence[str]) -> list[int]:
        reply = await self._call(Kind.COUNT, lambda id: wire.Count(id, tuple(texts)))
        assert isinstance(reply, wire.Counts)
        return list(reply.values)

    async def _call(self, kind: Kind, message: Callable[[int], wire.Call]) -> wire.Answer:
        awaited = Awaited(kind, self._loop.time())
        id = self._send(awaited, message)
        try:
            return await awaited.future
        finally:
            self._forget(id, done=awaited.future.done() and not awaited.future.cancelled())

    def _send(self, pending: Awaited | Stream, message: Callable[[int], wire.Work]) -> int:
        if self._failure is not None:
            raise self._failure
        id = next(self._ids)
        self._link.send(message(id))
        self._pending[id] = pending
        return id

    def _forget(self, id: int, *, done: bool) -> None:
        if self._pending.pop(id, None) is not None and not done and self.alive:
            self._link.send(wire.Cancel(id))

    # Moves --------------------------------------------------------------------------------------

    async def resume(self, seat: str) -> ModelInfo:
        """Bring the model to a seat, from parked or from another seat."""
        self._meter.start()
        loaded = await self._ask(wire.Load(self._spec, seat), wire.Loaded, LOAD_SECONDS, "loaded")
        self.info = loaded.info
        self._silence.start()
        return self.info

    async def park(self) -> None:
        """Take the model off its seat when what is running has ended; the process stays, and has
        given its memory back."""
        self._meter.start()
        await self._ask(wire.Park(), wire.Parked, PARK_SECONDS, "parked")
        self._silence.start()

    async def _greet(self, python: str | None) -> None:
        try:
            hello = self._hello or await self._ask(None, wire.Hello, HELLO_SECONDS, "started")
        except ModelFailed as error:
            if python is None:
                raise
            raise ConfigError(
                f"model {self._spec.name!r}: no worker starts with `python: {python}`: "
                f"{self._process.last_words() or error}; install headrace {__version__} there",
                field="python",
            ) from error
        if hello.version == __version__:
            return
        if python is None:
            raise ModelFailed(
                f"headrace {hello.version} has been installed over {__version__}, which runs; "
                "restart it"
            )
        raise ConfigError(
            f"model {self._spec.name!r}: `python: {python}` has headrace {hello.version}, and "
            f"this is {__version__}; install headrace {__version__} there",
            field="python",
        )

    async def _ask(
        self, message: wire.Load | wire.Park | None, reply: type[_Move], seconds: float, what: str
    ) -> _Move:
        """Kills the worker if it does not do as told in time, or if the caller is cancelled: in
        which state it is would be unknown."""
        if self._failure is not None:
            raise self._failure
        assert self._moving is None, "one move at a time"
        moving = self._moving = self._loop.create_future()
        if message is not None:
            self._link.send(message)
        try:
            async with asyncio.timeout(seconds):
                found = await moving
        except TimeoutError as error:
            self.kill(f"model {self._spec.name!r} was not {what} within {seconds:.0f} s")
            assert self._failure is not None
            raise self._failure from error
        except asyncio.CancelledError:
            self.kill(f"model {self._spec.name!r}: it was no longer to be {what}")
            raise
        finally:
            self._moving = None
        if isinstance(found, wire.Failed):
            raise by_code(found.code, found.message)
        assert isinstance(found, reply)
        return found

    # What comes ---------------------------------------------------------------------------------

    def _receive(self, message: wire.FromWorker) -> None:
        match message:
            case wire.Hello() | wire.Loaded() | wire.Parked() | wire.Failed(id=0):
                if self._moving is not None and not self._moving.done():
                    self._moving.set_result(message)
                elif isinstance(message, wire.Hello):
                    self._hello = message  # it was quicker than we are
                return
        pending = self._pending.get(message.id)
        if pending is None:
            return  # cancelled while the reply was on its way
        self._silence.heard(pending.kind)
        if isinstance(message, wire.Failed):
            pending.fail(_error(message))
        elif isinstance(message, wire.Parts):
            assert isinstance(pending, Stream)
            pending.put(message)
        else:
            assert isinstance(pending, Awaited)
            pending.put(message)

    def _lost(self, damage: ModelFailed | None) -> None:
        if self._failure is None:
            self._tasks.append(asyncio.create_task(self._bury(damage)))

    async def _bury(self, damage: ModelFailed | None) -> None:
        if damage is not None:
            self._process.kill()
        held = self._held
        how = str(damage) if damage else await self._process.how_it_ended(held)
        self._fail(
            ModelFailed(
                f"the worker of model {self._spec.name!r} ended ({how}); "
                "the next request starts a new one"
            )
        )

    def _fail(self, error: HeadraceError) -> None:
        """The one place where a worker dies."""
        if self._failure is not None:
            return
        self._failure = error
        for pending in self._pending.values():
            pending.fail(error)
        if self._moving is not None and not self._moving.done():
            self._moving.set_exception(error)
        if self._started and self._on_death is not None:
            self._on_death(error)

    # Health -------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """Measured now; takes some milliseconds where there are GPUs. The peak is since the last
        load or park began."""
        return self._meter.read()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._silence.period)
            self._held = machine.resident(self.pid).now or self._held
            if self._moving is not None:
                self._silence.start()
            elif wrong := self._silence.verdict(self._owed()):
                log.warning("worker %d of model %s %s", self.pid, self._spec.name, wrong)
                self.kill(f"model {self._spec.name!r} {wrong}; its worker was killed")
                return

    def _owed(self) -> dict[Kind, float]:
        owed: dict[Kind, float] = {}
        for pending in self._pending.values():
            if pending.since is not None:
                owed[pending.kind] = min(pending.since, owed.get(pending.kind, pending.since))
        return owed

    # The end ------------------------------------------------------------------------------------

    def kill(self, why: str) -> None:
        """At once; what it was doing fails with `ModelFailed(why)`."""
        self._process.kill()
        self._fail(ModelFailed(why))

    async def close(self) -> None:
        """End the process; returns when it is gone. What it was doing fails."""
        self._on_death = None
        await self._end(f"the worker of model {self._spec.name!r} was ended")

    async def _end(self, why: str) -> None:
        self._fail(ModelFailed(why))
        self._link.close()
        self._pulse.close()
        try:
            await self._process.end(CLOSE_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*self._tasks, return_exceptions=True)


def _error(message: wire.Failed) -> HeadraceError:
    error = by_code(message.code, message.message)
    if isinstance(error, Overloaded) and message.retry_after:
        error.retry_after = message.retry_after
    return error
