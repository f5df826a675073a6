"""One worker of a model as its group sees it: what is in flight there, and whether more may go."""

from __future__ import annotations

import asyncio

from headrace.serving.client import WorkerClient
from headrace.types import Lane


class Replica:
    """A live worker and what it has been given. `seat` is where it computes."""

    def __init__(self, client: WorkerClient, number: int) -> None:
        self.client = client
        self.number = number  # among the model's replicas
        self.tokens = 0  # of the batches in flight
        self.streams = 0
        self._flying = dict.fromkeys(Lane, 0)
        self.since = asyncio.get_running_loop().time()
        self._freed = 0.0  # when it last finished a batch

    @property
    def alive(self) -> bool:
        return self.client.alive

    def has_place(self, lane: Lane) -> bool:
        """Whether another batch may go: what it computes at once, and one that waits there."""
        return self.alive and self._flying[lane] <= self.client.info.parallel

    def rests(self, lane: Lane) -> bool:
        """Whether nothing of the lane is there."""
        return not self._flying[lane]

    @property
    def has_slot(self) -> bool:
        """Whether another stream may go."""
        slots = self.client.info.slots
        return self.alive and (not slots or self.streams < slots)

    def board(self, lane: Lane, tokens: int) -> None:
        """A batch goes there."""
        self._flying[lane] += 1
        self.tokens += tokens

    def leave(self, lane: Lane, tokens: int) -> None:
        """A batch has ended, in whatever way."""
        self._flying[lane] -= 1
        self.tokens -= tokens

    def computed(self, sent: float) -> float:
        """Seconds that a batch which is finished now, and was sent then, was computed for: the
        time that it waited behind others of this replica is not counted."""
        now = asyncio.get_running_loop().time()
        seconds = now - max(sent, self._freed)
        self._freed = now
        return seconds
