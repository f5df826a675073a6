from __future__ import annotations

import asyncio

import pytest

from headrace.errors import DeadlineExceeded
from headrace.serving.models import both, together


async def late() -> int:
    await asyncio.sleep(0)
    raise DeadlineExceeded("late")


async def test_results_come_in_order_and_none_is_a_list() -> None:
    async def after(turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        return turns

    assert await together(after(3), after(0), after(1)) == [3, 0, 1]
    assert await both(after(1), after(0)) == (1, 0)
    assert await together() == []


async def test_the_first_failure_is_raised_and_ends_the_others() -> None:
    ended = asyncio.Event()

    async def endless() -> int:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return 0

    with pytest.raises(DeadlineExceeded):
        await together(endless(), late())
    assert ended.is_set()


async def test_a_failure_that_is_dealt_with_leaves_no_cancellation_behind() -> None:
    """A task that still counts one takes its next timeout for somebody else's cancellation."""

    async def goes_on() -> None:
        async with asyncio.timeout(0.05):
            with pytest.raises(DeadlineExceeded):
                await both(asyncio.sleep(60), late())
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await goes_on()


async def test_whoever_cancels_the_caller_cancels_all() -> None:
    begun, ended = asyncio.Event(), 0

    async def endless() -> int:
        nonlocal ended
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended += 1
        return 0

    task = asyncio.create_task(together(endless(), endless()))
    await begun.wait()
    task.cancel("mine")
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await task
    assert ended == 2
