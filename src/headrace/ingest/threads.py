"""Blocking calls that must not be left half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`asyncio.to_thread`, but cancelling it waits for the call's end first: who holds a lock for
    the call may not let go of it while the call still runs."""
    task = asyncio.create_task(asyncio.to_thread(call, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError:  # asked again; the answer is the same
                continue
        if not task.cancelled():
            task.exception()  # looked at, so that it is not reported as forgotten
        raise
