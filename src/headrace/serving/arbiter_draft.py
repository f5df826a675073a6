"""The working copy of the arbiter's state while one event is dealt with, and questions to it."""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import msgspec

from headrace.serving.arbiter_types import (
    Admit,
    Effect,
    Exit,
    Load,
    ModelState,
    Park,
    Place,
    Refuse,
    Sizes,
    State,
    Waiting,
    Wake,
)
from headrace.serving.eviction import Way, ways
from headrace.serving.ledger import Ledger, growth, larger

RESTING = (Place.GONE, Place.PARKED, Place.SERVING)
ON_THE_WAY_OUT = (Place.PARKING, Place.EXITING)

FIRST_BATCH_FOR_GPU = 32
"""`min_batch_for_gpu` until the throughput on both seats has been seen."""

OPEN_CIRCUIT = 5
"""Failures in a row from which requests are refused until the next trial."""


class Draft:
    """Mutable, for one `decide` only. `at` is the time of the event."""

    def __init__(self, state: State, at: float) -> None:
        self.at = at
        self.models = dict(state.models)
        self.ledger = Ledger(state.limits, state.other, state.held)
        self.fixed = state.fixed
        self.coming = dict(state.coming)
        self.before = state.turn
        self.turn: list[str] = []
        """For whom room is being made, before this event and after it."""
        self.effects: list[Effect] = []
        self.wakes: list[float] = []
        self.doors: dict[str, str] = {}
        """Doors that are closed from now on, and why."""
        self.spoken: Sizes = {}
        """Free room that is promised to needs which cannot start yet."""
        self.waits = False
        """Something waits for room or for time."""

    def state(self) -> State:
        """The new state; a wake is asked for if time alone can change it."""
        later = [at for at in self.wakes if at > self.at]
        if later:
            self.effects.append(Wake(min(later)))
        return State(
            limits=self.ledger.limits,
            models=self.models,
            held=self.ledger.held,
            other=self.ledger.other,
            fixed=self.fixed,
            coming=self.coming,
            turn=tuple(self.turn),
            unsettled=self.waits,
        )

    def change(self, name: str, **fields: Any) -> ModelState:
        model: ModelState = msgspec.structs.replace(self.models[name], **fields)
        self.models[name] = model
        return model

    # What is announced --------------------------------------------------------------------------

    @cached_property
    def announced(self) -> dict[str, float]:
        """How much running cycles want each model next: 1 for the next step of a cycle, half for
        the one after, and so on."""
        found: dict[str, float] = {}
        for _, names in self.coming.values():
            for place, name in enumerate(names):
                found[name] = found.get(name, 0.0) + 1 / (1 + place)
        return found

    @cached_property
    def expected(self) -> set[str]:
        """Models that will be asked for without anybody waiting first: those that are next for a
        cycle which is at work now."""
        stuck = {one.cycle for model in self.models.values() for one in model.waiting}
        return {
            name
            for cycle, (_, names) in self.coming.items()
            if cycle not in stuck
            for name in names
        }

    # Seats --------------------------------------------------------------------------------------

    def reserve(self, name: str, seat: str) -> Sizes:
        """What is booked while a model comes to a seat from where it is."""
        model = self.models[name]
        most = larger(model.profile.peak.get(seat, {}), model.profile.serving.get(seat, {}))
        return larger(self.ledger.of(name), larger(most, model.grown.get(seat, {})))

    def never_fits(self, name: str, seat: str) -> str:
        """The arithmetic if a model can never come to a seat, whoever leaves; empty if it can."""
        model = self.models[name]
        needed = larger(model.profile.peak.get(seat, {}), model.profile.serving.get(seat, {}))
        for device, size in sorted(larger(needed, model.grown.get(seat, {})).items()):
            limit = self.ledger.limits.get(device)
            if limit is None:
                continue
            pinned = sum(
                self.ledger.of(other).get(device, 0)
                for other, each in self.models.items()
                if other != name and stays(each)
            )
            fixed = self.fixed.get(device, 0)
            if size > limit - fixed - pinned:
                holders = [
                    f"{mib(part)} MiB held by {who}"
                    for part, who in (
                        (fixed, "the server itself" if device == "host" else "others"),
                        (pinned, "pinned models"),
                    )
                    if part
                ]
                minus = " minus " + " and ".join(holders) if holders else ""
                return (
                    f"model {name!r} needs {mib(size)} MiB to load; devices.{device}.limit is "
                    f"{mib(limit)} MiB{minus}"
                )
        return ""

    # Victims ------------------------------------------------------------------------------------

    def ways_out(self, name: str, *, closed_for: str = "") -> list[Way]:
        """How a model may be put out; a door that was closed for the same end counts as idle."""
        model = self.models[name]
        if model.place not in (Place.SERVING, Place.PARKED) or stays(model):
            return []
        mine = bool(closed_for) and model.closed == closed_for
        return ways(
            name,
            model,
            self.ledger.of(name),
            at=self.at,
            coming=self.announced.get(name, 0.0),
            busy=bool(model.active) and not mine,
            soon=name in self.announced and not mine,
        )

    def coming_back(self) -> Sizes:
        """Room that evictions on the way will free."""
        total: Sizes = {}
        for name, model in self.models.items():
            if model.place in ON_THE_WAY_OUT:
                after = model.profile.parked if model.place is Place.PARKING else {}
                for device, size in growth(after, self.ledger.of(name)).items():
                    total[device] = total.get(device, 0) + max(0, size)
        return total

    def loading(self) -> str:
        """The model that is being loaded now; there is never a second."""
        return next((n for n, m in self.models.items() if m.place is Place.LOADING), "")

    def at_rest(self) -> bool:
        """Nothing is on the way, and no door is closed: what is lacking now will be later."""
        return not self.doors and all(m.place in RESTING for m in self.models.values())

    # Effects ------------------------------------------------------------------------------------

    def admit(self, name: str) -> None:
        """Let in all who wait."""
        model = self.models[name]
        active = dict(model.active)
        for one in model.waiting:
            active[one.request] = msgspec.structs.replace(one, began=self.at)
            self.effects.append(Admit(one.request, name, model.seat))
        busy_since = model.busy_since if model.active else self.at
        self.change(name, active=active, waiting=(), busy_since=busy_since)

    def refuse(self, name: str, code: str, reason: str, **numbers: float) -> None:
        """Send away all who wait, and who ordered it."""
        model = self.models[name]
        for one in model.waiting:
            self.effects.append(Refuse(one.request, name, code, reason, numbers))
        self.change(name, waiting=())

    def load(self, name: str, seat: str, reason: str, **numbers: float) -> None:
        reserve = self.reserve(name, seat)
        self.ledger.book(name, reserve)
        self.change(name, place=Place.LOADING, seat=seat, since=self.at, closed="")
        self.effects.append(Load(name, seat, reserve, reason, numbers))

    def lack_to_park(self, name: str) -> Sizes:
        """What is missing of each device for the weights to stay in the host's memory."""
        return self.ledger.lack(growth(self.ledger.of(name), self.models[name].profile.parked))

    def put_out(self, name: str, place: Place, reason: str, **numbers: float) -> bool:
        """Park or exit; False if parking must wait for room in the host's memory."""
        if place is Place.PARKED:
            if self.lack_to_park(name):
                return False
            held = self.ledger.of(name)
            self.ledger.book(name, larger(held, self.models[name].profile.parked))
            self.effects.append(Park(name, reason, numbers))
            self.change(name, place=Place.PARKING, since=self.at)
        else:
            self.effects.append(Exit(name, reason, numbers))
            self.change(name, place=Place.EXITING, since=self.at)
        return True


