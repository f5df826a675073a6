"""One run of the pipeline for all who ask the same while it is under way.

The run is a task of its own, so whoever asked first may go away: it is cancelled when its last
reader has gone. It goes on as its fastest reader takes what is there, like a generator, and what it
said is kept to its end, so one who comes later gets the same events from the first one on. An error
ends every reader, each by that error.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from headrace.pipeline.kept_answers import Key
from headrace.types import Call, Event, Lane

AS_MUCH = 0.9
"""Share of the time that a caller has, which a run must have had for it to be as good as his own:
two who ask the same with the same `deadline_ms` have almost the same time."""


class SharedRun:
    """Begins at once. Belongs to one event loop."""

    def __init__(self, events: AsyncGenerator[Sequence[Event], None], call: Call) -> None:
        """`events` come as many as are there at once. `call` is that of the one who asked first,
        which the run works for."""
        self._source = events
        self._lane = call.lane
        self._deadline = _deadline(call)
        self._given = self._deadline - time.monotonic()
        self._said: list[Event] = []
        self._readers = 0
        self._abandoned = False
        self._wanted = asyncio.Event()
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name="an answer for all who ask the same")
        self.task.add_done_callback(lambda _: self._tell())

    def serves(self, call: Call) -> bool:
        """Whether a caller is as well off with it as with a run of his own. 1. It ends before his
        deadline. 2. It was given as much time, so it leaves nothing out that he has time for. 3. It
        does not yield to people if he need not."""
        deadline = _deadline(call)
        return (
            not self._abandoned
            and self._deadline <= deadline
            and self._given >= AS_MUCH * (deadline - time.monotonic())
            and self._lane in (Lane.INTERACTIVE, call.lane)
        )

    async def read(self) -> AsyncGenerator[Event, None]:
        """All events from the first one on. Raises what the run raised."""
        self._readers += 1
        place = 0
        try:
            while True:
                while place < len(self._said):
                    yield self._said[place]
                    place += 1
                if self.task.done():
                    self.task.result()
                    return
                self._wanted.set()
                await self._news.wait()
        finally:
            self._readers -= 1
            if not self._readers:
                await self._abandon()

    async def _run(self) -> None:
        async with aclosing(self._source) as events:
            async for some in events:
                self._said += some
                self._wanted.clear()
                self._tell()
                await self._wanted.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _abandon(self) -> None:
        self._abandoned = True
        if not self.task.done():
            self.task.cancel()
            await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # seen: nobody is left whom it concerns


class SharedRuns:
    """The runs under way, by what they answer; more than one for the same only where callers have
    different times or lanes. Belongs to one event loop."""

    def __init__(self) -> None:
        self._runs: dict[Key, list[SharedRun]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._runs.values()))

    def join(
        self, key: Key, call: Call, begin: Callable[[], AsyncGenerator[Sequence[Event], None]]
    ) -> tuple[SharedRun, bool]:
        """A run for the caller, and whether it was begun by another one. It is to be read at once:
        one without a reader goes on for nobody."""
        for run in self._runs.get(key, ()):
            if run.serves(call):
                return run, True
        run = SharedRun(begin(), call)
        self._runs.setdefault(key, []).append(run)
        run.task.add_done_callback(lambda _: self._ended(key, run))
        return run, False

    def _ended(self, key: Key, run: SharedRun) -> None:
        self._runs[key].remove(run)
        if not self._runs[key]:
            del self._runs[key]


def _deadline(call: Call) -> float:
    return math.inf if call.deadline is None else call.deadline
