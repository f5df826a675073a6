"""Who needs room, in which order and where: step 8 of the arbiter."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from headrace.errors import ConfigError
from headrace.serving.arbiter_draft import Draft, batch_for_gpu, mib, seats, stays, texts
from headrace.serving.arbiter_types import NOBODY, ModelState, Place, Refuse, Sizes, Waiting
from headrace.serving.eviction import (
    BULK_WEIGHT,
    Way,
    bring_seconds,
    cheapest,
    demand,
    price_of,
)
from headrace.types import Lane

PATIENCE = 15.0
"""A busy model's door closes at the latest when a person has waited this long for its room, ..."""

RESIDENCY = 2.0
"""... but not before it has served for this many times what the swap and the swap back take."""

BULK_PATIENCE = 10.0
"""Bulk work waits that long before people's models are drained for it."""

BULK_LAG = 30.0
"""Bulk work queues as if it had arrived so much later."""

NO_ROOM_SECONDS = 30.0
"""How long a request waits for room that no eviction can make."""


_LOADED_BY_ORDER = {
    (Place.SERVING, Place.GONE),
    (Place.SERVING, Place.PARKED),
    (Place.PARKED, Place.GONE),  # it is parked once it has been loaded
}


class Need(msgspec.Struct, frozen=True):
    """A model that somebody waits for and that cannot serve them where it is."""

    model: str
    first: float  # since when the longest waiting one waits
    request: int  # its number, or NOBODY for an order
    urgent: bool  # a person waits, or an operator
    rank: float  # its place in the queue: when it arrived, bulk work later
    seat: str = ""  # where it must go; empty: any


def needs(draft: Draft) -> list[Need]:
    """The most urgent first: operators, those for whom room is being made, then in the order of
    arrival, bulk work with its lag."""
    found = [need for name in draft.models for need in _need(draft, name)]
    found.sort(
        key=lambda need: (
            need.request != NOBODY,
            need.model not in draft.before,
            need.rank,
            need.request,
        )
    )
    return found


def _need(draft: Draft, name: str) -> Iterator[Need]:
    model = draft.models[name]
    if model.removed or draft.at < model.retry_at:
        return
    ordered = (model.order, model.place)
    if ordered in _LOADED_BY_ORDER:
        yield Need(name, draft.at, NOBODY, True, draft.at)
        return
    if not model.waiting:
        return
    seat = ""
    if model.place is Place.SERVING:
        seat = rises_to(draft, name)
        if not seat:
            return
    yield Need(
        model=name,
        first=min(one.since for one in model.waiting),
        request=model.waiting[0].request,
        urgent=any(one.lane is Lane.INTERACTIVE for one in model.waiting),
        rank=min(one.since + BULK_LAG * (one.lane is Lane.BULK) for one in model.waiting),
        seat=seat,
    )


# Seats -------------------------------------------------------------------------------------------


def rises_to(draft: Draft, name: str) -> str:
    """The GPU that a `flex` encoder on the processor should move to for the work it has; empty if
    it should stay."""
    model = draft.models[name]
    if not may_rise(model, 0):
        return ""
    work = texts(model.waiting) + texts(tuple(model.active.values()))
    for seat in seats(model):
        if seat != "cpu" and work >= batch_for_gpu(model, seat) and _pays(draft, name, seat, work):
            return seat
    return ""


def may_rise(model: ModelState, more: int) -> bool:
    """Could the work of a `flex` encoder on the processor, with `more` texts, be enough for a GPU?
    Cheap, since every request asks."""
    if model.seat != "cpu" or model.setting.device != "flex" or not model.setting.encoder:
        return False
    work = texts(model.waiting) + texts(tuple(model.active.values())) + more
    return any(
        seat != "cpu" and work >= batch_for_gpu(model, seat) for seat in model.profile.serving
    )


