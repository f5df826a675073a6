"""What every conformance test asks: how did each request end, and what is left behind?

A request ends in exactly one way within `BOUND` seconds: with its result, with a typed error, or
cancelled by its caller. A test that leaves a task, a process or a file descriptor behind fails.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from headrace.errors import HeadraceError

BOUND = 20.0
"""Seconds: far beyond what any request here takes, far below what a hung one takes."""

RESULT, CANCELLED = "result", "cancelled"


async def outcome(work: Awaitable[object]) -> str:
    """`RESULT`, `CANCELLED`, or the code of the typed error; any other exception, or none of these
    within the bound, fails the test."""
    try:
        async with asyncio.timeout(BOUND):
            await work
    except HeadraceError as error:
        return error.code if error.message else "an error that says nothing"
    except asyncio.CancelledError:
        return CANCELLED
    return RESULT


async def outcomes(works: Iterable[Awaitable[object]]) -> list[str]:
    return list(await asyncio.gather(*(outcome(work) for work in works)))


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what no event of ours tells."""
    try:
        async with asyncio.timeout(BOUND):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


def held(*, files: bool) -> Counter[str]:
    """What this process has: its tasks, live children, and what its descriptors point to."""
    tasks = [task.get_coro() for task in asyncio.all_tasks() if task is not _this()]
    return Counter(
        [
            *(f"task {getattr(coro, '__qualname__', coro)}" for coro in tasks),
            *("process" for _ in children()),
            *(name.partition(":[")[0] for name in _descriptors() if _ours(name, files)),
        ]
    )


def _this() -> asyncio.Task[Any] | None:
    return asyncio.current_task()


def children() -> list[psutil.Process]:
    """Live ones; one that ended and was not waited for is live in this sense."""
    return psutil.Process().children(recursive=True)


def _descriptors() -> Iterable[str]:
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own
            yield str(link.readlink())


_AT_IMPORT = frozenset(_descriptors())
"""What pytest opens again and closes as it likes: the program's own output, and its copies."""


def _ours(target: str, files: bool) -> bool:
    return (
        (files or not target.startswith("/"))
        and target not in _AT_IMPORT
        and not target.endswith(" (deleted)")
    )


@contextlib.asynccontextmanager
async def leaving_nothing(*, files: bool = True) -> AsyncIterator[None]:
    """What is held after the body, sooner or later, is no more than what was held before. Without
    `files`, those of a collection may stay open for the next search."""
    before = held(files=files)
    await asyncio.sleep(0.05)
    while (now := held(files=files)) != before:  # a connection may be closing yet
        before = now
        await asyncio.sleep(0.05)
    yield
    more = held(files=files)
    try:
        async with asyncio.timeout(BOUND):
            while more := held(files=files) - before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"left behind: {dict(more)}, beside {dict(before)}") from None
