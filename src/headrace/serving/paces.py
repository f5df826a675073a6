"""How long the parts of an answer took lately, to foresee what a deadline leaves time for.

A value has a size: texts, hits, tokens of a prompt. What is asked for another size than those that
were seen is taken in proportion, from the sizes that are nearest. What is foreseen is a percentile,
so a few outliers do not count; and neither does the first value after a silence, as soon as there
are others: it was a cold start.

Nothing of it is kept on disk. A pace is true of this minute's load, not of the machine: from one
user to eight the same prompt takes eight times as long. A server that has just started tries what
it does not know, and cuts it off in time.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import NamedTuple

KEPT = 64
"""Values kept of each thing."""

FRESH_SECONDS = 60.0
"""Older values say nothing: the load was another one then. This also lets what was never tried
because it used to be slow be tried again."""

PART = 0.8
"""The share of the values that the usual one is not below."""

CERTAIN = 0.95
"""The same for what must not be late."""

NEAR = 1.5
"""Sizes within this factor of each other are of one kind."""

ENOUGH = 4
"""Values of one kind from which others are not needed, and from which a cold start is left out."""

COLD_SECONDS = 5.0
"""How long a cold start counts if nothing follows it."""

PROBE_SECONDS = 5.0
"""How long everybody else waits for what the one finds out who tries again."""


class Seen(NamedTuple):
    at: float
    seconds: float
    size: float
    cold: bool


class Paces:
    """Seconds by what took them, with the name of the model: `score MODEL` (size: 1, of one text),
    `first_token MODEL` (tokens of the prompt), `token MODEL` (one), `quote MODEL` (texts compared),
    `embed MODEL` (queries), `finish` (the end of an answer). In memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: defaultdict[str, deque[Seen]] = defaultdict(lambda: deque(maxlen=KEPT))
        self._probes: dict[str, float] = {}

    def note(self, what: str, seconds: float, size: float = 1.0) -> None:
        values, now = self._values[what], self._clock()
        cold = not values or now - values[-1].at > FRESH_SECONDS
        values.append(Seen(now, seconds, size, cold))

    def note_given_up(self, what: str, seconds: float, size: float = 1.0) -> None:
        """It was given up after so long; twice that is assumed, so that the same deadline does not
        lead to the same attempt again. That is no cold start: it is known to be too slow."""
        self._values[what].append(Seen(self._clock(), 2 * seconds, size, False))

    def usual(self, what: str, size: float = 1.0, part: float = PART) -> float | None:
        """Seconds that the share `part` of the fresh values is not above, for that size; `None` if
        there are none."""
        now = self._clock()
        oldest = now - FRESH_SECONDS
        fresh = [value for value in self._values.get(what, ()) if value.at >= oldest]
        if len(fresh) == 1 and fresh[0].cold and now - fresh[0].at > COLD_SECONDS:
            return None
        return _percentile(fresh, size, part)

    def foreseen(self, what: str, size: float = 1.0) -> float | None:
        """Like `usual`; but where all values are old, one caller is told nothing, so that it tries,
        and others meanwhile what was usual then: many at once would make each other late."""
        known = self.usual(what, size)
        if known is None and what in self._values:
            now = self._clock()
            if now - self._probes.get(what, -math.inf) <= PROBE_SECONDS:
                return _percentile(list(self._values[what]), size, PART)
            self._probes[what] = now
        return known


def _percentile(values: list[Seen], size: float, part: float) -> float | None:
    if len(values) >= ENOUGH:
        values = [value for value in values if not value.cold]
    low, high = size / NEAR, size * NEAR
    near = [value for value in values if low <= value.size <= high]
    chosen = near if len(near) >= ENOUGH else values
    scaled = sorted([seconds * size / of for _, seconds, of, _ in chosen])
    return scaled[min(len(scaled) - 1, int(len(scaled) * part))] if scaled else None