def choose_seat(draft: Draft, need: Need) -> str:
    """Where the model should serve, of the seats that it can ever fit on; empty if on none."""
    model = draft.models[need.model]
    possible = [seat for seat in seats(model) if not draft.never_fits(need.model, seat)]
    if need.seat or len(possible) < 2:
        return need.seat if need.seat in possible else next(iter(possible), "")
    if not model.setting.encoder:
        return possible[0]
    work = texts(model.waiting)
    for seat in possible:
        if seat == "cpu":
            continue
        enough = work >= batch_for_gpu(model, seat)
        if enough and _pays(draft, need.model, seat, work):
            return seat
        if not enough and _room(draft, need.model, "cpu") and not _room(draft, need.model, seat):
            return seat
    return "cpu"


def _room(draft: Draft, name: str, seat: str) -> Sizes:
    """What a seat lacks for the model; empty if it could be loaded there now."""
    return draft.ledger.lack(_more(draft, name, seat), draft.spoken)


def _pays(draft: Draft, name: str, seat: str, work: int) -> bool:
    """Is there room on a GPU, or can idle models make it for less than the move saves?"""
    if draft.never_fits(name, seat):
        return False
    if not _room(draft, name, seat):
        return True
    model = draft.models[name]
    victims = cheapest(candidates(draft, name), shortage(draft, name, seat))
    if victims is None:
        return False
    soon, busy, seconds = price_of(victims)
    slow = model.profile.throughput.get("cpu")
    fast = model.profile.throughput.get(seat)
    if not slow or not fast:
        return not soon and not busy
    move = bring_seconds(model, seat, Place.PARKED)
    gain = max(1.0, demand(model, draft.at)) * work * (1 / slow - 1 / fast) - move
    return not soon and not busy and gain > seconds


def _more(draft: Draft, name: str, seat: str) -> Sizes:
    held = draft.ledger.of(name)
    reserve = draft.reserve(name, seat)
    return {device: size - held.get(device, 0) for device, size in reserve.items()}


# Room --------------------------------------------------------------------------------------------


def shortage(draft: Draft, name: str, seat: str) -> Sizes:
    """On every limited device, what the model needs beyond what is free, promised to nobody, or
    on its way back; negative where there is room to spare."""
    free, more = draft.ledger.free(), _more(draft, name, seat)
    back = draft.coming_back()
    return {
        device: more.get(device, 0) - left - back.get(device, 0) + draft.spoken.get(device, 0)
        for device, left in free.items()
    }


def candidates(draft: Draft, name: str) -> list[list[Way]]:
    """Who could give room to `name`, whether it is their time or not."""
    found = (
        draft.ways_out(other, closed_for=name)
        for other in draft.models
        if other != name and other not in draft.doors
    )
    return [each for each in found if each]


def make_room(draft: Draft, need: Need, seat: str) -> None:
    """8.5 and 8.6: put out the cheapest set of models that makes room, or close their doors."""
    name = need.model
    lack = shortage(draft, name, seat)
    if all(size <= 0 for size in lack.values()):
        draft.turn.append(name)  # it is on its way back
        return
    every = candidates(draft, name)
    ripe = [one for one in every if _ripe_at(draft, need, one[0].model, seat) <= draft.at]
    victims = cheapest(ripe, lack)
    if victims is None:
        times = [_ripe_at(draft, need, one[0].model, seat) for one in every]
        draft.wakes += times
        if cheapest(every, lack) is None and draft.at_rest():
            _no_room(draft, need, seat, lack)
        return
    draft.turn.append(name)
    short = ", ".join(
        f"{mib(size)} MiB more of {device}" for device, size in sorted(lack.items()) if size > 0
    )
    if any(draft.models[way.model].active for way in victims):
        for way in victims:
            if draft.models[way.model].active or draft.models[way.model].closed == name:
                draft.doors[way.model] = name
        return
    for way in victims:
        seconds = way.price[2]
        what = "parked" if way.place is Place.PARKED else "ended"
        draft.put_out(
            way.model,
            way.place,
            f"{what}, since {name!r} needs {short}, and this is the cheapest way to make room "
            f"(expected cost {seconds:.2f} s)",
            frees_mib=sum(mib(size) for size in way.frees.values() if size > 0),
            cost_s=round(seconds, 3),
            waiting=len(draft.models[name].waiting),
        )


