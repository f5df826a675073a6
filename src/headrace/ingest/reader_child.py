"""The process that reads files: `python -m headrace.ingest.reader_child LIMITS`.

It takes `Request`s on its standard input and answers each on its standard output, as frames of
`headrace.ingest.frames`. It ends when its input does, even in the middle of a file, so it never
outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import resource
import signal
import stat
import sys
import threading
from pathlib import Path
from typing import BinaryIO

import msgspec

from headrace.errors import HeadraceError, ReadError
from headrace.ingest.chunkers import chunk, unaccounted
from headrace.ingest.frames import Answer, Failed, Read, Request, Same, Settings, encode, take
from headrace.ingest.readers import ReadLimits, read

_GRACE_SECONDS = 5.0  # the parent kills at its time limit; the alarm is for when it no longer can


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get between the frames
    _limit(resource.RLIMIT_DATA, settings.memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, requests), daemon=True).start()
    _send(answers, encode(Same()))  # ready: the parent's clock starts now
    while True:
        request = requests.get()
        signal.setitimer(signal.ITIMER_REAL, settings.seconds + _GRACE_SECONDS)
        answer = _encoded(_answer(request, settings))
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, answer)


def _send(answers: BinaryIO, frame: bytes) -> None:
    answers.write(frame)
    answers.flush()


def _limit(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY or value < hard:
        resource.setrlimit(kind, (value, hard))


def _receive(stream: BinaryIO, requests: queue.SimpleQueue[Request]) -> None:
    while True:
        payload = take(stream.read)
        if payload is None:
            os._exit(0)
        requests.put(msgspec.msgpack.decode(payload, type=Request))


def _answer(request: Request, settings: Settings) -> Answer:
    path = Path(os.fsdecode(request.path))
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # it was, when it was found; a pipe would block us
            raise ReadError("it is no longer a regular file")
        if status.st_size > settings.file_bytes:
            raise ReadError(f"larger than {settings.file_bytes >> 20} MiB (ingest.max_file_mib)")
        before = _sha256(path)
        if before == request.known_sha256:
            return Same()
        parsed = read(path, ReadLimits(settings.file_bytes, settings.text_bytes))
        chunker, chunking = chunk(parsed, request.chunker, request.budget)
        if _sha256(path) != before:
            raise ReadError("it changed while it was being read; ingest it again")
    except HeadraceError as error:
        return Failed(error.message, isinstance(error.__cause__, MemoryError))
    except OSError as error:
        return Failed(f"cannot read it: {error.strerror or error}")
    except (MemoryError, RecursionError) as error:
        return Failed(f"reading it takes too much memory ({type(error).__name__})", True)
    missing = sum(len(span) for span in unaccounted(parsed, chunking))
    return Read(before, parsed, chunker, chunking, missing)


def _encoded(answer: Answer) -> bytes:
    try:
        return encode(answer)
    except UnicodeEncodeError:
        return encode(Failed("its text holds half of a surrogate pair"))
    except MemoryError:
        return encode(Failed("its text takes too much memory", True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
    os._exit(0)  # the receiving thread is blocked in a read and would hold up the exit
