"""The one owner of the arbiter's state: tells it what happens, and does what it decides.

`tell` is synchronous and the only place where the state changes, so between two events nobody sees
half a decision. Loads, parks and exits run as tasks that this object owns; their end is an event
again. A request waits at its *door*, a future that an `Admit` or a `Refuse` opens.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from headrace.engines.base import ModelSpec
from headrace.errors import DeadlineExceeded, HeadraceError, ModelFailed, ShuttingDown, by_code
from headrace.serving import census
from headrace.serving.arbiter import decide
from headrace.serving.arbiter_draft import OPEN_CIRCUIT
from headrace.serving.arbiter_types import (
    Admit,
    Arrived,
    Effect,
    Ended,
    Event,
    Exit,
    Load,
    Measured,
    Moved,
    MoveFailed,
    Park,
    Place,
    Refuse,
    Sizes,
    State,
    Tick,
    Wake,
)
from headrace.serving.census import Census
from headrace.serving.group import Group
from headrace.serving.memory import Gpus
from headrace.serving.profiles import MIB, Profiles, measured, outgrown
from headrace.serving.recorder import Recorder
from headrace.serving.status import Decision
from headrace.types import Call

log = logging.getLogger(__name__)

MEASURE_SECONDS = 1.0
LOADING_SECONDS = 0.05
"""How often the machine's memory is measured: in general, and while a model is being loaded."""

OWN_BYTES = 192 * MIB
"""The least that is booked for the server itself: one that has just started takes less than one
that has opened its collections."""

GUARD_BYTES = 32 * MIB
"""How far from the limit a load that takes more than was reserved is stopped: what one may take
between two measurements."""

ORDER_SECONDS = 3600.0
"""Bound of an operator's order: a load may fetch gigabytes over a slow line."""


