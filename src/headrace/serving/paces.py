"""How long the parts of an answer took lately, to foresee what a deadline leaves time for."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable

KEPT = 64
"""Values kept of each thing."""

FRESH_SECONDS = 60.0
"""Older values say nothing: the model may have been loading then. This also lets what was never
tried because it used to be slow be tried again."""

PART = 0.8
"""The share of the values that the usual one is not below."""


class Paces:
    """Seconds by what took them (`score MODEL`: one text; `first_token MODEL`; `token MODEL`;
    `quote MODEL`), in memory."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._values: defaultdict[str, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=KEPT)
        )

    def note(self, what: str, seconds: float) -> None:
        self._values[what].append((self._clock(), seconds))

    def note_given_up(self, what: str, seconds: float) -> None:
        """It was given up after so long; twice that is assumed, so that the same deadline does not
        lead to the same attempt again."""
        self.note(what, 2 * seconds)

    def usual(self, what: str) -> float | None:
        """`None` if nothing is known."""
        since = self._clock() - FRESH_SECONDS
        fresh = sorted(seconds for at, seconds in self._values.get(what, ()) if at >= since)
        return fresh[min(len(fresh) - 1, int(len(fresh) * PART))] if fresh else None
