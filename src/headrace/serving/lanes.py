"""Who goes next when people and bulk work wait for the same thing. No clock inside.

The rule, in the order in which it is applied:

1. If only one lane waits, it goes.
2. Bulk goes if it is *overdue*: its first item has waited for `age` seconds, none of bulk has gone
   for `age` seconds, and the last one to go was not bulk.
3. Otherwise interactive goes.

So bulk gets a step at least every `age` seconds, however many people come (but never two in a
row while one of them waits), and an interactive item waits for one bulk step at most.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

from headrace.types import Lane

T = TypeVar("T", bound=Hashable)


class Lanes(Generic[T]):
    """A queue of distinct items in two lanes, each in order of arrival. Every operation but
    `ahead` is O(1). `now` is seconds of any clock that does not go back."""

    def __init__(self, age: float) -> None:
        self._age = age
        # Ordered by a linked list: the first of a plain dict is found behind all it has lost.
        self._lanes: dict[Lane, OrderedDict[T, float]] = {lane: OrderedDict() for lane in Lane}
        self._bulk_went = float("-inf")
        self._last: Lane | None = None

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def put(self, item: T, lane: Lane, now: float) -> None:
        """Add at the end of its lane an item that is in neither."""
        self._lanes[lane][item] = now

    def remove(self, item: T) -> bool:
        """Take out an item, wherever it stands; whether it was there."""
        return any(lane.pop(item, None) is not None for lane in self._lanes.values())

    def turn(self, now: float) -> Lane | None:
        """The lane that goes next; `None` if nothing waits."""
        bulk, interactive = self._lanes[Lane.BULK], self._lanes[Lane.INTERACTIVE]
        if not bulk:
            return Lane.INTERACTIVE if interactive else None
        if not interactive:
            return Lane.BULK
        since = max(next(iter(bulk.values())), self._bulk_went)
        overdue = self._last is not Lane.BULK and now - since >= self._age
        return Lane.BULK if overdue else Lane.INTERACTIVE

    def take(self, now: float) -> T | None:
        """Take out the item that goes next; `None` if nothing waits."""
        lane = self.turn(now)
        if lane is None:
            return None
        item, _ = self._lanes[lane].popitem(last=False)
        self._last = lane
        if lane is Lane.BULK:
            self._bulk_went = now
        return item

    def ahead(self, item: T) -> int:
        """How many waiting items go before this one, if no other comes and bulk is not overdue.
        O(n). Raises `KeyError` for an item that does not wait."""
        before = 0
        for lane in (Lane.INTERACTIVE, Lane.BULK):
            for other in self._lanes[lane]:
                if other == item:
                    return before
                before += 1
        raise KeyError(item)