class Director:
    """Groups of workers by key; a key is a model's name, or a name with a suffix for its bulk twin
    or its next version. What is measured goes to `profiles`."""

    def __init__(self, profiles: Profiles, recorder: Recorder | None = None) -> None:
        self.state = State()
        self.groups: dict[str, Group] = {}
        self.decisions: deque[Decision] = deque(maxlen=1000)
        self.measured: Sizes = {}
        self.refusals: Counter[str] = Counter()
        """How often a model was refused, by key."""
        self.gpus = Gpus.found()
        self._profiles = profiles
        self._recorder = recorder
        self._errors: dict[str, MoveFailed] = {}
        self._retired: set[str] = set()
        self._lost: dict[str, HeadraceError] = {}
        self._stopped_at: dict[str, int] = {}  # bytes that a load had taken, by key
        self._stopped = False
        self._doors: dict[int, asyncio.Future[str]] = {}
        self._requests = itertools.count(1)
        self._moving: dict[str, asyncio.Task[None]] = {}
        self._watchers: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._wake: asyncio.TimerHandle | None = None
        self._measuring: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._tell_measured(await asyncio.to_thread(census.take, {}, self.gpus))
        self._measuring = asyncio.create_task(self._measure(), name="measure memory")

    async def stop(self) -> None:
        """End every worker; returns when all are gone."""
        self._stopped = True
        if self._wake is not None:
            self._wake.cancel()
        tasks = [task for task in (self._measuring, *self._moving.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(group.leave() for group in self.groups.values()))
        self.groups.clear()
        if self._recorder is not None:
            await asyncio.to_thread(self._recorder.flush)
        for door in self._doors.values():
            if not door.done():
                door.set_exception(_over())

    # Requests -----------------------------------------------------------------------------------

    async def enter(self, key: str, call: Call, size: int) -> int:
        """Wait until the model may be used; the number is for `leave`, which must follow. Raises
        `DeadlineExceeded`, or the error of a refusal."""
        request = next(self._requests)
        door: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._doors[request] = door
        if self._recorder is not None:
            role = self.groups[key].spec.role
            self._recorder.arrived(_now(), request, key, role, call, size)
        self.tell(Arrived(_now(), request, key, call.lane, size, call.cycle, call.then))
        try:
            if not door.done():
                async with asyncio.timeout_at(call.deadline):
                    await asyncio.wait((door,))
            door.result()
        except BaseException as error:
            if self._recorder is not None:
                self._recorder.refused(request)
            self.tell(Ended(_now(), request, key))
            if isinstance(error, TimeoutError):
                raise DeadlineExceeded(
                    f"the request's time was over before model {key!r} was ready"
                ) from error
            raise
        finally:
            del self._doors[request]
        if self._recorder is not None:
            self._recorder.admitted(_now(), request)
        return request

    def leave(self, request: int, key: str) -> None:
        if self._recorder is not None:
            self._recorder.ended(_now(), request)
        self.tell(Ended(_now(), request, key))

    # Groups -------------------------------------------------------------------------------------

    def group(self, key: str) -> Group:
        """Raises `ShuttingDown`: who asks again at the end gets no door that never opens."""
        if self._stopped:
            raise _over()
        return self.groups[key]

    def add(self, key: str, spec: ModelSpec, nice: int) -> None:
        """Before the arbiter hears of it."""
        self.groups[key] = Group(spec, nice=nice, on_death=partial(self._died, key))

    def retire(self, key: str) -> None:
        """Forget a group as soon as the arbiter has: when it is not configured, idle and gone."""
        self._retired.add(key)

    def problem(self, key: str) -> str:
        """Why a model cannot serve; empty if it can. A worker that died is no reason, for the next
        request starts another, unless it failed so often that its circuit is open; a balancer that
        waits for this server to be ready sends no request."""
        model, last = self.state.models[key], self._errors.get(key)
        crashed = last is not None and last.code == ModelFailed.code
        shut = model.failures >= OPEN_CIRCUIT and _now() < model.retry_at
        return self.failure(key) if model.failures and (shut or not crashed) else ""

    def failure(self, key: str) -> str:
        """How a model failed last; empty if it has succeeded since."""
        failures, last = self.state.models[key].failures, self._errors.get(key)
        if not failures:
            return ""
        times = f" ({failures} times in a row)" if failures > 1 else ""
        return f"{last.message if last else 'its worker failed'}{times}"

    def reason(self, key: str) -> str:
        """Of the last decision about a model."""
        return next((one.reason for one in reversed(self.decisions) if one.model == key), "")

    def _died(self, key: str, error: HeadraceError) -> None:
        """A group lost its last worker. One that is on the move tells by its own failure, or has
        just ended it, and its move is not told yet."""
        if key in self._moving:
            self._lost[key] = error
        elif key in self.groups:
            self._failed(MoveFailed(_now(), key, error.code, error.message))

    # Operation ----------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until a condition on the state holds."""
        if condition():
            return
        changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        watcher = (condition, changed)
        self._watchers.append(watcher)
        try:
            async with asyncio.timeout(ORDER_SECONDS):
                await changed
        finally:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

    # The loop -----------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Change the state by an event, and start what follows from it."""
        self.state, effects = decide(self.state, event)
        for effect in () if self._stopped else effects:
            self._perform(effect)
        for key in [key for key in self._retired if key not in self.state.models]:
            self._retired.remove(key)
            del self.groups[key]
        if not isinstance(event, Arrived | Ended):
            for condition, changed in self._watchers[:]:
                if condition() and not changed.done():
                    changed.set_result(None)
                    self._watchers.remove((condition, changed))

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Admit(request, _, seat):
                door = self._doors.get(request)
                if door is not None and not door.done():
                    door.set_result(seat)
            case Refuse(request, _, code, reason):
                self._note("refuse", effect)
                self.refusals[effect.model] += 1
                door = self._doors.get(request)
                if door is not None and not door.done():
                    door.set_exception(by_code(code, reason))
                    door.exception()  # its caller may be gone already
            case Load(model):
                self._note("load", effect)
                self._move(model, self._bring(effect))
            case Park(model):
                self._note("park", effect)
                self._move(model, self._park(model))
            case Exit(model):
                self._note("exit", effect)
                self._move(model, self._exit(model))
            case Wake(at):
                if self._wake is not None:
                    self._wake.cancel()
                loop = asyncio.get_running_loop()
                self._wake = loop.call_later(max(0.0, at - _now()), self._tick)

    def _tick(self) -> None:
        self.tell(Tick(_now()))

    def _note(self, what: str, effect: Load | Park | Exit | Refuse) -> None:
        self.decisions.append(
            Decision(time.time(), effect.model, what, effect.reason, effect.numbers)
        )
        log.info("%s %s: %s", what, effect.model, effect.reason)

    def _move(self, key: str, work: Coroutine[Any, Any, Event]) -> None:
        async def run() -> None:
            self._lost.pop(key, None)  # gone before: a load begins from nothing then
            try:
                event = await work
            except HeadraceError as error:
                event = MoveFailed(_now(), key, error.code, error.message)
            except OSError as error:  # no process or no memory for one
                event = MoveFailed(_now(), key, ModelFailed.code, f"no worker started: {error}")
            del self._moving[key]
            lost = self._lost.pop(key, None)
            if lost is not None and isinstance(event, Moved) and event.place is not Place.GONE:
                event = MoveFailed(_now(), key, lost.code, lost.message)
            if isinstance(event, MoveFailed):
                self._failed(event)
            else:
                self.tell(event)

        def ended(task: asyncio.Task[None]) -> None:
            """A bug of ours in a move is a failed move: nobody may wait for its end for ever."""
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("the move of model %s broke", key, exc_info=error)
                self._moving.pop(key, None)
                what = f"its move broke: {type(error).__name__}: {error}"
                self._failed(MoveFailed(_now(), key, ModelFailed.code, what))

        self._moving[key] = task = asyncio.create_task(run(), name=f"move {key}")
        task.add_done_callback(ended)

    def _failed(self, event: MoveFailed) -> None:
        log.warning("model %s: %s", event.model, event.message)
        self._errors[event.model] = event
        self.tell(event)

    async def _bring(self, effect: Load) -> Event:
        key, seat = effect.model, effect.seat
        group, before = self.groups[key], self.state.models[key]
        parked = bool(group.pids())
        began = _now()
        try:
            await group.bring(seat)
        except HeadraceError as error:
            taken = self._stopped_at.pop(key, None)
            if taken is None:
                raise
            limit, other = self.state.limits.get("host", taken), self.state.other.get("host", 0)
            room = limit - other - GUARD_BYTES
            profile = outgrown(before.profile, seat, taken, room)
            return MoveFailed(_now(), key, error.code, error.message, profile)
        memory = group.memory()
        profile = measured(before.profile, group.spec, seat, memory, _now() - began, parked=parked)
        await asyncio.to_thread(self._profiles.put, group.spec, profile)
        return Moved(_now(), key, Place.SERVING, profile.serving[seat], profile)

    async def _park(self, key: str) -> Event:
        group, began = self.groups[key], _now()
        await group.park()
        seconds = _now() - began
        memory = group.memory()
        profile = msgspec.structs.replace(
            self.state.models[key].profile, parked=memory.held, park=seconds
        )
        await asyncio.to_thread(self._profiles.put, group.spec, profile)
        return Moved(_now(), key, Place.PARKED, memory.held, profile)

    async def _exit(self, key: str) -> Event:
        began = _now()
        await self.groups[key].leave()
        old = self.state.models[key].profile
        profile = msgspec.structs.replace(old, exit=_now() - began)
        return Moved(_now(), key, Place.GONE, {}, profile)

    # Memory -------------------------------------------------------------------------------------

    async def _measure(self) -> None:
        """Keep the ledger in step with the machine. While a model is being loaded for the first
        time, its size is a guess: one that passes a limit is stopped."""
        while True:
            found = await asyncio.to_thread(census.take, self._pids(), self.gpus)
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.flush)
            self.measured = found.total
            if not self._moving:
                self._tell_measured(found)
            limited = "host" in self.state.limits
            loading = [key for key in self._moving if self._is_loading(key)]
            for key in loading if limited else ():
                self._watch(key, found)
            await asyncio.sleep(LOADING_SECONDS if limited and loading else MEASURE_SECONDS)

    def _tell_measured(self, found: Census) -> None:
        held = {key: sizes for key, sizes in found.held.items() if key in self.groups}
        own = max(found.other.get("host", 0), OWN_BYTES)
        self.tell(Measured(_now(), held, found.other | {"host": own}))

    def _is_loading(self, key: str) -> bool:
        model = self.state.models.get(key)
        return model is not None and model.place is Place.LOADING

    def _watch(self, key: str, found: Census) -> None:
        """Stop a load that takes more than was reserved for it, before it passes the limit."""
        limit, total = self.state.limits["host"], found.total["host"]
        taken = found.held.get(key, {}).get("host", 0)
        reserved = self.state.held.get(key, {}).get("host", 0)
        if total <= limit and (taken <= reserved or total <= limit - GUARD_BYTES):
            return
        self._stopped_at[key] = taken
        self.groups[key].kill(
            f"the load of model {key!r} was stopped at {taken // MIB} MiB, {reserved // MIB} of "
            f"them reserved: Headrace held {total // MIB} MiB, and devices.host.limit is "
            f"{limit // MIB} MiB"
        )

    def _pids(self) -> Mapping[str, tuple[int, ...]]:
        return {key: group.pids() for key, group in self.groups.items()}


def _over() -> ShuttingDown:
    return ShuttingDown("the models are being shut down")


def _now() -> float:
    return time.monotonic()
