"""The least stall that anybody could reach on a short trace who knows all of it beforehand.

A* over everything that can be done at each moment when something happens: load a model (one at a
time, where it fits), park or exit an idle one, close the door of a busy one, or wait for the next
thing to happen. Nothing is gained by acting between two happenings, since the same act at the
earlier one leaves more time. The knowledge is of the future; the powers are a server's: without
`prophetic`, a model may be loaded only when somebody waits for it or a running cycle has announced
it. With `prophetic` also before anybody has asked, which no server can do.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

from bench.sim.traces import Trace
from headrace.serving.arbiter_types import Place, Profile, Sizes
from headrace.serving.ledger import larger

MOST_STATES = 60_000
"""Beyond, the search gives up."""

FUTURE, WAITING, ACTIVE, DONE = range(4)
JobState: TypeAlias = tuple[int, float]  # and when it arrives or ends


@dataclass(frozen=True)
class Node:
    """A moment. `models` are place, seat, door closed, and until when it moves; `acts` keeps the
    acts of one moment in one order, so that no set of acts is looked at in two."""

    at: float
    models: tuple[tuple[Place, str, bool, float], ...]
    jobs: tuple[JobState, ...]
    acts: tuple[int, int] = (-1, -1)


class Optimum:
    def __init__(self, trace: Trace, *, prophetic: bool = False) -> None:
        self.trace = trace
        used = {job.model for job in trace.jobs}
        self.names = [name for name in trace.machine.models if name in used]
        self.prophetic = prophetic
        self.profiles: list[Profile] = [trace.machine.models[n].profile for n in self.names]
        self._index = {name: place for place, name in enumerate(self.names)}
        self._of = [self._index[job.model] for job in trace.jobs]
        self._followers: dict[int, list[int]] = {}
        for number, job in enumerate(trace.jobs):
            if job.after is not None:
                self._followers.setdefault(job.after, []).append(number)
        self._exits = not self._parking_suffices()

    def _parking_suffices(self) -> bool:
        """Does everything that fits with the others gone also fit with the others parked? Then
        nobody need ever exit, since a park is sooner done and sooner undone."""
        seats = [sorted(profile.serving) for profile in self.profiles]
        for places in itertools.product(*[("", *each) for each in seats]):
            for moving in (m for m, seat in enumerate(places) if seat):
                held = [
                    profile.peak[seat] if m == moving else profile.serving[seat]
                    for m, (profile, seat) in enumerate(zip(self.profiles, places, strict=True))
                    if seat
                ]
                parked = [
                    profile.parked
                    for profile, seat in zip(self.profiles, places, strict=True)
                    if not seat
                ]
                if self._within(held) and not self._within([*held, *parked]):
                    return False
        return all(profile.park <= profile.exit for profile in self.profiles)

    def _within(self, held: list[Sizes]) -> bool:
        total = dict(self.trace.machine.other)
        for sizes in held:
            for device, size in sizes.items():
                total[device] = total.get(device, 0) + size
        limits = self.trace.machine.limits
        return all(total.get(device, 0) <= limit for device, limit in limits.items())

    def stall(self, bound: float) -> float | None:
        """Seconds; `bound` is what somebody has reached. None if the search had to give up."""
        start = Node(
            0.0,
            tuple((Place.GONE, "", False, 0.0) for _ in self.names),
            tuple((FUTURE, job.at if job.after is None else math.inf) for job in self.trace.jobs),
        )
        order = itertools.count()
        queue: list[tuple[float, int, float, Node]] = [(0.0, next(order), 0.0, start)]
        seen: dict[Node, float] = {}
        while queue:
            least, _, spent, node = heapq.heappop(queue)
            if least >= bound - 1e-9:
                return bound
            if all(status == DONE for status, _ in node.jobs):
                return spent
            if len(seen) > MOST_STATES:
                return None
            for after, cost in self._next(node):
                total = spent + cost
                if seen.get(after, math.inf) <= total + 1e-12:
                    continue
                seen[after] = total
                bottom = total + self._least(after)
                if bottom < bound - 1e-9:
                    heapq.heappush(queue, (bottom, -next(order), total, after))
        return bound

    def _next(self, node: Node) -> Iterator[tuple[Node, float]]:
        yield from self._wait(node)
        wanted = self._wanted(node)
        tight = {
            m
            for m in wanted
            if node.models[m][0] in (Place.GONE, Place.PARKED)
            and not all(self._fits(node, m, seat) for seat in self.profiles[m].serving)
        }
        for model, (place, _, closed, _) in enumerate(node.models):
            if place in (Place.GONE, Place.PARKED) and model in wanted:
                for number, seat in enumerate(sorted(self.profiles[model].serving)):
                    if (model, number) > node.acts and self._may_load(node, model, seat):
                        yield self._load(node, model, number, seat)
            if tight <= {model} or (model, 10) <= node.acts:
                continue
            busy = any(s == ACTIVE and self._of[j] == model for j, (s, _) in enumerate(node.jobs))
            profile = self.profiles[model]
            if place is Place.SERVING and busy and not closed:
                yield self._change(
                    node, model, (model, 10), (place, node.models[model][1], True, 0)
                )
            elif place is Place.SERVING and not busy:
                until = node.at + profile.park
                yield self._change(node, model, (model, 10), (Place.PARKING, "", False, until))
            if self._exits and place in (Place.SERVING, Place.PARKED) and not busy:
                until = node.at + profile.exit
                yield self._change(node, model, (model, 11), (Place.EXITING, "", False, until))

    def _wait(self, node: Node) -> Iterator[tuple[Node, float]]:
        """Until the next thing happens, and what follows from it by itself."""
        times = [time for status, time in node.jobs if status in (FUTURE, ACTIVE)]
        times += [until for place, _, _, until in node.models if place not in _RESTING]
        at = min(times, default=math.inf)
        if at == math.inf:
            return
        waiting = sum(status == WAITING for status, _ in node.jobs)
        cost = waiting * (at - node.at)
        models, jobs = list(node.models), list(node.jobs)
        for m, (place, seat, _, until) in enumerate(models):
            if place not in _RESTING and until <= at:
                models[m] = (_AFTER[place], seat if place is Place.LOADING else "", False, 0.0)
        for j, (status, time) in enumerate(jobs):
            if status == ACTIVE and time <= at:
                jobs[j] = (DONE, 0.0)
                for follower in self._followers.get(j, ()):
                    jobs[follower] = (FUTURE, at + self.trace.jobs[follower].at)
        for j, (status, time) in enumerate(jobs):
            if status == FUTURE and time <= at:
                jobs[j] = (WAITING, 0.0)
        for j, (status, _) in enumerate(jobs):
            place, seat, closed, _ = models[self._of[j]]
            if status == WAITING and place is Place.SERVING and not closed:
                job = self.trace.jobs[j]
                took = job.work * self.trace.machine.models[job.model].slower[seat]
                jobs[j] = (ACTIVE, at + took)
                cost += took - job.work
        yield Node(at, tuple(models), tuple(jobs)), cost

    def _wanted(self, node: Node) -> set[int]:
        """Models that may be loaded: somebody waits for them, or a running cycle announced them."""
        wanted = set()
        for j, (status, _) in enumerate(node.jobs):
            if status == WAITING or (self.prophetic and status == FUTURE):
                wanted.add(self._of[j])
            if status in (WAITING, ACTIVE):
                then = self.trace.jobs[j].then
                wanted |= {self._index[name] for name in then if name in self._index}
        return wanted

    def _may_load(self, node: Node, model: int, seat: str) -> bool:
        if any(place is Place.LOADING for place, _, _, _ in node.models):
            return False
        return self._fits(node, model, seat)

    def _fits(self, node: Node, model: int, seat: str) -> bool:
        found = []
        for m, entry in enumerate(node.models):
            held = self._held(m, entry)
            found.append(larger(held, self.profiles[m].peak[seat]) if m == model else held)
        return self._within(found)

    def _held(self, model: int, entry: tuple[Place, str, bool, float]) -> Sizes:
        place, seat, _, _ = entry
        profile = self.profiles[model]
        if place is Place.LOADING:
            return larger(profile.peak[seat], profile.parked)
        if place is Place.SERVING:
            return profile.serving[seat]
        if place is Place.PARKED:
            return profile.parked
        if place is Place.GONE:
            return {}
        return larger(next(iter(profile.serving.values())), profile.parked)

    def _load(self, node: Node, model: int, number: int, seat: str) -> tuple[Node, float]:
        profile = self.profiles[model]
        fresh = node.models[model][0] is Place.GONE
        until = node.at + (profile.load if fresh else profile.resume)[seat]
        return self._change(node, model, (model, number), (Place.LOADING, seat, False, until))

    def _change(
        self,
        node: Node,
        model: int,
        act: tuple[int, int],
        entry: tuple[Place, str, bool, float],
    ) -> tuple[Node, float]:
        models = list(node.models)
        models[model] = entry
        return replace(node, models=tuple(models), acts=act), 0.0

    def _least(self, node: Node) -> float:
        """No more than what is still to come: those who wait now are served after loads that come
        one after the other, in the best order."""
        counts: dict[int, int] = {}
        for j, (status, _) in enumerate(node.jobs):
            if status == WAITING:
                counts[self._of[j]] = counts.get(self._of[j], 0) + 1
        busy = 0.0
        total = 0.0
        loads = []
        for m, (place, _, _, until) in enumerate(node.models):
            if place is Place.LOADING:
                busy = until - node.at
                total += counts.pop(m, 0) * busy
        for m, count in counts.items():
            place, _, closed, _ = node.models[m]
            if place is Place.SERVING and not closed:
                continue
            known = self.profiles[m]
            away = known.load if place in (Place.GONE, Place.EXITING) else known.resume
            loads.append((min(away.values()), count))
        for seconds, count in sorted(loads, key=lambda load: load[0] / load[1]):
            busy += seconds
            total += count * busy
        return total


_RESTING = (Place.GONE, Place.PARKED, Place.SERVING)
_AFTER = {
    Place.LOADING: Place.SERVING,
    Place.PARKING: Place.PARKED,
    Place.EXITING: Place.GONE,
}