def mib(size: float) -> int:
    return math.ceil(size / (1 << 20))


def stays(model: ModelState) -> bool:
    """Nobody but an operator takes a pinned model's room once it serves."""
    kept = model.setting.pin or model.setting.give_back == "never"
    return kept and model.place is Place.SERVING and not model.removed


def seats(model: ModelState) -> list[str]:
    """Where the configuration lets it run; GPUs first."""
    if model.setting.device != "flex":
        return [model.setting.device]
    return sorted(model.profile.serving, key=lambda seat: (seat == "cpu", seat))


def texts(requests: tuple[Waiting, ...]) -> int:
    return sum(one.size for one in requests)


def batch_for_gpu(model: ModelState, gpu: str) -> float:
    """The texts from which moving to `gpu` is sooner done than staying on the processor: the
    smallest n with move + n / gpu's throughput < n / processor's throughput."""
    given = model.setting.min_batch_for_gpu
    if given is not None:
        return given
    slow = model.profile.throughput.get("cpu")
    fast = model.profile.throughput.get(gpu)
    if not slow or not fast:
        return FIRST_BATCH_FOR_GPU
    if fast <= slow:
        return math.inf
    move = model.profile.resume.get(gpu, model.profile.load.get(gpu, 1.0))
    return max(1.0, math.floor(move / (1 / slow - 1 / fast)) + 1)
