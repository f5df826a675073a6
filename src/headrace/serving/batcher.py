"""Items of many requests computed together: one batcher per model and verb. An item is a text or,
where the verb is `score`, a pair: whose query it has does not matter.

A request is cut into items; what waits is packed into batches (`headrace.serving.packing`) and
sent to the replica with the fewest tokens in flight. There is no delay and no loop: items are
packed when they arrive and a replica has a place, or when a place becomes free. A replica has, in
each lane, one place more than it computes at once, so it finds its next batch waiting when it has
finished one. An engine that *gathers* (`ModelInfo`) gets that next batch only when it is worth
sending: until then a few texts wait for what comes meanwhile. Each lane has its own places because
the worker, which decides last, runs interactive batches before bulk ones
(`headrace.serving.lanes`).

A long request waits in portions of one batch, each at the end of its lane: many items of one
caller do not keep another one waiting for more than a batch.

A batch that fails in the engine is split in halves, by request, until the one that the engine
cannot compute stands alone. One whose worker died is not tried again: it may be what killed it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

from headrace.errors import DeadlineExceeded, HeadraceError, ModelFailed, Overloaded
from headrace.serving.lengths import estimate
from headrace.serving.packing import StepSize, pack
from headrace.serving.replica import Replica
from headrace.serving.requests import Given, Item, Request, Rows
from headrace.serving.spent import Spent
from headrace.types import Call, Lane

log = logging.getLogger(__name__)

WINDOW = 256
"""Waiting items that are looked at for one batch; sorting them takes 50 microseconds."""

GATHERED = 0.25
"""Share of a batch from which texts do not wait for more while others are computed. On two cores
a question costs the default embedder 7 ms of CPU alone, 4.1 ms beside one other, 3.8 of sixteen."""

MOST_FAILURES = 16
"""Failures of one batch after which its remaining requests fail: two poisoned requests among 64
are found in fewer; an engine that refuses everything is not asked a hundred times."""

Verb: TypeAlias = Callable[[Replica, str, tuple[Any, ...], Lane], Awaitable[Rows]]
"""Computes items of one kind on a replica: an array whose first axis is the items."""


class Batcher:
    """Belongs to one event loop. `replicas` is the group's own list, which changes as they come
    and go; the group calls `wake` when one comes and `fail` when none is left."""

    def __init__(
        self, name: str, verb: Verb, replicas: Sequence[Replica], most_tokens: int
    ) -> None:
        self._name = name
        self._verb = verb
        self._replicas = replicas
        self._waiting: dict[Lane, OrderedDict[Item, None]] = {lane: OrderedDict() for lane in Lane}
        self._tokens = 0  # of all that has not been sent, what is not yet in a lane included
        self._flying: dict[asyncio.Task[None], list[Item]] = {}
        self._step = StepSize(most_tokens)
        self._woken = False
        self._done_tokens = self._done_seconds = 0.0
        self.spent = Spent()

    # Requests -----------------------------------------------------------------------------------

    async def run(self, kind: str, items: Sequence[Given], call: Call, window: int = 0) -> Rows:
        """One row per item (at least one item). Items are cut by the engine at `window` tokens
        (0: not), so they count for no more here. Raises `DeadlineExceeded`, also if the time is
        over while it computes; `ModelFailed`, with `unsent` if none of it had reached a worker;
        or what the engine raises."""
        lengths = list(map(estimate, items))
        if window:
            lengths = [min(length, window) for length in lengths]
        loop = asyncio.get_running_loop()
        began = loop.time()
        request = Request(kind, items, lengths, call)
        self._tokens += request.unsent_tokens
        self._feed(request)
        self.wake()
        try:
            async with asyncio.timeout_at(call.deadline):
                return await request.result
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the request's time was over before model {self._name!r} had computed it"
            ) from error
        finally:
            self._forget(request)
            now = loop.time()
            sent = now if request.sent_at is None else request.sent_at
            self.spent.add(sent - began, now - sent)

    def _feed(self, request: Request) -> None:
        """Put the request's next portion at the end of its lane."""
        lane = self._waiting[request.call.lane]
        for item in request.portion(self._step.tokens):
            lane[item] = None

    def _forget(self, request: Request) -> None:
        """What of a request has not been computed is not needed any more."""
        self._tokens -= request.unsent_tokens
        request.unsent_tokens = 0
        lane = self._waiting[request.call.lane]
        for item in request.fed:
            lane.pop(item, None)
        if not request.cut_short:
            return
        for task, batch in self._flying.items():
            if all(item.request.result.done() for item in batch):
                task.cancel()  # nobody waits for any of it; the worker drops it if it can

    def fail(self, error: HeadraceError) -> None:
        """No replica is left: fail what has not been sent. What is in flight fails by itself."""
        for lane in self._waiting.values():
            for item in list(lane):
                item.request.fail(error)
            lane.clear()

    # Batches ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Send what can be sent, after the tasks that run in this turn of the event loop: what
        arrives at the same moment goes together."""
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._woken = False
        for lane in Lane:
            while self._waiting[lane] and (replica := self._free(lane)) is not None:
                batch = self._next(lane)
                replica.board(lane, sum(item.tokens for item in batch))
                task = asyncio.create_task(self._carry(replica, batch))
                self._flying[task] = batch
                task.add_done_callback(partial(self._landed, replica))

    def _free(self, lane: Lane) -> Replica | None:
        """The replica with the fewest tokens in flight of those that have a place in the lane, and
        for which the texts there need not wait for others."""
        few = not self._worth_a_batch(lane)
        free = [
            one
            for one in self._replicas
            if one.has_place(lane) and not (few and one.client.info.gathers and not one.rests(lane))
        ]
        return min(free, key=lambda one: one.tokens, default=None)

    def _worth_a_batch(self, lane: Lane) -> bool:
        tokens = itertools.accumulate(item.tokens for item in self._waiting[lane])
        return any(sum_ >= GATHERED * self._step.tokens for sum_ in tokens)

    def _next(self, lane: Lane) -> list[Item]:
        """Take the next batch out of its lane, in order of arrival, and feed the requests whose
        portion is used up."""
        waiting = self._waiting[lane]
        kind = next(iter(waiting)).request.kind
        near = [item for item in itertools.islice(waiting, WINDOW) if item.request.kind == kind]
        batch = [near[i] for i in pack([item.tokens for item in near], self._step.tokens)]
        for item in batch:
            del waiting[item]
        for items in _by_request(batch):
            request = items[0].request
            self._tokens -= request.send(items)
            if not request.fed:
                self._feed(request)
        return batch

    async def _carry(self, replica: Replica, batch: list[Item]) -> None:
        began = asyncio.get_running_loop().time()
        if await self._compute(replica, batch, batch[0].request.call.lane):
            self._learn(sum(item.tokens for item in batch), replica.computed(began))

    def _landed(self, replica: Replica, task: asyncio.Task[None]) -> None:
        """Give up the batch's place, whatever happened; it may have been cancelled before its first
        step, when nothing in it could."""
        batch = self._flying.pop(task)
        replica.leave(batch[0].request.call.lane, sum(item.tokens for item in batch))
        problem = None if task.cancelled() else task.exception()
        if task.cancelled() or problem is not None:  # no caller may wait for ever
            error = ModelFailed(f"model {self._name!r} did not get to the end of a batch")
            for item in batch:
                item.request.fail(error)
        if problem is not None:
            log.error("a batch of model %s failed", self._name, exc_info=problem)
        self.wake()

    def _learn(self, tokens: int, seconds: float) -> None:
        self._step.learn(tokens, seconds)
        self._done_tokens = 0.9 * self._done_tokens + tokens
        self._done_seconds = 0.9 * self._done_seconds + seconds

    async def _compute(self, replica: Replica, batch: list[Item], lane: Lane) -> bool:
        """Compute a batch; failures reach the requests. Whether it went in one piece."""
        parts, failures = [batch], 0
        while parts:
            # Not those whose caller has gone in the turn in which they were to be sent.
            part = [item for item in parts.pop() if not item.request.result.done()]
            if not part:
                continue
            given = tuple(item.given for item in part)
            try:
                rows = await self._verb(replica, part[0].request.kind, given, lane)
            except HeadraceError as error:
                failures += 1
                halves = _halves(part)
                hopeless = not replica.alive or isinstance(error, Overloaded)
                if halves is None or hopeless or failures >= MOST_FAILURES:
                    for item in part:
                        item.request.fail(error)
                else:
                    parts += reversed(halves)
            else:
                _deliver(part, rows)
        return failures == 0

    # Figures ------------------------------------------------------------------------------------

    @property
    def backlog(self) -> int:
        """Tokens that wait or are being computed."""
        return self._tokens + sum(item.tokens for batch in self._flying.values() for item in batch)

    @property
    def speed(self) -> float:
        """Tokens a second that one replica computes, of late; 0 if none has been seen."""
        return self._done_tokens / self._done_seconds if self._done_seconds else 0.0

    async def close(self) -> None:
        """End what is in flight; its requests fail."""
        tasks = list(self._flying)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _by_request(batch: Iterable[Item]) -> list[list[Item]]:
    """A batch has the items of a request side by side."""
    return [list(items) for _, items in itertools.groupby(batch, key=lambda item: id(item.request))]


def _halves(batch: list[Item]) -> tuple[list[Item], list[Item]] | None:
    """Two parts that share no request; `None` for one request, which fails as a whole."""
    requests = _by_request(batch)
    if len(requests) == 1:
        return None
    middle = len(requests) // 2
    first, second = requests[:middle], requests[middle:]
    return [item for one in first for item in one], [item for one in second for item in one]


def _deliver(batch: list[Item], rows: Rows) -> None:
    start = 0
    for items in _by_request(batch):
        end = start + len(items)
        items[0].request.receive(items, rows[start:end])
        start = end
