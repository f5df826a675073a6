"""Tells a worker that hangs from one that is busy or has nothing to do.

What counts is progress, not total time: a worker hangs when it owes a reply and for the model's
`timeout_seconds` neither a reply came nor its count of steps moved, or when its pulse, which comes
from a thread of its own, has stopped for so long. A count of tokens is made beside other work, so
it is watched apart, and is no sign that the work goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum


class Kind(Enum):
    WORK = "work"
    COUNT = "count"


class Silence:
    """Times are seconds of `clock`."""

    def __init__(self, limit: float, clock: Callable[[], float]) -> None:
        self.limit = limit
        self._clock = clock
        self._moved = dict.fromkeys(Kind, clock())
        self._pulse = clock()
        self._steps = -1
        self._asked = clock()

    @property
    def period(self) -> float:
        """How often to ask, and how often the pulse has to come."""
        return min(1.0, self.limit / 4)

    def heard(self, kind: Kind) -> None:
        self._moved[kind] = self._clock()

    def pulsed(self, steps: int) -> None:
        self._pulse = self._clock()
        if steps != self._steps:
            self._steps = steps
            self._moved[Kind.WORK] = self._pulse

    def start(self) -> None:
        """From now on the worker has to show life: it is not while a model is being loaded."""
        self._pulse = self._asked = self._clock()

    def verdict(self, owed: dict[Kind, float]) -> str:
        """What is wrong, or nothing. `owed` is since when each kind of reply has been owed. To be
        asked every `period`; after a pause, which was ours, the worker gets its time anew."""
        now, before = self._clock(), self._asked
        self._asked = now
        if now - before > self.limit / 2 + self.period:
            self._pulse = now
            self._moved = dict.fromkeys(Kind, now)
        if now - self._pulse >= self.limit:
            return f"showed no life for {self.limit:g} s"
        if any(now - max(self._moved[kind], since) >= self.limit for kind, since in owed.items()):
            return f"made no progress for {self.limit:g} s"
        return ""
