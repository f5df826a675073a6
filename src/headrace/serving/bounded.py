"""A dictionary that holds a bounded number of bytes: what was used longest ago goes first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

OVERHEAD = 512
"""Bytes that an entry takes beside what its owner counts: the dictionary's slot, objects' heads."""


class Bounded(Generic[K, V]):
    """Not thread-safe. `dropped` is called for every entry that leaves, for whatever reason."""

    def __init__(self, dropped: Callable[[K, V], None] = lambda key, value: None) -> None:
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._dropped = dropped
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def items(self) -> Iterator[tuple[K, V]]:
        return ((key, value) for key, (value, _) in self._entries.items())

    def get(self, key: K) -> V | None:
        """The value, which is now the last one used."""
        found = self._entries.get(key)
        if found is None:
            return None
        self._entries.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int, limit: int) -> bool:
        """Keep `value`, which takes `size` bytes, and let go of others until all take at most
        `limit`. False if it alone takes more than an eighth of that: one entry must not empty the
        cache."""
        self.drop(key)
        size += OVERHEAD
        if size > limit // 8:
            return False
        self._entries[key] = (value, size)
        self.bytes += size
        self.shrink(limit)
        return True

    def shrink(self, limit: int) -> None:
        while self.bytes > limit:
            self.drop(next(iter(self._entries)))

    def drop(self, key: K) -> bool:
        """Whether it was there."""
        found = self._entries.pop(key, None)
        if found is None:
            return False
        self.bytes -= found[1]
        self._dropped(key, found[0])
        return True
