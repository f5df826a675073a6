"""The server's end of one worker: starts the process, sends requests, hands out replies."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import itertools
import logging
import socket
import sys
from collections.abc import AsyncGenerator, AsyncIterator

from headrace.engines.base import ModelInfo, ModelSpec, Vectors
from headrace.errors import HeadraceError, ModelFailed, Overloaded, by_code
from headrace.serving import wire
from headrace.types import Delta

log = logging.getLogger(__name__)

LOAD_SECONDS = 3600.0
"""Bound of a load: the first one may fetch gigabytes over a slow line."""

CLOSE_SECONDS = 5.0
"""How long a worker may take to clean up before it is killed."""

Reply = wire.Part | wire.End | wire.Array | wire.Counts | HeadraceError


class WorkerClient:
    """One live worker process. All its methods belong to one event loop."""

    info: ModelInfo

    def __init__(
        self,
        spec: ModelSpec,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._spec = spec
        self._process = process
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._replies: dict[int, asyncio.Queue[Reply]] = {}
        self._heard = 0.0
        self._silence = float(spec.options.get("timeout_seconds", 120.0))
        self._last_words: collections.deque[str] = collections.deque(maxlen=20)
        self._tasks: list[asyncio.Task[None]] = []
        self.alive = True

    @classmethod
    async def start(cls, spec: ModelSpec) -> WorkerClient:
        """Start a process and load the model. Raises what the load raised, or `ModelFailed`."""
        ours, theirs = socket.socketpair()
        with theirs:
            # A session of its own: Ctrl-C at the terminal is for the server, which then ends its
            # workers by closing the socket.
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "headrace.serving.worker",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=wire.MAX_FRAME)
        client = cls(spec, process, reader, writer)
        try:
            await client._load()
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def pid(self) -> int:
        return self._process.pid

    def next_id(self) -> int:
        return next(self._ids)

    async def _load(self) -> None:
        self._tasks.append(asyncio.create_task(self._listen()))
        wire.write(self._writer, wire.Load(self._spec))
        try:
            async with asyncio.timeout(LOAD_SECONDS):
                reply = await wire.read_reply(self._reader)
        except TimeoutError as error:
            raise ModelFailed(
                f"model {self._spec.name!r} was not loaded within {LOAD_SECONDS:.0f} s"
            ) from error
        match reply:
            case wire.Loaded(info):
                self.info = info
            case wire.Failed(_, code, message):
                raise by_code(code, message)
            case _:
                raise await self._death()
        self._heard = asyncio.get_running_loop().time()
        self._tasks.append(asyncio.create_task(self._receive()))

    async def _listen(self) -> None:
        """Keep the worker's last words, for the message if it dies."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").rstrip()
            self._last_words.append(text)
            log.debug("worker %s: %s", self._spec.name, text)

    async def _receive(self) -> None:
        failure: HeadraceError
        try:
            while (message := await wire.read_reply(self._reader)) is not None:
                self._heard = asyncio.get_running_loop().time()
                self._deliver(message)
            failure = await self._death()
        except HeadraceError as error:
            failure = error
        self.alive = False
        for replies in self._replies.values():
            replies.put_nowait(failure)

    def _deliver(self, message: wire.FromWorker) -> None:
        if isinstance(message, wire.Loaded):
            return
        replies = self._replies.get(message.id)
        if replies is None:
            return  # cancelled while the reply was on its way
        if isinstance(message, wire.Failed):
            error = by_code(message.code, message.message)
            if isinstance(error, Overloaded) and message.retry_after:
                error.retry_after = message.retry_after
            replies.put_nowait(error)
        else:
            replies.put_nowait(message)

    async def _death(self) -> ModelFailed:
        self.alive = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await self._process.wait()
        code = self._process.returncode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        words = next((line for line in reversed(self._last_words) if line.strip()), "")
        said = f"; it said: {words}" if words else ""
        return ModelFailed(
            f"the worker of model {self._spec.name!r} ended ({how}){said}; "
            "the next request starts a new one"
        )

    @contextlib.asynccontextmanager
    async def _request(self, message: wire.Work) -> AsyncIterator[asyncio.Queue[Reply]]:
        if not self.alive:
            raise await self._death()
        replies: asyncio.Queue[Reply] = asyncio.Queue()
        self._replies[message.id] = replies
        finished = False
        try:
            wire.write(self._writer, message)
            yield replies
            finished = True
        finally:
            del self._replies[message.id]
            if not finished and self.alive:
                wire.write(self._writer, wire.Cancel(message.id))

    async def _next(
        self, replies: asyncio.Queue[Reply]
    ) -> wire.Part | wire.End | wire.Array | wire.Counts:
        """The next reply. A worker that says nothing to anybody for the model's time limit is
        hung: it is killed, which fails all its requests."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        while True:
            quiet = loop.time() - max(self._heard, started)
            if quiet >= self._silence:
                log.warning("worker %s hangs; killing it", self._spec.name)
                self._kill()
                raise ModelFailed(
                    f"model {self._spec.name!r} made no progress for {self._silence:.0f} s; "
                    "its worker was killed"
                )
            try:
                async with asyncio.timeout(self._silence - quiet):
                    reply = await replies.get()
            except TimeoutError:
                continue
            if isinstance(reply, HeadraceError):
                raise reply
            return reply

    async def stream(self, message: wire.Generate) -> AsyncGenerator[Delta, None]:
        async with self._request(message) as replies:
            while isinstance(reply := await self._next(replies), wire.Part):
                yield reply.delta

    async def array(self, message: wire.Embed | wire.Score) -> Vectors:
        async with self._request(message) as replies:
            reply = await self._next(replies)
            assert isinstance(reply, wire.Array)
            return reply.values()

    async def counts(self, message: wire.Count) -> list[int]:
        async with self._request(message) as replies:
            reply = await self._next(replies)
            assert isinstance(reply, wire.Counts)
            return list(reply.values)

    def _kill(self) -> None:
        self.alive = False
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def close(self) -> None:
        """End the process; returns when it is gone."""
        self.alive = False
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._process.wait()
        except TimeoutError:
            self._kill()
            await self._process.wait()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
