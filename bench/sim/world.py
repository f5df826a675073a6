"""The modelled device: performs what a policy decides, and keeps count of what it costs.

Everything a policy may do costs the same for all of them: a load from nothing, a resume from parked
weights, a park, an exit. While a model moves it holds the larger of what it held and its peak; the
memory of one that leaves is free when the move has ended. *Stall* of a request is the time from its
arrival to its end, less its work on its best seat: waiting at the door, and computing on a slower
seat. Requests of one model run side by side without slowing each other.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from bench.sim.machine import Machine
from bench.sim.traces import Trace
from headrace.serving.arbiter_types import (
    Admit,
    Arrived,
    Configured,
    Effect,
    Ended,
    Event,
    Exit,
    Load,
    Measured,
    Moved,
    Park,
    Place,
    Refuse,
    Sizes,
    Tick,
    Wake,
)
from headrace.serving.ledger import larger
from headrace.types import Lane

HORIZON = 50_000.0
"""Seconds after which a simulation that has not ended is a deadlock."""


class Policy(Protocol):
    """Anything that decides. Request numbers are job numbers plus one."""

    name: str

    def tell(self, event: Event) -> Sequence[Effect]: ...


@dataclass
class Outcome:
    """What a replay cost. Seconds; `over` is the most bytes beyond any limit at any time."""

    stall: float = 0.0
    swaps: int = 0
    refused: int = 0
    over: int = 0
    waits: dict[Lane, list[float]] = field(default_factory=lambda: {lane: [] for lane in Lane})
    ended: float = 0.0
    by_model: dict[str, float] = field(default_factory=dict)
    log: list[tuple[float, str]] = field(default_factory=list)


Happening: TypeAlias = Event | tuple[str, int]


class World:
    def __init__(self, trace: Trace, policy: Policy, *, log: bool = False) -> None:
        self.trace = trace
        self.machine: Machine = trace.machine
        self.policy = policy
        self.outcome = Outcome()
        self._log = log
        self._queue: list[tuple[float, int, object]] = []
        self._order = itertools.count()
        self._held: dict[str, Sizes] = {}
        self._places: dict[str, Place] = dict.fromkeys(self.machine.models, Place.GONE)
        self._arrived: dict[int, float] = {}
        self._followers: dict[int, list[int]] = {}
        self._wake = 0
        self._open = len(trace.jobs)

    def run(self) -> Outcome:
        """Replay the trace to its end. Raises `RuntimeError` if the policy lets a request wait for
        ever, or does what cannot be done."""
        machine = self.machine
        settings = {name: model.setting for name, model in machine.models.items()}
        profiles = {name: model.profile for name, model in machine.models.items()}
        self._tell(Measured(0.0, {}, machine.other))
        self._tell(Configured(0.0, machine.limits, settings, profiles))
        for number, job in enumerate(self.trace.jobs):
            if job.after is None:
                self._at(job.at, number)
            else:
                self._followers.setdefault(job.after, []).append(number)
        while self._queue and self._open:
            at, _, what = heapq.heappop(self._queue)
            if at > HORIZON:
                break
            self.outcome.ended = at
            self._happen(at, what)
        if self._open:
            raise RuntimeError(f"{self.policy.name}: {self._open} requests never ended")
        return self.outcome

    def _at(self, at: float, what: object) -> None:
        heapq.heappush(self._queue, (at, next(self._order), what))

    def _happen(self, at: float, what: object) -> None:
        match what:
            case int():
                job = self.trace.jobs[what]
                self._arrived[what] = at
                self._tell(
                    Arrived(at, what + 1, job.model, job.lane, job.size, job.cycle, job.then)
                )
            case Ended():
                self._finish(what)
            case Moved():
                self._places[what.model] = what.place
                self._hold(what.model, what.held)
                self._tell(what)
            case ("wake", number) if number == self._wake:
                self._tell(Tick(at))

    def _tell(self, event: Event) -> None:
        for effect in self.policy.tell(event):
            self._perform(event.at, effect)

    def _perform(self, at: float, effect: Effect) -> None:
        if self._log and not isinstance(effect, Wake):
            self.outcome.log.append((at, repr(effect)))
        match effect:
            case Admit(request, model, seat):
                job = self.trace.jobs[request - 1]
                if self._places[model] is not Place.SERVING:
                    raise RuntimeError(f"{self.policy.name}: admitted to {model}, which is away")
                took = job.work * self.machine.models[model].slower[seat]
                waited = at - self._arrived[request - 1]
                stall = waited + took - job.work
                self.outcome.stall += stall
                self.outcome.by_model[model] = self.outcome.by_model.get(model, 0.0) + stall
                self.outcome.waits[job.lane].append(waited)
                self._at(at + took, Ended(at + took, request, model))
            case Refuse(request, model):
                self.outcome.refused += 1
                self._finish(Ended(at, request, model))
            case Load(model, seat):
                self.outcome.swaps += 1
                profile = self.machine.models[model].profile
                fresh = self._places[model] is Place.GONE
                took = (profile.load if fresh else profile.resume)[seat]
                self._places[model] = Place.LOADING
                self._hold(model, larger(self._held.get(model, {}), profile.peak[seat]))
                self._move(at + took, model, Place.SERVING, profile.serving[seat])
            case Park(model):
                profile = self.machine.models[model].profile
                self._places[model] = Place.PARKING
                self._hold(model, larger(self._held.get(model, {}), profile.parked))
                self._move(at + profile.park, model, Place.PARKED, profile.parked)
            case Exit(model):
                took = self.machine.models[model].profile.exit
                self._places[model] = Place.EXITING
                self._move(at + took, model, Place.GONE, {})
            case Wake(later):
                self._wake += 1
                self._at(max(at, later), ("wake", self._wake))

    def _move(self, at: float, model: str, place: Place, held: Sizes) -> None:
        self._at(at, Moved(at, model, place, held))

    def _finish(self, event: Ended) -> None:
        number = event.request - 1
        self._open -= 1
        for follower in self._followers.get(number, ()):
            self._at(event.at + self.trace.jobs[follower].at, follower)
        self._tell(event)

    def _hold(self, model: str, sizes: Sizes) -> None:
        self._held[model] = sizes
        for device, limit in self.machine.limits.items():
            total = self.machine.other.get(device, 0)
            total += sum(held.get(device, 0) for held in self._held.values())
            self.outcome.over = max(self.outcome.over, total - limit)
