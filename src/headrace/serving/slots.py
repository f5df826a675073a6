"""Places for streams. A model that generates N streams side by side gets N at a time; the others
wait here, people before bulk, and not inside the engine, which knows no lanes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from headrace.errors import DeadlineExceeded, HeadraceError
from headrace.serving.lanes import Lanes
from headrace.serving.replica import Replica
from headrace.serving.requests import own_copy
from headrace.serving.spent import Spent
from headrace.types import Call

AGE = 10.0
"""Seconds after which a bulk stream gets a place although people wait: a stream takes seconds."""


class Slots:
    """Belongs to one event loop. `replicas` is the group's own list; the group calls `wake` when
    one comes and `fail` when none is left."""

    def __init__(self, name: str, replicas: Sequence[Replica]) -> None:
        self._name = name
        self._replicas = replicas
        self._waiting: Lanes[asyncio.Future[Replica]] = Lanes(AGE)
        self._mean = 0.0  # seconds of a stream, of late
        self.spent = Spent()

    @contextlib.asynccontextmanager
    async def place(self, call: Call) -> AsyncIterator[Replica]:
        """The replica with the fewest streams, as soon as it has a place. Raises
        `DeadlineExceeded`, or `ModelFailed` with `unsent`."""
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        replica = None if self._waiting else self._take()
        if replica is None:
            try:
                replica = await self._wait(call)
            except BaseException:
                self.spent.add(loop.time() - arrived, 0.0)
                raise
        began = loop.time()
        try:
            yield replica
        finally:
            seconds = loop.time() - began
            self.spent.add(began - arrived, seconds)
            self._mean = 0.8 * self._mean + 0.2 * seconds if self._mean else seconds
            self._give_back(replica)

    async def _wait(self, call: Call) -> Replica:
        loop = asyncio.get_running_loop()
        place: asyncio.Future[Replica] = loop.create_future()
        self._waiting.put(place, call.lane, loop.time())
        ahead = self._waiting.ahead(place)
        came = False
        try:
            async with asyncio.timeout_at(call.deadline):
                replica = await place
            came = True
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the request's time was over before model {self._name!r} had a place for it; "
                f"{ahead} were ahead of it when it came"
            ) from error
        finally:
            self._waiting.remove(place)
            if not came and place.done() and not place.cancelled() and not place.exception():
                self._give_back(place.result())  # it came at the moment when the caller left
        return replica

    def _take(self) -> Replica | None:
        """A place on the replica with the fewest streams, if there is one."""
        free = [one for one in self._replicas if one.has_slot]
        replica = min(free, key=lambda one: (one.streams, one.tokens), default=None)
        if replica is not None:
            replica.streams += 1
        return replica

    def _give_back(self, replica: Replica) -> None:
        replica.streams -= 1
        self.wake()

    def wake(self) -> None:
        """Hand out the places that are free."""
        while self._waiting and (replica := self._take()) is not None:
            place = self._waiting.take(asyncio.get_running_loop().time())
            if place is not None and not place.done():
                place.set_result(replica)
            else:
                replica.streams -= 1

    def fail(self, error: HeadraceError) -> None:
        """No replica is left: fail those that wait. Running streams fail by themselves."""
        while (place := self._waiting.take(0.0)) is not None:
            if not place.done():
                place.set_exception(own_copy(error, unsent=True))
                place.exception()  # its caller may be gone already

    @property
    def backlog_seconds(self) -> float:
        """Until those that wait have had their places, as long as streams take of late."""
        places = sum(one.client.info.slots for one in self._replicas if one.alive)
        return len(self._waiting) * self._mean / places if places else 0.0
