"""Which models give up their room, and how far: the set of least expected cost that makes enough.

A victim is *parked* (its weights leave the seat, its worker lives) or *exits* (all is free). The
price of a choice has three parts, compared in this order:

1. how many victims a running cycle needs next,
2. how many are busy, and must be drained first,
3. seconds: what it takes to put them out, and what it will probably take to bring them back, which
   is the time to bring back x how much the model is in demand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec

from headrace.serving.arbiter_types import ModelState, Place, Sizes
from headrace.serving.ledger import growth
from headrace.types import Lane

EXHAUSTIVE = 12
"""Candidates up to which every set is looked at; beyond, the cheapest by price are taken in turn
and those that turn out to be unneeded are spared."""

HALF_LIFE = 120.0
BULK_WEIGHT = 0.2
STANDBY_WEIGHT = 0.5

Price: TypeAlias = tuple[int, int, float]


class Way(msgspec.Struct, frozen=True):
    """One way to put one model out. `frees` by device; negative where parking takes room."""

    model: str
    place: Place  # where it will be: PARKED or GONE
    frees: Sizes
    price: Price


def demand(model: ModelState, at: float) -> float:
    """Requests of late, each counted half after `HALF_LIFE` seconds."""
    return float(model.demand * 0.5 ** ((at - model.asked) / HALF_LIFE))


def worth(model: ModelState, at: float, coming: float) -> float:
    """How much a model is wanted, in requests: of late, at its door, announced by cycles
    (`coming`), and by standby."""
    door = sum(1.0 if one.lane is Lane.INTERACTIVE else BULK_WEIGHT for one in model.waiting)
    return demand(model, at) + door + coming + STANDBY_WEIGHT * model.setting.standby


def bring_seconds(model: ModelState, seat: str, place: Place) -> float:
    """Expected time to bring it to a seat from `place`."""
    known = model.profile.load if place is Place.GONE else model.profile.resume
    return known.get(seat, max(known.values(), default=1.0))


def ways(
    name: str, model: ModelState, held: Sizes, *, at: float, coming: float, busy: bool, soon: bool
) -> list[Way]:
    """How a resting model can be put out: parked if it serves and that frees anything, gone."""
    value = worth(model, at, coming)
    profile = model.profile
    again = bring_seconds(model, model.seat, Place.GONE)
    found = []
    if model.place is Place.SERVING:
        frees = growth(profile.parked, held)
        back = bring_seconds(model, model.seat, Place.PARKED)
        if any(size > 0 for size in frees.values()) and back < again:
            price = (int(soon), int(busy), profile.park + value * back)
            found.append(Way(name, Place.PARKED, frees, price))
    else:
        again -= bring_seconds(model, model.seat, Place.PARKED)
    price = (int(soon), int(busy), profile.exit + value * max(again, 0.0))
    found.append(Way(name, Place.GONE, held, price))
    return found


def cheapest(candidates: Sequence[Sequence[Way]], lack: Sizes) -> list[Way] | None:
    """Of each candidate at most one way, so that together they free `lack` on every device and
    take no more than they free; None if all together cannot. `lack` may name devices with a
    negative number: room to spare, that parking may use."""
    short = {device for device, size in lack.items() if size > 0}
    filled = {  # by parking, which others may have to make room for
        device
        for one in candidates
        for way in one
        if _frees(way, short)
        for device in lack
        if way.frees.get(device, 0) < 0
    }
    usable = [one for one in candidates if any(_frees(way, short | filled) for way in one)]
    if len(usable) > EXHAUSTIVE:
        return _greedy(usable, lack)
    usable.sort(key=lambda one: (min(way.price for way in one), one[0].model))
    best: list[Way] | None = None
    best_price: Price = (0, 0, 0.0)

    def search(place: int, left: Sizes, chosen: list[Way], price: Price) -> None:
        nonlocal best, best_price
        if best is not None and price >= best_price:
            return
        if all(size <= 0 for size in left.values()):
            best, best_price = list(chosen), price
            return
        if place == len(usable):
            return
        for way in usable[place]:
            search(
                place + 1,
                {device: size - way.frees.get(device, 0) for device, size in left.items()},
                [*chosen, way],
                _sum(price, way.price),
            )
        search(place + 1, left, chosen, price)

    search(0, lack, [], (0, 0, 0.0))
    return best


def price_of(chosen: Sequence[Way]) -> Price:
    total: Price = (0, 0, 0.0)
    for way in chosen:
        total = _sum(total, way.price)
    return total


def _greedy(usable: Sequence[Sequence[Way]], lack: Sizes) -> list[Way] | None:
    chosen: list[Way] = []
    for way in sorted((one[-1] for one in usable), key=lambda way: (way.price, way.model)):
        if _enough(chosen, lack):
            break
        chosen.append(way)
    if not _enough(chosen, lack):
        return None
    for way in reversed(chosen[:]):
        rest = [one for one in chosen if one is not way]
        if _enough(rest, lack):
            chosen = rest
    return chosen


def _enough(chosen: Sequence[Way], lack: Sizes) -> bool:
    return all(
        sum(way.frees.get(device, 0) for way in chosen) >= size for device, size in lack.items()
    )


def _frees(way: Way, devices: Iterable[str]) -> bool:
    return any(way.frees.get(device, 0) > 0 for device in devices)


def _sum(one: Price, other: Price) -> Price:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]