def _ripe_at(draft: Draft, need: Need, name: str, seat: str) -> float:
    """From when a model may be a victim of this need.

    At once, if it is idle and no running cycle is about to ask for it, or if it only works for bulk
    while people wait. Otherwise from when closing its door costs less than leaving it open. With
    n who wait, E for the seconds that one more request at the open door would take, T for those of
    the whole turn and R for what is left of the present work: open, all n wait E - R longer;
    closed, the one more waits R + T. Closed is better from R = (n E - T) / (n + 1) on downwards."""
    model = draft.models[name]
    if model.place is Place.PARKED or model.closed == need.model:
        return draft.at
    lanes = {one.lane for one in model.active.values()}
    people = Lane.INTERACTIVE in lanes or name in draft.expected
    if not lanes and not people:
        return draft.at
    if need.urgent and not people:
        return draft.at
    needing = draft.models[need.model]
    swap = bring_seconds(needing, seat, needing.place) + bring_seconds(
        model, model.seat, Place.PARKED
    )
    count = sum(BULK_WEIGHT if one.lane is Lane.BULK else 1.0 for one in needing.waiting)
    ends = max((one.began + _takes(model, one) for one in model.active.values()), default=draft.at)
    more = min(model.takes.values(), default=0.0)
    pays = ends - (count * more - _turn(draft, need.model, seat, name)) / (count + 1)
    ripe = max(model.since + RESIDENCY * swap, min(max(pays, need.first), need.first + PATIENCE))
    if people and not need.urgent:
        ripe = max(ripe, need.first + BULK_PATIENCE)
    return ripe


def _turn(draft: Draft, name: str, seat: str, out: str) -> float:
    """Seconds of putting `out` out, bringing `name`, its work, and the way back."""
    model, other = draft.models[name], draft.models[out]
    there = other.profile.park + bring_seconds(model, seat, model.place)
    back = model.profile.park + bring_seconds(other, other.seat, Place.PARKED)
    return there + max((_takes(model, one) for one in model.waiting), default=0.0) + back


def _takes(model: ModelState, one: Waiting) -> float:
    """Seconds that a request will probably take."""
    return model.takes.get(one.next, max(model.takes.values(), default=0.0))


def _no_room(draft: Draft, need: Need, seat: str, lack: Sizes) -> None:
    """8.6: nobody's leaving would help. What others hold may come back: wait, but not for ever."""
    model = draft.models[need.model]
    last = need.first + NO_ROOM_SECONDS
    if draft.at < last and need.request != NOBODY:
        draft.wakes.append(last)
        return
    device, size = max(lack.items(), key=lambda item: item[1])
    ledger = draft.ledger
    fixed = sum(
        ledger.of(other).get(device, 0) for other, each in draft.models.items() if stays(each)
    )
    refuse_order(
        draft,
        need.model,
        f"model {need.model!r} lacks {mib(size)} MiB of {device} on seat {seat!r}, and no model "
        f"can make room: of the limit of {mib(ledger.limits[device])} MiB, "
        f"{mib(ledger.other.get(device, 0))} MiB are held by others and {mib(fixed)} MiB by "
        "pinned models",
        lacks_mib=mib(size),
    )
    if model.waiting:
        draft.wakes.append(draft.at)


def refuse_order(draft: Draft, name: str, reason: str, **numbers: float) -> None:
    """Refuse all who want a model that cannot be had: those who wait, and an operator."""
    model = draft.models[name]
    draft.refuse(name, ConfigError.code, reason, **numbers)
    if model.order is not None:
        draft.effects.append(Refuse(NOBODY, name, ConfigError.code, reason, numbers))
        draft.change(name, order=None)
