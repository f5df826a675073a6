"""The threads of a worker that compute: one queue, the interactive lane first."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable

from headrace.serving.wire import Call, Embed, Score
from headrace.types import Lane

_STOP = 2  # after both lanes


class Labour:
    """`threads` threads that call `work` with each message. They exist from here to `finish`."""

    def __init__(self, work: Callable[[Call], None], threads: int, name: str) -> None:
        self._work = work
        self._waiting: queue.PriorityQueue[tuple[int, int, Call | None]] = queue.PriorityQueue()
        self._order = itertools.count()
        self._wanted: set[int] = set()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name} {number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, message: Call) -> None:
        bulk = isinstance(message, Embed | Score) and message.lane is Lane.BULK
        self._wanted.add(message.id)
        self._waiting.put((int(bulk), next(self._order), message))

    def cancel(self, id: int) -> None:
        """If it still waits; what is being computed is computed to its end."""
        self._wanted.discard(id)

    def finish(self) -> None:
        """Blocks until all that was put is done."""
        for _ in self._threads:
            self._waiting.put((_STOP, next(self._order), None))
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            _, _, message = self._waiting.get()
            if message is None:
                return
            try:
                self._wanted.remove(message.id)
            except KeyError:
                continue
            self._work(message)
