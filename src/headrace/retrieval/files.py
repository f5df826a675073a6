"""Files that are there whole or not at all, and the lock of a collection's one writer."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from headrace.errors import Busy
from headrace.retrieval.database import translated

LOCK_PATIENCE_SECONDS = 0.5
"""How long to wait for a lock before `Busy`: longer than one stray upsert holds it."""


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yields an empty folder; when the block ends well its files are synced to the disk and it
    becomes `target` by one rename. A failure or a crash leaves no `target`."""
    temporary = target.with_name(f".new-{target.name}-{uuid4().hex[:8]}")
    with translated(target):
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in temporary.iterdir():
                sync(file)
            sync(temporary)
            temporary.rename(target)
            sync(target.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def replace_file(path: Path, raw: bytes) -> None:
    """Give a file new content, in one step: nobody reads half of it, and a crash leaves the old one
    or the new one. Blocks. Raises `OSError`."""
    temporary = path.with_name(f".new-{path.name}-{uuid4().hex[:8]}")
    try:
        temporary.write_bytes(raw)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below; what disappears meanwhile counts nothing."""
    total = 0
    for directory, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(directory) / name).lstat().st_size
            except FileNotFoundError:
                continue
    return total


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds an exclusive flock on `path`, which then holds our PID. Raises `Busy` with the
    holder's PID if it is taken; the system frees it when its holder dies."""
    with translated(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        _lock(descriptor, path)
        with suppress(OSError):  # the lock is what counts; the number is for the message
            os.pwrite(descriptor, f"{os.getpid():<10}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                with translated(path):
                    raise
            if time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            pid = int(text) if text.isdecimal() else None
            name = path.parent.name
            raise Busy(
                f"collection {name!r} is being written by process {pid or '?'}; "
                "wait for it to end, or stop it",
                pid=pid,
            ) from None
        else:
            return
