"""All models of one machine behind one interface.

The path of a call: admission (a bounded number per model), the door (the arbiter says when the
model may be used), the group of workers, the end. What is above sees only
`headrace.serving.models.Models`; an operator sees `headrace.serving.status.Operated`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import TypeVar

import numpy as np

from headrace.config.options import Config
from headrace.engines.base import ModelInfo, Passage, Vectors
from headrace.errors import ModelFailed, Overloaded
from headrace.serving.arbiter_types import Place
from headrace.serving.director import Director
from headrace.serving.group import Group
from headrace.serving.profiles import Profiles
from headrace.serving.recorder import Recorder
from headrace.serving.roster import Entry, Roster
from headrace.serving.status import Decision, DeviceStatus, ModelStatus
from headrace.types import USER, Call, Delta, EmbedKind, GenerateParams, Lane, Message

T = TypeVar("T")

ATTEMPTS = 3

TWIN_SECONDS = 20.0
"""How bulk work ages where it has a twin: people, and other programs of the machine, may leave the
twin's workers no time at all. What they have not done after so long goes to the model's own, where
it takes turns with people."""


class Pool:
    """Implements `Models` and `Operated`. Use as an async context manager: leaving it ends every
    worker."""

    def __init__(self, config: Config, *, twins: bool = False) -> None:
        profiles = Profiles(config.cache_dir)
        trace = config.server.trace_file
        recorder = Recorder(trace, time.monotonic()) if trace is not None else None
        self._director = Director(profiles, recorder)
        self._roster = Roster(config, self._director, profiles, twins=twins)
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Pool:
        await self._director.start()
        await self._roster.begin()
        self._keeping = asyncio.create_task(self._roster.keep_house(), name="keep the roster")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._director.stop()

    # Models -------------------------------------------------------------------------------------

    def names(self) -> Sequence[str]:
        return sorted(self._roster.entries)

    async def info(self, model: str, *, call: Call = USER) -> ModelInfo:
        known = self._director.group(self._roster.entry(model).key).info
        if known is not None:
            return known
        async with self._use(model, call) as group:
            assert group.info is not None
            return group.info

    async def generate(
        self,
        model: str,
        messages: Sequence[Message],
        params: GenerateParams,
        *,
        call: Call = USER,
    ) -> AsyncGenerator[Delta, None]:
        for attempt in range(ATTEMPTS):
            async with (
                self._use(model, call) as group,
                contextlib.aclosing(group.generate(messages, params, call)) as deltas,
            ):
                try:
                    async for delta in deltas:
                        yield delta
                    return
                except ModelFailed as error:
                    _give_up(error, attempt)

    async def embed(
        self, model: str, texts: Sequence[str], kind: EmbedKind, *, call: Call = USER
    ) -> Vectors:
        if not texts:
            info = await self.info(model, call=call)
            return np.zeros((0, info.dimensions), np.float32)
        return await self._asked(model, call, len(texts), lambda g: g.embed(texts, kind, call))

    async def score(
        self, model: str, query: str, passages: Sequence[Passage], *, call: Call = USER
    ) -> Vectors:
        if not passages:
            await self.info(model, call=call)
            return np.zeros(0, np.float32)
        size = len(passages)
        return await self._asked(model, call, size, lambda g: g.score(query, passages, call))

    async def compress(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[bytes]:
        if not texts:
            await self.info(model, call=call)
            return []
        return await self._asked(model, call, len(texts), lambda g: g.compress(texts, call))

    async def count(self, model: str, texts: Sequence[str], *, call: Call = USER) -> list[int]:
        if not texts:
            await self.info(model, call=call)
            return []
        # Not by the twin: to count is not the work that it takes off people's way.
        return await self._tried(model, call, 0, lambda g: g.count(texts, call))

    async def _asked(
        self, model: str, call: Call, size: int, work: Callable[[Group], Awaitable[T]]
    ) -> T:
        if call.lane is Lane.BULK and self._roster.entry(model).twin is not None:
            try:
                async with asyncio.timeout(TWIN_SECONDS) as patience:
                    return await self._tried(model, call, size, work, by_twin=True)
            except TimeoutError:
                if not patience.expired():
                    raise
        return await self._tried(model, call, size, work)

    async def _tried(
        self,
        model: str,
        call: Call,
        size: int,
        work: Callable[[Group], Awaitable[T]],
        *,
        by_twin: bool = False,
    ) -> T:
        attempt = 0
        while True:
            async with self._use(model, call, size, by_twin=by_twin) as group:
                try:
                    return await work(group)
                except ModelFailed as error:
                    _give_up(error, attempt)
            attempt += 1

    def _group(self, key: str) -> Group:
        return self._director.groups[key]

    @contextlib.asynccontextmanager
    async def _use(
        self, model: str, call: Call, size: int = 1, *, by_twin: bool = False
    ) -> AsyncIterator[Group]:
        """Admission and the door. Size 0, a count beside other work, takes no place in the queue: a
        request that was admitted must not be refused over the count of its own tokens."""
        entry = self._roster.entry(model)
        key = entry.twin if by_twin and entry.twin is not None else entry.key
        group = self._director.group(key)
        limit, places = entry.served.max_pending, min(size, 1)
        if places and entry.pending >= limit:
            raise Overloaded(
                f"model {model!r} has {limit} requests waiting, which is its limit (max_pending); "
                "try again later",
                retry_after=min(60.0, max(1.0, group.backlog_seconds())),
            )
        entry.pending += places
        try:
            began = time.monotonic()
            request = await self._director.enter(key, call, max(size, 1))
            group.spent["door"].add(time.monotonic() - began, 0.0)
            try:
                yield group
            finally:
                self._director.leave(request, key)
        finally:
            entry.pending -= places

    # Operation ----------------------------------------------------------------------------------

    def pending(self) -> Mapping[str, int]:
        """Requests in progress, by model."""
        return {name: entry.pending for name, entry in self._roster.entries.items()}

    def processes(self) -> Mapping[str, tuple[int, ...]]:
        """PIDs of the live workers, by model."""
        return {status.name: status.workers for status in self.states() if status.workers}

    def states(self) -> list[ModelStatus]:
        return [self._status(name, entry) for name, entry in sorted(self._roster.entries.items())]

    def _status(self, name: str, entry: Entry) -> ModelStatus:
        known, now = self._director.state, time.monotonic()
        main = known.models[entry.key]
        groups = [self._group(key) for key in entry.keys]
        models = [known.models[key] for key in entry.keys]
        waiting = [request for model in models for request in model.waiting]
        held: dict[str, int] = {}
        for key in entry.keys:
            for device, size in known.held.get(key, {}).items():
                held[device] = held.get(device, 0) + size
        return ModelStatus(
            name=name,
            role=entry.served.spec.role,
            engine=entry.served.spec.engine,
            place=main.place,
            seat=main.seat,
            held=held,
            active=sum(len(model.active) for model in models),
            waiting=len(waiting),
            waiting_seconds=max((now - request.since for request in waiting), default=0.0),
            workers=tuple(pid for group in groups for pid in group.pids()),
            restarts=sum(group.restarts for group in groups),
            problem=self._director.problem(entry.key),
            waited=_sums(groups, "waited"),
            worked=_sums(groups, "worked"),
        )

    def devices(self) -> list[DeviceStatus]:
        state, measured = self._director.state, self._director.measured
        names = sorted({"host", *state.limits, *measured})
        return [
            DeviceStatus(
                name=name,
                limit=state.limits.get(name, 0),
                booked=state.other.get(name, 0)
                + sum(sizes.get(name, 0) for sizes in state.held.values()),
                measured=measured.get(name, 0),
            )
            for name in names
        ]

    def decisions(self) -> list[Decision]:
        return list(self._director.decisions)

    async def order(self, model: str, place: Place) -> None:
        await self._roster.order(self._roster.entry(model).key, place)

    async def reset(self, model: str) -> None:
        for key in self._roster.entry(model).keys:
            self._group(key).kill(f"the workers of model {model!r} were reset by an operator")

    async def configure(self, config: Config) -> None:
        """Serve what `config` says from now on; see `Roster.configure`."""
        await self._roster.configure(config)


def _sums(groups: Sequence[Group], what: str) -> dict[str, float]:
    """Seconds by verb."""
    sums: dict[str, float] = {}
    for group in groups:
        for verb, spent in group.spent.items():
            if spent.calls:
                sums[verb] = sums.get(verb, 0.0) + getattr(spent, what)
    return sums


def _give_up(error: ModelFailed, attempt: int) -> None:
    """Raise the error, unless no worker had been given any of the request: then another try costs
    nobody anything, and may be served by the next worker."""
    if not error.unsent or attempt + 1 >= ATTEMPTS:
        raise error
