"""Reads files in a process of its own, so that a hostile one harms nothing but itself.

A file that takes too long, takes too much memory or crashes its parser ends that process; the
file gets a `ReadError` and the next one a new process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from types import TracebackType

import msgspec

from headrace.config.options import IngestOptions
from headrace.errors import ReadError, StorageError
from headrace.ingest.frames import LENGTH, Answer, Failed, Read, Request, Same, Settings, encode

_MIB = 1024 * 1024
_BASE_MEMORY = 2048 * _MIB
_START_SECONDS = 60.0


class ReaderProcess:
    """One reader process at a time. An async context manager: entering it launches the process,
    which gets ready while its caller does other things; leaving it ends the process. Not for
    concurrent use."""

    def __init__(self, options: IngestOptions, *, memory_bytes: int = 0) -> None:
        """`memory_bytes` caps the data of the process; 0 takes what the limits of `options` can
        need."""
        self._seconds = options.reader_seconds
        self._settings = Settings(
            file_bytes=options.max_file_mib * _MIB,
            text_bytes=options.max_text_mib * _MIB,
            seconds=options.reader_seconds,
            # A text is held about four times over: bytes, characters, chunks, the message.
            memory_bytes=memory_bytes
            or _BASE_MEMORY + 4 * (options.max_file_mib + options.max_text_mib) * _MIB,
        )
        self._process: asyncio.subprocess.Process | None = None
        self._ready = False

    async def __aenter__(self) -> ReaderProcess:
        self._process = await self._launch()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    @property
    def pid(self) -> int | None:
        """Of the process that is running now."""
        return self._process.pid if self._process else None

    async def read(
        self, path: Path, chunker: str, budget: int, *, known_sha256: str = ""
    ) -> Read | Same:
        """The file's text and chunks, or `Same` if its content has that hash. Raises
        `ReadError` with a reason that does not name the file."""
        request = Request(os.fsencode(path), chunker, budget, known_sha256)
        try:
            process = await self._started()
            async with asyncio.timeout(self._seconds):
                answer = await _ask(process, request)
        except TimeoutError as error:
            await self._end()
            raise ReadError(
                f"reading it took longer than {self._seconds:g} s (ingest.reader_seconds)"
            ) from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ReadError(f"the reader ended on it ({await self._cause()})") from error
        except msgspec.MsgspecError as error:
            await self._end()
            raise ReadError(f"the reader's answer makes no sense: {error}") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        if isinstance(answer, Failed):
            if answer.exhausted:
                await self._end()
            raise ReadError(answer.reason)
        return answer

    async def _launch(self) -> asyncio.subprocess.Process:
        self._ready = False
        settings = msgspec.json.encode(self._settings).decode()
        try:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "headrace.ingest.reader_child", settings),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=4 * _MIB,
            )
        except OSError as error:
            raise StorageError(f"the reader process cannot be started: {error}") from error

    async def _started(self) -> asyncio.subprocess.Process:
        """The process, once it can be asked."""
        process = self._process = self._process or await self._launch()
        if self._ready:
            return process
        try:
            async with asyncio.timeout(_START_SECONDS):
                await _answer(process)
        except (asyncio.IncompleteReadError, TimeoutError) as error:
            await self._end()
            raise StorageError(
                f"the reader process does not start; try `{sys.executable} -m "
                "headrace.ingest.reader_child` to see why"
            ) from error
        self._ready = True
        return process

    async def _cause(self) -> str:
        """How the process ended, once it has."""
        process, self._process = self._process, None
        if process is None:
            return "it did not start"
        code = await process.wait()
        _close(process)
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        _close(process)


async def _ask(process: asyncio.subprocess.Process, request: Request) -> Answer:
    assert process.stdin is not None
    process.stdin.write(encode(request))
    await process.stdin.drain()
    return await _answer(process)


async def _answer(process: asyncio.subprocess.Process) -> Answer:
    assert process.stdout is not None
    (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
    payload = await process.stdout.readexactly(length)
    answer: Answer = msgspec.msgpack.decode(payload, type=Answer)
    return answer


def _close(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
