"""Embeds the texts of many documents together and keeps the embedder busy.

Texts of similar length share a batch, whichever document they come from; the oldest text is
always in the next one, so that documents become complete in about the order they were read.
Batches are in flight side by side, and the vectors of each are staged in the index before
anything else happens: a crash loses no more than those in flight.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import BadRequest, ModelFailed, Overloaded
from headrace.ingest.threads import in_thread
from headrace.retrieval.base import Index
from headrace.serving.models import Models
from headrace.types import BULK

Vector = npt.NDArray[np.float32]

IN_FLIGHT = 4
"""Batches sent at once: one that the engine works on, the others on their way or waiting."""

WINDOW = 16
"""Batches of texts to choose from, so that lengths in a batch are alike."""

_HOPELESS = 3
"""Texts in a row that fail alone before the embedder, not a text, is taken to be the cause."""


class _Ticket:
    """Somebody waiting for vectors."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.found: dict[bytes, Vector] = {}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def give(self, key: bytes, vector: Vector) -> None:
        self.found[key] = vector
        if len(self.found) == self.wanted and not self.done.done():
            self.done.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


@dataclass
class _Entry:
    key: bytes
    text: str
    tickets: list[_Ticket] = field(default_factory=list)


class _Place(NamedTuple):
    """Where a waiting text stands among the others, by length."""

    length: int
    serial: int
    key: bytes


class Embedding:
    """Run `run` as a task beside the callers of `vectors`; `close` ends it."""

    def __init__(
        self,
        models: Models,
        model: str,
        index: Index,
        *,
        batch_texts: int,
        on_batch: Callable[[int], None],
    ) -> None:
        """`on_batch` is called with the number of texts after each batch."""
        self._models = models
        self._model = model
        self._index = index
        self._batch_texts = batch_texts
        self._on_batch = on_batch
        self._waiting: dict[bytes, tuple[_Entry, _Place]] = {}  # oldest first
        self._by_length: list[_Place] = []
        self._sent: dict[bytes, _Entry] = {}
        self._in_flight = 0
        self._serial = 0
        self._failed_in_a_row = 0
        self._hurry = False
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def backlog(self) -> int:
        """Texts that wait for a batch."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """There is enough to choose from; what is added now only takes memory."""
        return len(self._waiting) >= 2 * WINDOW * self._batch_texts

    async def vectors(self, texts: Mapping[bytes, str]) -> dict[bytes, Vector]:
        """Vectors of texts by key. Raises `ModelFailed` or `BadRequest` if the embedder cannot
        take one of them."""
        if not texts:
            return {}
        ticket = _Ticket(len(texts))
        for key, text in texts.items():
            self._add(key, text, ticket)
        self._changed.set()
        await ticket.done
        return ticket.found

    def hurry(self) -> None:
        """Hardly anything new will come: send what waits, however little it is."""
        self._hurry = True
        self._changed.set()

    def close(self) -> None:
        """For when every call of `vectors` has returned."""
        self._closed = True
        self._changed.set()

    async def run(self) -> None:
        """Send batches until `close`."""
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                self._changed.clear()
                while self._may_send():
                    self._in_flight += 1
                    group.create_task(self._step(self._take()))
                await self._changed.wait()

    def _add(self, key: bytes, text: str, ticket: _Ticket) -> None:
        if key in self._sent:
            self._sent[key].tickets.append(ticket)
            return
        if key not in self._waiting:
            self._serial += 1
            place = _Place(len(text), self._serial, key)
            self._waiting[key] = (_Entry(key, text), place)
            insort(self._by_length, place)
        self._waiting[key][0].tickets.append(ticket)

    def _may_send(self) -> bool:
        waiting = len(self._waiting)
        if not waiting:
            return False
        if self._hurry or waiting >= WINDOW * self._batch_texts:
            return self._in_flight < IN_FLIGHT
        # Reading is behind: do not let the embedder idle for the sake of better batches.
        return self._in_flight < (2 if waiting >= self._batch_texts else 1)

    def _take(self) -> list[_Entry]:
        """The oldest text and those nearest to it in length."""
        _, oldest = next(iter(self._waiting.values()))
        at = bisect_left(self._by_length, oldest)
        last = max(0, len(self._by_length) - self._batch_texts)
        start = min(max(0, at - self._batch_texts // 2), last)
        places = self._by_length[start : start + self._batch_texts]
        del self._by_length[start : start + self._batch_texts]
        entries = [self._waiting.pop(place.key)[0] for place in places]
        self._sent.update((entry.key, entry) for entry in entries)
        return entries

    async def _step(self, batch: Sequence[_Entry]) -> None:
        try:
            await self._embed(batch)
        finally:
            self._in_flight -= 1
            self._changed.set()
        self._on_batch(len(batch))

    async def _embed(self, batch: Sequence[_Entry]) -> None:
        """Embed, stage, hand out. A batch that fails is halved until the text that fails alone
        is found."""
        try:
            vectors = await self._call([entry.text for entry in batch])
        except (ModelFailed, BadRequest) as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._embed(batch[:middle])
                await self._embed(batch[middle:])
                return
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= _HOPELESS:
                raise
            self._sent.pop(batch[0].key)
            for ticket in batch[0].tickets:
                ticket.fail(error)
            return
        self._failed_in_a_row = 0
        found = {entry.key: vector for entry, vector in zip(batch, vectors, strict=True)}
        await in_thread(self._index.stage, found)
        for entry in batch:
            self._sent.pop(entry.key)
            for ticket in entry.tickets:
                ticket.give(entry.key, found[entry.key])

    async def _call(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        while True:
            try:
                return await self._models.embed(self._model, texts, "passage", call=BULK)
            except Overloaded as error:  # bulk work can wait
                await asyncio.sleep(error.retry_after)
