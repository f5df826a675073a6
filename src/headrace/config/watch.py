"""Tells when a file may have changed, however it was changed.

The file's folder is watched, not the file: editors replace it by another of its name, and
Kubernetes replaces the folder that a link in it points to. Where a link leads elsewhere, that
folder is watched too. Some changes are never reported (network file systems, bind mounts of a
single file, more watches than the machine allows), so whoever listens hears every `POLL_SECONDS`
anyway, and looks for himself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from watchfiles import awatch

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_SETTLE_MS = 50
"""Changes that follow each other that fast are one."""
_LONGEST_MS = 400


async def ticks(file: Callable[[], Path | None]) -> AsyncGenerator[None, None]:
    """For ever: an item at once, after a change in a folder of `file()`, and every
    `POLL_SECONDS`."""
    yield
    reported = False
    while True:
        folders = _folders(file())
        try:
            if not folders:
                raise FileNotFoundError("there is no folder to watch")
            async with contextlib.aclosing(_events(folders)) as events:
                async for _ in events:
                    yield
                    if _folders(file()) != folders:
                        break
        except (OSError, RuntimeError) as error:  # the latter is watchfiles' own
            if not reported and file() is not None:
                log.warning("the configuration file is polled, since watching fails: %s", error)
                reported = True
            await asyncio.sleep(POLL_SECONDS)
            yield


def _events(folders: frozenset[Path]) -> AsyncGenerator[object, None]:
    return awatch(
        *sorted(folders),
        watch_filter=None,
        recursive=False,
        step=_SETTLE_MS,
        debounce=_LONGEST_MS,
        rust_timeout=round(1000 * POLL_SECONDS),
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )


def _folders(file: Path | None) -> frozenset[Path]:
    if file is None:
        return frozenset()
    found = {file.absolute().parent, file.resolve().parent}
    return frozenset(folder for folder in found if folder.is_dir())
