"""A request to a batcher, and its items: texts, or pairs of a query and a passage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from headrace.engines.base import Pair
from headrace.errors import HeadraceError, ModelFailed, by_code
from headrace.types import Call

Given: TypeAlias = str | Pair
Rows: TypeAlias = npt.NDArray[Any]
"""A row for each item: float32, or an object."""


class Item:
    """One text or pair of a request: what batches are made of. Equal to itself alone."""

    __slots__ = ("given", "place", "request", "tokens")

    def __init__(self, request: Request, place: int, given: Given, tokens: int) -> None:
        self.request = request
        self.place = place  # its row in the result
        self.given = given
        self.tokens = tokens


class Request:
    """Items that one caller wants computed, and their rows as they come in.

    They are taken by length, which makes batches with little padding, unless all of them fit
    one portion. `fed` are those that wait in a lane now, `unsent_tokens` the size of all that no
    worker has been given yet.
    """

    def __init__(
        self, kind: str, items: Sequence[Given], lengths: Sequence[int], call: Call
    ) -> None:
        self.kind = kind
        self.call = call
        self.result: asyncio.Future[Rows] = asyncio.get_running_loop().create_future()
        self.fed: set[Item] = set()
        self.unsent_tokens = sum(lengths)
        self._items = items
        self._lengths = lengths
        self._order: list[int] | range | None = None
        self._next = 0  # in the order
        self._rows: Rows | None = None
        self._missing = len(items)
        self.sent_at: float | None = None  # when the first of them went to a worker

    @property
    def cut_short(self) -> bool:
        """It ended before all its rows were there."""
        return self._missing > 0

    def portion(self, tokens: int) -> list[Item]:
        """The next items, as many as the tokens allow but at least one; empty at the end."""
        if self._order is None:
            whole = self.unsent_tokens <= tokens
            every = range(len(self._items))
            self._order = every if whole else sorted(every, key=self._lengths.__getitem__)
        found: list[Item] = []
        while self._next < len(self._order):
            place = self._order[self._next]
            length = self._lengths[place]
            if found and length > tokens:
                break
            tokens -= length
            found.append(Item(self, place, self._items[place], length))
            self._next += 1
        self.fed.update(found)
        return found

    def send(self, items: Sequence[Item]) -> int:
        """These go to a worker; their tokens."""
        self.fed.difference_update(items)
        if self.sent_at is None:
            self.sent_at = asyncio.get_running_loop().time()
        tokens = sum(item.tokens for item in items)
        self.unsent_tokens -= tokens
        return tokens

    def receive(self, items: Sequence[Item], rows: Rows) -> None:
        """Rows of some of its items. They are copied only where they come in pieces, or where
        holding on to them would hold on to a whole batch of others."""
        if self.result.done():
            return
        self._missing -= len(items)
        if len(items) == len(self._items) and isinstance(self._order, range):
            alone = rows.base is None or rows.base.nbytes <= 2 * rows.nbytes
            self.result.set_result(rows if alone else rows.copy())
            return
        if self._rows is None:
            self._rows = np.empty((len(self._items), *rows.shape[1:]), dtype=rows.dtype)
        self._rows[[item.place for item in items]] = rows
        if not self._missing:
            self.result.set_result(self._rows)

    def fail(self, error: HeadraceError) -> None:
        """End with a copy of the error, unless it has ended."""
        if self.result.done():
            return
        self.result.set_exception(own_copy(error, unsent=self.sent_at is None))
        self.result.exception()  # its caller may be gone already


def own_copy(error: HeadraceError, *, unsent: bool) -> HeadraceError:
    """The same error once more: one exception object must not be raised in many tasks."""
    own = by_code(error.code, error.message)
    own.__dict__.update(error.__dict__)
    if isinstance(own, ModelFailed):
        own.unsent = unsent
    return own
