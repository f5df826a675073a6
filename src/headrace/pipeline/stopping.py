"""Whether another retrieval is worth what it costs. `docs/stop-rule.md` derives the rule.

What is worth is counted in right answers. `x` in [0, 1] is the chance that what has been found
suffices. Answering is worth `x - reasoning`, giving up 0. Another retrieval costs `retrieval`; with
probability `success * x` (a bridge is only found in a passage that is right) it closes the share
`gain` of what is missing, and otherwise leaves all as it was. The best policy has two thresholds:
below the lower one a further search finds nothing to go on from, above the upper one there is too
little left to gain.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import count
from typing import NamedTuple

SECOND = 0.02
"""What a second of waiting costs, in right answers: fifty seconds for a right answer instead of a
wrong one. It is a choice, not a measurement."""

_STEPS = 400


class Economics(NamedTuple):
    """Costs in right answers; `gain` and `success` in (0, 1]."""

    retrieval: float
    reasoning: float
    gain: float
    success: float


class Thresholds(NamedTuple):
    """Another retrieval pays for `low < x < high`; for none if they are equal."""

    low: float
    high: float

    def go_on(self, x: float) -> bool:
        return self.low < x < self.high


def advantage(e: Economics, x: float) -> float:
    """How much more retrieving, and then doing what is best, is worth than stopping at once.

    Successes lead along one chain, x -> x + gain (1 - x), and waiting for one costs
    retrieval / (success x) on average, so the value is the best of stopping after 1, 2, ... of
    them."""
    if x <= 0:
        return -float("inf")
    best, spent, at = -float("inf"), 0.0, x
    for _ in count():
        spent += e.retrieval / (e.success * at)
        at += e.gain * (1 - at)
        best = max(best, _stop(e, at) - spent)
        if 1 - at < 1e-6 or spent > 1:
            return best - _stop(e, x)
    raise AssertionError("unreachable")


@lru_cache(maxsize=256)
def thresholds(e: Economics) -> Thresholds:
    """Where `advantage` is positive, to 1e-6. Raises `ValueError` for what is no chance or cost."""
    if not (e.retrieval > 0 and e.reasoning >= 0 and 0 < e.gain <= 1 and 0 < e.success <= 1):
        raise ValueError(f"{e}: costs above 0, chances within (0, 1]")
    inside = [i / _STEPS for i in range(1, _STEPS) if advantage(e, i / _STEPS) > 0]
    if not inside:
        middle = min(1.0, max(e.reasoning, 0.5))
        return Thresholds(middle, middle)
    low = _edge(e, max(0.0, inside[0] - 1 / _STEPS), inside[0])
    return Thresholds(low, _edge(e, min(1.0, inside[-1] + 1 / _STEPS), inside[-1]))


def _stop(e: Economics, x: float) -> float:
    return max(0.0, x - e.reasoning)


def _edge(e: Economics, outside: float, inside: float) -> float:
    while abs(outside - inside) > 1e-6:
        middle = (outside + inside) / 2
        if advantage(e, middle) > 0:
            inside = middle
        else:
            outside = middle
    return inside
