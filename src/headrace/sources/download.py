"""One file over HTTP: resumed where it broke off, checked, and named only when complete."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from headrace.errors import SourceError
from headrace.sources.cache import Progress

ATTEMPTS = 5
"""Tries in a row that bring no byte before the download fails."""

_PAUSE_SECONDS = 0.25


class Response(Protocol):
    """What httpx's streamed responses have."""

    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def iter_bytes(self) -> Iterator[bytes]: ...


Open = Callable[[dict[str, str]], AbstractContextManager[Response]]
"""Sends the request with these headers."""


class Broken(Exception):
    """A connection failed or closed early; the next try may go on from there."""


def download(
    open_stream: Open,
    target: Path,
    *,
    what: str,
    sha256: str | None,
    network_errors: tuple[type[Exception], ...],
    progress: Progress,
) -> str:
    """Fetch to `target`; returns the SHA-256. Bytes gather in `target.partial`, which a later
    call goes on with. `what` names the file in messages. Raises `SourceError`."""
    partial = target.with_name(f"{target.name}.partial")
    resumed = partial.exists() and partial.stat().st_size > 0
    network_errors = (Broken, *network_errors)
    found = _gather(open_stream, partial, what, network_errors, progress)
    if sha256 and found != sha256 and resumed:  # the old part may be of another file
        partial.unlink()
        found = _gather(open_stream, partial, what, network_errors, progress)
    if sha256 and found != sha256:
        partial.unlink()
        raise SourceError(
            f"{what} has the SHA-256 {found}, its registry says {sha256}: it was changed or damaged"
            " on its way; try again, or use another index"
        )
    partial.replace(target)
    return found


def _gather(
    open_stream: Open,
    partial: Path,
    what: str,
    network_errors: tuple[type[Exception], ...],
    progress: Progress,
) -> str:
    failures = 0
    while True:
        start = partial.stat().st_size if partial.exists() else 0
        try:
            _transfer(open_stream, partial, start, what, progress)
        except network_errors as error:
            grown = partial.exists() and partial.stat().st_size > start
            failures = 0 if grown else failures + 1
            if failures >= ATTEMPTS:
                raise SourceError(
                    f"cannot fetch {what}: {error or type(error).__name__}; check the network, or"
                    " take a copy of the file and use file:PATH. What has arrived is kept, and the"
                    " next try goes on from there"
                ) from error
            time.sleep(_PAUSE_SECONDS * 2**failures)
        else:
            with partial.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()


def _transfer(open_stream: Open, partial: Path, start: int, what: str, progress: Progress) -> None:
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with open_stream(headers) as response:
        if response.status_code == 416:  # all of it is here, or the file became shorter
            total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if total is None or int(total.group(1)) != start:
                partial.unlink()
                raise Broken("the server refuses to go on where the last try ended")
            return
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise Broken(f"the server answers {response.status_code}")
        if response.status_code not in (200, 206):
            raise SourceError(f"cannot fetch {what}: the server answers {response.status_code}")
        start = start if response.status_code == 206 else 0
        packed = "Content-Encoding" in response.headers  # then the length is not the file's
        length = None if packed else response.headers.get("Content-Length")
        total_size = start + int(length) if length and length.isdecimal() else None
        _write(response, partial, start, total_size, what, progress)


def _write(
    response: Response,
    partial: Path,
    start: int,
    total: int | None,
    what: str,
    progress: Progress,
) -> None:
    done = start
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        progress(what, done, total)
        for chunk in response.iter_bytes():
            file.write(chunk)
            done += len(chunk)
            progress(what, done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise Broken(f"the connection closed after {done} of {total} bytes")
