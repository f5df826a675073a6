"""The threads of a worker that compute, and whose turn it is there: the last place where that is
decided, when a thread becomes free."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from headrace.serving.lanes import Lanes
from headrace.serving.wire import Call, Count
from headrace.types import Lane

AGE = 1.0
"""Seconds after which a bulk batch goes although people wait."""


class Labour:
    """`threads` threads that call `work` with each message. They exist from here to `finish`."""

    def __init__(self, work: Callable[[Call], None], threads: int, name: str) -> None:
        self._work = work
        self._lanes: Lanes[int] = Lanes(AGE)
        self._messages: dict[int, Call] = {}  # those that wait, by id
        self._changed = threading.Condition()
        self._finishing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, message: Call) -> None:
        lane = Lane.INTERACTIVE if isinstance(message, Count) else message.lane
        with self._changed:
            self._messages[message.id] = message
            self._lanes.put(message.id, lane, time.monotonic())
            self._changed.notify()

    def cancel(self, id: int) -> None:
        """If it still waits; what is being computed is computed to its end."""
        with self._changed:
            if self._lanes.remove(id):
                del self._messages[id]

    def finish(self) -> None:
        """Blocks until all that was put is done."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _next(self) -> Call | None:
        """Waits for a message; `None` when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._lanes) or self._finishing)
            id = self._lanes.take(time.monotonic())
            return None if id is None else self._messages.pop(id)

    def _run(self) -> None:
        while (message := self._next()) is not None:
            self._work(message)
