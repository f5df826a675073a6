"""Which of the waiting texts make the next batch, and how large it should be. Pure.

The rule for a batch:

1. The text that has waited longest is in it, so nobody starves.
2. Only texts of the same kind (the same verb's parameter: `query`, `passage`, or the question of
   a reranker) are with it.
3. Of those, in the order in which their lengths are near to its own, it takes all that fit: as
   many rows as there are, times the longest of them, stays within the budget, and padding is at
   most a quarter of that.
4. A text that is longer than the budget goes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

PADDING = 0.25
"""Share of a batch that may be padding."""

STEP_SECONDS = 0.05
"""How long one batch should compute: what a request waits for that comes just too late. A batch
of this length hides what a message costs (0.3 ms) more than a hundred times."""

FIRST_TOKENS = 1024
LEAST_TOKENS = 256
"""A slow engine still gets a handful of short texts at once."""

_WEIGHT = 0.3
"""Of the latest batch in the size of the next."""


def pack(lengths: Sequence[int], budget: int) -> list[int]:
    """Indices, ascending, of the texts of one batch. `lengths` are tokens, in order of arrival,
    all of one kind and at least one; 0 is always among the indices. O(n log n)."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    oldest = order.index(0)
    low, high = oldest, oldest + 1  # the batch is order[low:high]
    floor, ceiling = 0, len(order)  # how far it may grow
    total = longest = own = lengths[0]
    while low > floor or high < ceiling:
        shorter = low > floor and (
            high == ceiling or own - lengths[order[low - 1]] <= lengths[order[high]] - own
        )
        length = lengths[order[low - 1 if shorter else high]]
        padded = (high - low + 1) * max(longest, length)
        if padded > budget or padded - total - length > PADDING * padded:
            # What is farther on this side fits even less.
            floor, ceiling = (low, ceiling) if shorter else (floor, high)
            continue
        total, longest = total + length, max(longest, length)
        low, high = (low - 1, high) if shorter else (low, high + 1)
    return sorted(order[low:high])


class StepSize:
    """How many tokens a batch may have: what the engine was seen to compute in `STEP_SECONDS`,
    at most `most`. Only full batches teach it, for small ones are slower by the token."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._tokens = float(min(FIRST_TOKENS, most))

    @property
    def tokens(self) -> int:
        return int(self._tokens)

    def learn(self, tokens: int, seconds: float) -> None:
        """A batch of so many tokens computed for so long."""
        if tokens * 2 < self._tokens:
            return
        ideal = tokens * STEP_SECONDS / max(seconds, 1e-6)
        ideal = min(max(ideal, LEAST_TOKENS), self._tokens * 2)  # one lucky batch says little
        self._tokens = min(self._tokens + _WEIGHT * (ideal - self._tokens), float(self._most))
