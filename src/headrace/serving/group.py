"""One model: its replicas, and what spreads its requests over them.

A group does what it is told (`bring`, `park`, `leave`, by the arbiter's effects) and one thing by
itself: while other replicas serve, one that died is started again, after 1, 2, 4, ... 60 seconds.
When none is left it says so once (`on_death`) and is gone; whoever decides may bring it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

from headrace.engines.base import ModelInfo, ModelSpec, Pair, Passage, Vectors, pairs
from headrace.errors import DeadlineExceeded, HeadraceError, ModelFailed
from headrace.serving.batcher import Batcher
from headrace.serving.client import WorkerClient
from headrace.serving.memory import Memory
from headrace.serving.models import together
from headrace.serving.replica import Replica
from headrace.serving.requests import Rows
from headrace.serving.slots import Slots
from headrace.serving.spent import Spent
from headrace.types import Call, Delta, EmbedKind, GenerateParams, Lane, Message

log = logging.getLogger(__name__)

MOST_DELAY = 60.0
"""Longest wait before a replica is started again; one that lived for longer begins anew."""


def restart_delay(failures: int, chance: float) -> float:
    """Seconds to wait after so many deaths in a row; `chance` in [0, 1) spreads them over half of
    it, so that replicas that died together do not load together."""
    return min(2.0 ** (failures - 1), MOST_DELAY) * (1.0 - chance / 2)


class Group:
    """Belongs to one event loop. `info` is that of the last load, kept when the model is parked
    or gone; `restarts` counts replicas that were started again by the group itself; `spent` is by
    verb, and what was waited for at the `door` while the model was not where it can work."""

    def __init__(
        self, spec: ModelSpec, *, nice: int = 0, on_death: Callable[[HeadraceError], None]
    ) -> None:
        self.spec = spec
        self.info: ModelInfo | None = None
        self.restarts = 0
        self._nice = nice
        self._on_death = on_death
        self._seat = ""  # where it serves; empty if it does not
        self._workers: dict[int, Replica] = {}  # with a live process, serving or parked, by number
        self._starting: dict[int, int] = {}  # PIDs of those that load for the first time
        self._serving: list[Replica] = []
        self._deaths: dict[int, int] = {}  # in a row, by number
        self._move: asyncio.Task[None] | None = None
        self._why: HeadraceError | None = None  # the move was broken off
        self._restarting: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        most = int(spec.options.get("batch_tokens", 4096))
        self._batchers = {
            "embed": Batcher(spec.name, _embed, self._serving, most),
            "score": Batcher(spec.name, _score, self._serving, most),
            "compress": Batcher(spec.name, _compress, self._serving, most),
        }
        self._slots = Slots(spec.name, self._serving)
        self.spent = {
            "door": Spent(),
            "generate": self._slots.spent,
            **{verb: batcher.spent for verb, batcher in self._batchers.items()},
        }

    # Requests -----------------------------------------------------------------------------------

    async def generate(
        self, messages: Sequence[Message], params: GenerateParams, call: Call
    ) -> AsyncGenerator[Delta, None]:
        """Raises like `Batcher.run`; the deadline is for the start of the stream."""
        self._check()
        async with self._slots.place(call) as replica:
            stream = replica.client.stream(messages, params)
            async with contextlib.aclosing(stream) as deltas:
                async for delta in deltas:
                    yield delta

    async def embed(self, texts: Sequence[str], kind: EmbedKind, call: Call) -> Vectors:
        """float32 [n, dimensions]; raises like `Batcher.run`."""
        info = self._check()
        if not texts:
            return np.zeros((0, info.dimensions), np.float32)
        return await self._batchers["embed"].run(kind, texts, call, info.context)

    async def score(self, query: str, passages: Sequence[Passage], call: Call) -> Vectors:
        """float32 [n]; raises like `Batcher.run`."""
        info = self._check()
        if not passages:
            return np.zeros(0, np.float32)
        asked = pairs(query, passages)
        return await self._batchers["score"].run("pair", asked, call, info.context)

    async def compress(self, texts: Sequence[str], call: Call) -> list[bytes]:
        """Raises like `Batcher.run`."""
        info = self._check()
        if not texts:
            return []
        rows = await self._batchers["compress"].run("passage", texts, call, info.context)
        return list(rows)

    async def count(self, texts: Sequence[str], call: Call) -> list[int]:
        """Raises `DeadlineExceeded`: what counts may be busy with other work."""
        self._check()
        replica = min(self._serving, key=lambda one: one.tokens)
        try:
            async with asyncio.timeout_at(call.deadline):
                return await replica.client.count(texts)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the request's time was over before model {self.spec.name!r} had counted tokens"
            ) from error

    def _check(self) -> ModelInfo:
        if self.info is None or not any(one.alive for one in self._serving):
            error = ModelFailed(f"no worker of model {self.spec.name!r} is serving; ask again")
            error.unsent = True
            raise error
        return self.info

    def backlog_seconds(self) -> float:
        """Estimate of the time to work off what waits here and what is being computed, at the
        speed of late; 0 as long as no speed has been seen."""
        alive = sum(one.alive for one in self._serving)
        encoding = sum(
            batcher.backlog / (batcher.speed * alive)
            for batcher in self._batchers.values()
            if batcher.speed and alive
        )
        return encoding + self._slots.backlog_seconds

    # Moves --------------------------------------------------------------------------------------

    async def bring(self, seat: str) -> ModelInfo:
        """From nothing, parked or another seat to serving: all replicas or, if one fails or the
        call is cancelled, none, and no process. Raises what the load raised."""
        if self._seat != seat:
            await self._moved(self._bring(seat))
        assert self.info is not None
        return self.info

    async def park(self) -> None:
        """Weights off the seat; the workers stay. Raises `ModelFailed`, and then it is gone."""
        if self._seat:
            await self._moved(self._park())

    async def leave(self) -> None:
        """End all workers; returns when they are gone. What they were doing fails, and a move in
        progress is broken off."""
        error = ModelFailed(f"model {self.spec.name!r} was unloaded; the next request loads it")
        self._break_off(error)
        if self._move is not None:
            await asyncio.wait((self._move,))
        for batcher in self._batchers.values():
            await batcher.close()
        await self._end(error)

    def kill(self, why: str) -> None:
        """Kill every worker, also one that is being loaded; `on_death` follows if any served."""
        error = ModelFailed(why)
        self._break_off(error)
        for replica in list(self._workers.values()):
            replica.client.kill(why)  # which tells `_died`

    async def _moved(self, work: Coroutine[Any, Any, None]) -> None:
        """Perform a move. The caller's cancellation, `kill` and `leave` break it off."""
        assert self._move is None, "one move at a time"
        self._why = None
        self._move = asyncio.create_task(work, name=f"move {self.spec.name}")
        try:
            await self._move
        except BaseException as error:
            why, self._move = self._why, None
            await self._end(ModelFailed(f"model {self.spec.name!r} could not be moved: {error}"))
            if isinstance(error, asyncio.CancelledError) and why is not None:
                raise why from error
            raise
        finally:
            self._move = None

    def _break_off(self, error: HeadraceError) -> None:
        if self._move is not None:
            self._why = error
            self._move.cancel()

    async def _bring(self, seat: str) -> None:
        if self._seat:
            await self._park()
        replicas = range(int(self.spec.options.get("replicas", 1)))
        # The first one alone: it may fetch and convert weights, which the others then find.
        await self._bring_one(replicas[0], seat)
        await together(*(self._bring_one(number, seat) for number in replicas[1:]))
        self._seat = seat
        self._serving.extend(self._workers.values())
        self._wake()

    async def _bring_one(self, number: int, seat: str) -> None:
        """Have one replica's worker compute on its seat."""
        options = self.spec.options
        seats, cores = options.get("devices") or (seat,), options.get("cores") or ("",)
        place = seats[number % len(seats)]
        replica = self._workers.get(number)
        if replica is not None:
            self.info = await replica.client.resume(place)
            return
        try:
            client = await WorkerClient.start(
                self.spec,
                seat=place,
                cores=cores[number % len(cores)],
                nice=self._nice,
                python=options.get("python"),
                on_start=partial(self._starting.__setitem__, number),
                on_death=partial(self._died, number),
            )
        finally:
            self._starting.pop(number, None)
        self.info = client.info
        self._workers[number] = Replica(client, number)

    async def _park(self) -> None:
        self._out_of_service()
        await together(*(replica.client.park() for replica in self._workers.values()))

    def _out_of_service(self) -> None:
        self._seat = ""
        self._serving.clear()
        for task in self._restarting:
            task.cancel()

    async def _end(self, error: HeadraceError) -> None:
        """End every worker; what waits for one fails."""
        self._out_of_service()
        for replica in self._workers.values():
            self._close(replica)
        self._workers.clear()
        self._fail(error)
        while ending := self._closing | self._restarting:
            await asyncio.wait(ending)

    def _close(self, replica: Replica) -> None:
        task = asyncio.create_task(replica.client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    # Death --------------------------------------------------------------------------------------

    def _died(self, number: int, error: HeadraceError) -> None:
        """A worker ended by itself or was killed."""
        replica = self._workers.get(number)
        if replica is None or replica.alive:
            return  # known already
        log.warning("replica %d of model %s: %s", number, self.spec.name, error)
        del self._workers[number]
        self._close(replica)
        if self._move is not None:
            self._break_off(error)
            return
        if replica in self._serving:
            self._serving.remove(replica)
        if any(one.alive for one in self._workers.values()):
            if self._seat:
                lived = asyncio.get_running_loop().time() - replica.since
                before = 0 if lived > MOST_DELAY else self._deaths.get(number, 0)
                self._deaths[number] = before + 1
                self._restart(number)
            return
        self._out_of_service()
        self._fail(error)
        self._on_death(error)

    def _restart(self, number: int) -> None:
        task = asyncio.create_task(self._start_again(number))
        self._restarting.add(task)
        task.add_done_callback(self._restarting.discard)

    async def _start_again(self, number: int) -> None:
        while True:
            chance = random.random()  # noqa: S311 - no secret
            await asyncio.sleep(restart_delay(self._deaths[number], chance))
            try:
                await self._bring_one(number, self._seat)
            except (HeadraceError, OSError) as error:
                log.warning("replica %d of model %s: %s", number, self.spec.name, error)
                self._deaths[number] += 1
                continue
            self.restarts += 1
            self._serving.append(self._workers[number])
            self._wake()
            return

    def _wake(self) -> None:
        self._slots.wake()
        for batcher in self._batchers.values():
            batcher.wake()

    def _fail(self, error: HeadraceError) -> None:
        self._slots.fail(error)
        for batcher in self._batchers.values():
            batcher.fail(error)

    # Figures ------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """The sum over the replicas."""
        held: dict[str, int] = {}
        peak: dict[str, int] = {}
        for replica in self._workers.values():
            memory = replica.client.memory()
            for total, sizes in ((held, memory.held), (peak, memory.peak)):
                for device, size in sizes.items():
                    total[device] = total.get(device, 0) + size
        return Memory(held, peak)

    def pids(self) -> tuple[int, ...]:
        """Of all its processes, those that are being loaded included."""
        return (*(one.client.pid for one in self._workers.values()), *self._starting.values())


async def _embed(replica: Replica, kind: str, texts: tuple[str, ...], lane: Lane) -> Vectors:
    return await replica.client.embed(texts, cast(EmbedKind, kind), lane)


async def _score(replica: Replica, kind: str, asked: tuple[Pair, ...], lane: Lane) -> Vectors:
    return await replica.client.score(asked, lane)


async def _compress(replica: Replica, kind: str, texts: tuple[str, ...], lane: Lane) -> Rows:
    rows = np.empty(len(texts), dtype=object)
    rows[:] = await replica.client.compress(texts, lane)
    return rows
