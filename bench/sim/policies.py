"""The policies that are compared: Headrace's own arbiter, and four rules that others use.

The four follow descriptions of widely used servers, and get what those servers have:

* All know the true sizes, and never load what the memory does not hold: none is made to fail.
* All let requests to a model that is loaded through at once, also while another one waits for room
  (older versions blocked them). All take idle victims only, and load one model at a time.
* `lru`, `count` and `keep-alive` know one depth, as those servers do: a model that leaves is ended,
  and read again from the page cache. `kick` parks (`idle_on_cpu`), and moves a flex encoder to the
  GPU from a fixed batch size on (`cuda_thres`), serving it on the processor below.
* None knows of cycles.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from headrace.serving.arbiter import decide
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
    Profile,
    Setting,
    Sizes,
    State,
    Wake,
)
from headrace.serving.ledger import larger


class Headrace:
    name = "headrace"

    def __init__(self) -> None:
        self.state = State()

    def tell(self, event: Event) -> Sequence[Effect]:
        self.state, effects = decide(self.state, event)
        return effects


@dataclass
class Resident:
    setting: Setting
    profile: Profile
    place: Place = Place.GONE
    seat: str = ""
    held: Sizes = field(default_factory=dict)
    active: int = 0
    waiting: list[int] = field(default_factory=list)
    texts: int = 0  # of those who wait
    used: float = 0.0


class Queued:
    """What the four have in common: models that are wanted wait in one queue, first come first
    served; the head is loaded as soon as there is room."""

    name = ""

    def __init__(self) -> None:
        self.models: dict[str, Resident] = {}
        self.limits: Sizes = {}
        self.other: Sizes = {}
        self.queue: list[str] = []
        self.at = 0.0
        self._effects: list[Effect] = []

    def tell(self, event: Event) -> Sequence[Effect]:
        self._effects = []
        self.at = event.at
        match event:
            case Configured():
                self.limits = event.limits
                for name, setting in event.settings.items():
                    self.models[name] = Resident(setting, event.profiles[name])
            case Measured():
                self.other = event.other
            case Arrived():
                self._arrived(event)
            case Ended():
                model = self.models[event.model]
                model.active -= 1
                model.used = event.at
            case Moved():
                model = self.models[event.model]
                model.place, model.held = event.place, event.held
                if event.place is Place.SERVING:
                    model.used = event.at
                    self._admit(event.model)
            case _:
                pass
        self._work()
        return self._effects

    def _arrived(self, event: Arrived) -> None:
        model = self.models[event.model]
        model.waiting.append(event.request)
        model.texts += event.size
        if model.place is Place.SERVING and self.stays(model):
            self._admit(event.model)
        elif event.model not in self.queue:
            self.queue.append(event.model)

    def _admit(self, name: str) -> None:
        model = self.models[name]
        for request in model.waiting:
            self._effects.append(Admit(request, name, model.seat))
        model.active += len(model.waiting)
        model.waiting, model.texts = [], 0

    def _work(self) -> None:
        while self.queue and not self.moving():
            name = self.queue[0]
            model = self.models[name]
            if model.waiting and not (model.place is Place.SERVING and model.active):
                seat = self.seat(model)
                if not self.make_room(name, seat):
                    return
                model.place, model.seat = Place.LOADING, seat
                model.held = larger(model.held, model.profile.peak[seat])
                self._effects.append(Load(name, seat, model.held, self.name))
            elif model.waiting:
                return  # it must fall idle before it changes its seat
            self.queue.pop(0)

    # What policies decide -----------------------------------------------------------------------

    def seat(self, model: Resident) -> str:
        return next(seat for seat in model.profile.serving if seat != "cpu" or _only(model))

    def stays(self, model: Resident) -> bool:
        """May a request be served where the model is now?"""
        return True

    def make_room(self, name: str, seat: str) -> bool:
        """Is there room? If not, begin to make it."""
        raise NotImplementedError

    # Tools --------------------------------------------------------------------------------------

    def moving(self) -> bool:
        return any(
            model.place in (Place.LOADING, Place.PARKING, Place.EXITING)
            for model in self.models.values()
        )

    def free(self) -> Sizes:
        return {
            device: limit
            - self.other.get(device, 0)
            - sum(model.held.get(device, 0) for model in self.models.values())
            for device, limit in self.limits.items()
        }

    def fits(self, name: str, seat: str, share: float = 1.0) -> bool:
        """Is what the model needs more at most `share` of what is free, on every device?"""
        model = self.models[name]
        free = self.free()
        peak = larger(model.held, model.profile.peak[seat])
        return all(
            peak.get(device, 0) - model.held.get(device, 0) <= max(0.0, share * left)
            for device, left in free.items()
        )

    def idle(self, besides: str) -> list[str]:
        return [
            name
            for name, model in self.models.items()
            if name != besides and model.place is Place.SERVING and not model.active
        ]

    def exit(self, name: str) -> None:
        self.models[name].place = Place.EXITING
        self._effects.append(Exit(name, self.name))

    def park(self, name: str) -> None:
        model = self.models[name]
        model.place = Place.PARKING
        model.held = larger(model.held, model.profile.parked)
        self._effects.append(Park(name, self.name))

    def wake(self, at: float) -> None:
        self._effects.append(Wake(at))


def _only(model: Resident) -> bool:
    return set(model.profile.serving) == {"cpu"}


class Lru(Queued):
    """Load on demand; while it does not fit, end the least recently used idle model."""

    name = "lru"

    def make_room(self, name: str, seat: str) -> bool:
        if self.fits(name, seat):
            return True
        idle = self.idle(name)
        if idle:
            self.exit(min(idle, key=lambda other: (self.models[other].used, other)))
        return False


class CountLru(Lru):
    """At most so many models, the largest number for which any of them fit together (a user who
    sets more runs out of memory); beyond, the least recently used idle one is ended."""

    name = "count"

    def make_room(self, name: str, seat: str) -> bool:
        loaded = [each for each in self.models.values() if each.place is Place.SERVING]
        idle = self.idle(name)
        if len(loaded) >= self._most() and idle:
            self.exit(min(idle, key=lambda other: (self.models[other].used, other)))
            return False
        return super().make_room(name, seat) if len(loaded) < self._most() else False

    def _most(self) -> int:
        for count in range(len(self.models), 1, -1):
            sets = itertools.combinations(self.models.values(), count)
            if all(self._together(each) for each in sets):
                return count
        return 1

    def _together(self, models: Iterable[Resident]) -> bool:
        total = dict(self.other)
        for model in models:
            for device, size in model.profile.serving[self.seat(model)].items():
                total[device] = total.get(device, 0) + size
        return all(total.get(device, 0) <= limit for device, limit in self.limits.items())


class KeepAlive(Queued):
    """A model is loaded if it needs at most 80 % of what is free, or if it would be alone.
    Otherwise the one with the shortest keep-alive is ended; all have the same, so it is the first
    by name: an idle one, or else the first of all, when it falls idle. The next look follows when
    three quarters of its memory are seen to be back, by a poll each 0.25 s. Models that were idle
    for their keep-alive, five minutes, leave."""

    name = "keep-alive"
    KEEP = 300.0
    POLL = 0.25

    def __init__(self) -> None:
        super().__init__()
        self._looks_at = 0.0
        self._expiring = ""

    def tell(self, event: Event) -> Sequence[Effect]:
        if isinstance(event, Moved) and event.place is Place.GONE:
            self._looks_at = event.at + self.POLL / 2  # on average
        if self._expiring:
            model = self.models[self._expiring]
            if model.place is not Place.SERVING:
                self._expiring = ""
        effects = super().tell(event)
        for name, model in self.models.items():
            idle = model.place is Place.SERVING and not model.active and not model.waiting
            if idle and self.at - model.used > self.KEEP and not self.moving():
                self.exit(name)
        return [*effects, *(each for each in self._effects if each not in effects)]

    def make_room(self, name: str, seat: str) -> bool:
        if self.at < self._looks_at:
            self.wake(self._looks_at)
            return False
        others = [
            other
            for other, model in self.models.items()
            if other != name and model.place is Place.SERVING
        ]
        if self.fits(name, seat, 1.0 if not others else 0.8):
            return True
        idle = [self._expiring] if self._expiring else self.idle(name)
        if idle and not self.models[idle[0]].active:
            self.exit(min(idle))
        elif others and not self._expiring:
            self._expiring = min(others)
        return False


class Kick(Queued):
    """Keep 15 % of the needed room free; kick the idle models that fit the missing size best: the
    smallest one that is large enough, or the pair whose sum is nearest above it, found by two
    pointers over the sorted sizes, or else the largest ones. Kicked models are parked."""

    name = "kick"
    HEADROOM = 1.15
    FROM_BATCH = 32

    def seat(self, model: Resident) -> str:
        if model.setting.device == "flex" and model.texts < self.FROM_BATCH:
            return "cpu"
        return super().seat(model)

    def stays(self, model: Resident) -> bool:
        return model.seat != "cpu" or self.seat(model) == "cpu"

    def make_room(self, name: str, seat: str) -> bool:
        if self.fits(name, seat, 1 / self.HEADROOM):
            return True
        model = self.models[name]
        free = self.free()
        device = seat if seat in free else "host"
        peak = model.profile.peak[seat].get(device, 0) - model.held.get(device, 0)
        lack = peak * self.HEADROOM - free[device]
        idle = sorted(self.idle(name), key=lambda other: (self._frees(other, device), other))
        idle = [other for other in idle if self._frees(other, device) > 0]
        chosen = self._best(idle, device, lack)
        if not chosen:
            return self.fits(name, seat)  # without the headroom, rather than never
        for other in chosen:
            self.park(other)
        return False

    def _best(self, idle: list[str], device: str, lack: float) -> list[str]:
        sizes = [self._frees(other, device) for other in idle]
        for place, size in enumerate(sizes):
            if size >= lack:
                return [idle[place]]
        low, high, best, nearest = 0, len(idle) - 1, (-1, -1), float("inf")
        while low < high:
            both = sizes[low] + sizes[high]
            if both >= lack:
                if both < nearest:
                    best, nearest = (low, high), both
                high -= 1
            else:
                low += 1
        if best != (-1, -1):
            return [idle[best[0]], idle[best[1]]]
        return idle

    def _frees(self, name: str, device: str) -> int:
        model = self.models[name]
        return model.held.get(device, 0) - model.profile.parked.get(device, 0)


OTHERS: tuple[type[Queued], ...] = (Lru, CountLru, KeepAlive, Kick)
