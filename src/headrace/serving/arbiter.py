"""Who may use which model now, and which models are in memory: one pure function.

`decide` takes what is known and what happened, and gives what is known now and what must be done.
It reads no clock, waits for nothing and does nothing itself; `serving/director.py` performs its
effects and tells it of their end. `docs/scheduler.md` explains it at length.

The rules, in words:

* Memory is reserved before a load, at the most that the load will take, and never beyond a limit.
  Room that an eviction frees counts when it has been measured to be free. One load at a time.
* Only idle models leave. If all are busy, the door of the cheapest one closes once it has served
  for as long as the swap costs; its work ends, and the room changes hands. So alternating requests
  become batches, nobody is interrupted, and nobody waits for ever.
* Of all sets of models that make enough room, the one leaves that costs least: the seconds to bring
  a model back, times how much it is wanted. What a running cycle needs next leaves last.
* People go before bulk work, which ages.
* What can never fit is refused at once, with the arithmetic.
"""

from __future__ import annotations

import msgspec

from headrace.errors import ModelFailed
from headrace.serving.arbiter_draft import (
    ON_THE_WAY_OUT,
    Draft,
    mib,
    seats,
)
from headrace.serving.arbiter_events import announce, circuit, leave, record
from headrace.serving.arbiter_needs import (
    Need,
    choose_seat,
    make_room,
    may_rise,
    needs,
    refuse_order,
    rises_to,
)
from headrace.serving.arbiter_types import (
    NOBODY,
    Admit,
    Arrived,
    Effect,
    Ended,
    Event,
    ModelState,
    Place,
    Refuse,
    Sizes,
    State,
    Waiting,
)
from headrace.serving.eviction import bring_seconds, cheapest, demand, price_of

COMING_SECONDS = 30.0
"""How long a cycle's announcement counts when nothing more is heard of the cycle."""


def decide(state: State, event: Event) -> tuple[State, tuple[Effect, ...]]:
    """The state after `event`, and what is to be done because of it, in this order.

    1. *Fast path.* A request for a model that serves with an open door is admitted at once. The end
       of a request changes nothing else while others are active or nobody waits for anything.
    2. *Record.* The event is written into the state (`arbiter_events`). Those who wait for a load
       that failed get its error; the next load is 1, 2, 4, ... 60 s away.
    3. *Forget.* Announcements of cycles of which nothing was heard for `COMING_SECONDS`, and that
       have no request here, are dropped.
    4. *Refuse.* 4.1 who waits for a removed model, 4.2 for one that failed five times in a row,
       until its next trial, 4.3 for one that can never fit.
    5. *Let in.* Open doors let in all who wait, unless a `flex` encoder on the processor now has
       work enough to move to a GPU.
    6. *Leave.* Idle models go that 6.1 are removed, 6.2 an operator ordered out (refused if there
       is no room to park), 6.3 are on a seat where they may not be any more, 6.4 give back after
       use. The first three close their doors.
    7. *Over the limit.* If a limit is passed (a model grew, the limit was lowered), the cheapest
       idle models leave; if there are none, the cheapest busy one closes its door.
    8. *Needs*, the most urgent first: 8.1 one that waits out a pause or is on its way waits. 8.2
       The seat is chosen. 8.3 Is there room, and no other load? Load. 8.4 Otherwise its room is
       promised, and 8.5 the cheapest victims whose time has come leave if all are idle, or close
       their doors. 8.6 If nobody's leaving helps, it waits for 30 s and is refused.
    9. *Foresight*, if nobody waits and nothing is being loaded: 9.1 what a running cycle needs next
       is loaded, if need be in the place of models that are idle and less wanted; 9.2 standby
       models are loaded where there is free room.
    10. *Doors.* Those that steps 6 to 8 closed stay closed, all others open.
    """
    # 1
    if isinstance(event, Arrived):
        model = state.models.get(event.model)
        if model is not None and _open(model, event) and not _foresight(state, event):
            return _admit_at_once(state, model, event)
    elif isinstance(event, Ended):
        model = state.models.get(event.model)
        if model is not None and event.request in model.active and _is_no_news(state, model):
            return _with(state, event.model, leave(model, event), _heard(state, model, event)), ()

    draft = Draft(state, event.at)
    if isinstance(event, Ended) and event.model in state.models:
        draft.coming = _heard(state, state.models[event.model], event)
    record(draft, event)  # 2
    _forget(draft)  # 3
    _refuse(draft)  # 4
    _let_in(draft)  # 5
    _leave(draft)  # 6
    _shrink(draft)  # 7
    for need in needs(draft):  # 8
        _serve(draft, need)
    if not draft.waits and not draft.loading():  # 9
        _foresee(draft)
    _set_doors(draft)  # 10
    return draft.state(), tuple(draft.effects)


# 1 -----------------------------------------------------------------------------------------------


def _open(model: ModelState, event: Arrived) -> bool:
    return (
        model.place is Place.SERVING
        and not model.closed
        and not model.removed
        and not model.waiting
        and not (model.seat == "cpu" and may_rise(model, event.size))
    )


def _foresight(state: State, event: Arrived) -> bool:
    """Does its cycle need a model next that is not there?"""
    return any(
        name in state.models and state.models[name].place is not Place.SERVING
        for name in event.then
    )


def _admit_at_once(
    state: State, model: ModelState, event: Arrived
) -> tuple[State, tuple[Effect, ...]]:
    one = Waiting(event.request, event.lane, event.at, event.size, event.cycle, "", event.at)
    if event.then:
        one = msgspec.structs.replace(one, next=event.then[0])
    changed = ModelState(
        setting=model.setting,
        profile=model.profile,
        place=model.place,
        seat=model.seat,
        active={**model.active, event.request: one},
        waiting=(),
        closed="",
        since=model.since,
        used=model.used,
        demand=demand(model, event.at) + 1,
        asked=event.at,
        grown=model.grown,
        failures=model.failures,
        fell=model.fell,
        retry_at=model.retry_at,
        removed=False,
        order=model.order,
        dismissed=False,
        busy_since=model.busy_since if model.active else event.at,
        done=model.done,
        takes=model.takes,
    )
    coming = state.coming
    if event.cycle:
        coming = dict(coming)
        announce(coming, event)
    return _with(state, event.model, changed, coming), (
        Admit(event.request, event.model, model.seat),
    )


def _is_no_news(state: State, model: ModelState) -> bool:
    """Is the end of one of its requests without consequence for anybody?"""
    if len(model.active) > 1:
        return True
    return not state.unsettled and model.setting.give_back != "after_use"


def _heard(
    state: State, model: ModelState, event: Ended
) -> dict[str, tuple[float, tuple[str, ...]]]:
    """The announcements, that of the ended request's cycle counted from now on."""
    one = model.active.get(event.request)
    if one is None or one.cycle not in state.coming:
        return dict(state.coming)
    return {**state.coming, one.cycle: (event.at, state.coming[one.cycle][1])}


def _with(
    state: State,
    name: str,
    model: ModelState,
    coming: dict[str, tuple[float, tuple[str, ...]]],
) -> State:
    return State(
        limits=state.limits,
        models={**state.models, name: model},
        held=state.held,
        other=state.other,
        fixed=state.fixed,
        coming=coming,
        turn=state.turn,
        unsettled=state.unsettled,
    )


# 3, 4, 5 -----------------------------------------------------------------------------------------


def _forget(draft: Draft) -> None:
    here: set[str] | None = None
    for cycle, (heard, _) in list(draft.coming.items()):
        if draft.at < heard + COMING_SECONDS:
            continue
        if here is None:
            here = {
                one.cycle
                for model in draft.models.values()
                for one in (*model.waiting, *model.active.values())
            }
        if cycle not in here:
            del draft.coming[cycle]


def _refuse(draft: Draft) -> None:
    for name, model in list(draft.models.items()):
        if model.removed and model.waiting and model.place is not Place.SERVING:  # 4.1
            draft.refuse(
                name, "model_not_found", f"model {name!r} was removed from the configuration"
            )
        wanted = model.waiting or model.order in (Place.SERVING, Place.PARKED)
        if not wanted or model.place in (Place.SERVING, Place.LOADING):
            continue
        circuit(draft, name)  # 4.2
        why = [draft.never_fits(name, seat) for seat in seats(model)]
        if all(why):  # 4.3
            refuse_order(draft, name, why[0] if why else f"model {name!r} has no seat")


def _let_in(draft: Draft) -> None:
    for name, model in list(draft.models.items()):
        waits = model.place is Place.SERVING and model.waiting and not model.closed
        if waits and not rises_to(draft, name):
            draft.admit(name)


# 6, 7 -------------------------------------------------------------------------------------------


def _leave(draft: Draft) -> None:
    for name, model in list(draft.models.items()):
        if model.removed and model.place is Place.GONE and not model.active:
            del draft.models[name]
            continue
        if model.place not in (Place.SERVING, Place.PARKED):
            continue
        if model.removed:  # 6.1
            _out(draft, name, Place.GONE, "it was removed from the configuration")
        elif model.order is Place.GONE:  # 6.2
            _out(draft, name, Place.GONE, "an operator ordered it")
        elif model.order is Place.PARKED and model.place is Place.SERVING:
            if not model.active and (lack := draft.lack_to_park(name)):
                _refuse_to_park(draft, name, lack)
            else:
                _out(draft, name, Place.PARKED, "an operator ordered it")
        elif model.place is Place.SERVING and model.seat not in seats(model):  # 6.3
            _out(draft, name, Place.GONE, f"it may not run on {model.seat!r} any more")
        elif _is_used_up(draft, name):  # 6.4
            cheap = min(draft.ways_out(name), key=lambda way: way.price, default=None)
            if cheap is not None:
                draft.put_out(name, cheap.place, "it gives its room back after use")


def _refuse_to_park(draft: Draft, name: str, lack: Sizes) -> None:
    """An order that cannot be done keeps nobody waiting at the door."""
    device, size = max(lack.items(), key=lambda item: item[1])
    reason = f"parking it takes {mib(size)} MiB more of {device} than is free; it can be ended"
    draft.effects.append(Refuse(NOBODY, name, ModelFailed.code, reason, {"lack_mib": mib(size)}))
    draft.change(name, order=None, closed="")
    draft.admit(name)


def _is_used_up(draft: Draft, name: str) -> bool:
    model = draft.models[name]
    wanted = model.active or model.waiting or name in draft.announced or model.order is not None
    return (
        model.setting.give_back == "after_use"
        and model.place is Place.SERVING
        and model.used >= model.since
        and not wanted
    )


def _out(draft: Draft, name: str, place: Place, why: str) -> None:
    """Put a model out as soon as it is idle; nobody is let in until then."""
    draft.waits = True
    if draft.models[name].active or not draft.put_out(name, place, why):
        draft.doors[name] = why


def _shrink(draft: Draft) -> None:
    over = draft.ledger.over()
    if not over:
        return
    draft.waits = True
    back = draft.coming_back()
    lack = {device: size - back.get(device, 0) for device, size in over.items()}
    spare = {device: -left for device, left in draft.ledger.free().items() if left >= 0}
    found = [each for name in draft.models if (each := draft.ways_out(name, closed_for=_OVER))]
    resting = [each for each in found if not draft.models[each[0].model].active]
    victims = cheapest(resting, {**spare, **lack}) or cheapest(found, {**spare, **lack})
    for way in victims or ():
        if draft.models[way.model].active:
            draft.doors[way.model] = _OVER
            continue
        device, size = max(over.items(), key=lambda item: item[1])
        draft.put_out(
            way.model,
            way.place,
            f"{device} is {mib(size)} MiB over its limit of {mib(draft.ledger.limits[device])} MiB",
            over_mib=mib(size),
        )


_OVER = "a limit is passed"


# 8 -----------------------------------------------------------------------------------------------


def _serve(draft: Draft, need: Need) -> None:
    draft.waits = True
    model = draft.models[need.model]
    if model.place is Place.LOADING or model.place in ON_THE_WAY_OUT:  # 8.1
        return
    seat = choose_seat(draft, need)  # 8.2
    if not seat:
        return
    if model.place is Place.SERVING:
        draft.doors[need.model] = f"it moves to {seat}"
        if model.active:
            return
    more = _more(draft, need.model, seat)
    if not draft.ledger.lack(more, draft.spoken):
        if not draft.loading():  # 8.3
            _load(draft, need, seat)
            return
        if need.model in draft.before:
            draft.turn.append(need.model)
    else:
        make_room(draft, need, seat)  # 8.5, 8.6
    _promise(draft, more)  # 8.4


def _more(draft: Draft, name: str, seat: str) -> Sizes:
    held = draft.ledger.of(name)
    reserve = draft.reserve(name, seat)
    return {device: size - held.get(device, 0) for device, size in reserve.items()}


def _promise(draft: Draft, more: Sizes) -> None:
    """What is free now and what is coming back belongs to this need first."""
    back = draft.coming_back()
    for device, left in draft.ledger.free().items():
        taken = draft.spoken.get(device, 0)
        there = max(0, left + back.get(device, 0) - taken)
        draft.spoken[device] = taken + min(max(0, more.get(device, 0)), there)


def _load(draft: Draft, need: Need, seat: str) -> None:
    model = draft.models[need.model]
    if model.waiting:
        longest = draft.at - need.first
        who = f"{len(model.waiting)} waiting, the longest for {longest:.2f} s"
    else:
        longest, who = 0.0, "an operator ordered it"
    _bring(draft, need.model, seat, who, waiting=len(model.waiting), waited_s=round(longest, 3))


def _bring(draft: Draft, name: str, seat: str, why: str, **numbers: float) -> None:
    model = draft.models[name]
    expected = bring_seconds(model, seat, model.place)
    reserve = draft.reserve(name, seat)
    free = draft.ledger.free()
    room = ", ".join(
        f"{mib(size)} MiB of {device}" + (f" ({mib(free[device])} free)" if device in free else "")
        for device, size in sorted(reserve.items())
    )
    draft.load(
        name,
        seat,
        f"{why}; takes {room} and about {expected:.2f} s",
        needs_mib=sum(mib(size) for size in reserve.values()),
        seconds=round(expected, 3),
        **numbers,
    )


# 9, 10 ------------------------------------------------------------------------------------------


def _foresee(draft: Draft) -> None:
    ahead = sorted(
        (name for name in draft.announced if _is_away(draft, name) and name in draft.expected),
        key=lambda name: (-draft.announced[name], name),
    )
    for name in ahead:  # 9.1
        draft.waits = True
        if _prefetch(draft, name):
            return
    for name, model in draft.models.items():  # 9.2
        if not model.setting.standby or model.dismissed or not _is_away(draft, name):
            continue
        if model.setting.give_back == "after_use":
            continue
        draft.waits = True
        for seat in reversed(seats(model)) if model.setting.encoder else seats(model):
            if not draft.ledger.lack(_more(draft, name, seat)):
                _bring(draft, name, seat, "standby")
                return


def _is_away(draft: Draft, name: str) -> bool:
    model = draft.models.get(name)
    if model is None or model.removed or model.place not in (Place.GONE, Place.PARKED):
        return False
    if draft.at < model.retry_at:
        draft.wakes.append(model.retry_at)
        return False
    return True


def _prefetch(draft: Draft, name: str) -> bool:
    """Load what a running cycle needs next, or make room for it by models that are wanted less."""
    model = draft.models[name]
    seat = choose_seat(draft, Need(name, draft.at, NOBODY, False, draft.at))
    if not seat or draft.never_fits(name, seat):
        return False
    why = "a running cycle needs it next"
    more = _more(draft, name, seat)
    if not draft.ledger.lack(more):
        _bring(draft, name, seat, why, cycles=round(draft.announced[name], 2))
        return True
    free, back = draft.ledger.free(), draft.coming_back()
    lack = {d: more.get(d, 0) - left - back.get(d, 0) for d, left in free.items()}
    idle = [
        each
        for other in draft.models
        if other != name and not draft.models[other].active and (each := draft.ways_out(other))
    ]
    victims = cheapest(idle, lack)
    if not victims:
        return victims is not None
    soon, _, seconds = price_of(victims)
    gain = draft.announced[name] * bring_seconds(model, seat, model.place)
    if soon or seconds >= gain:
        return False
    for way in victims:
        draft.put_out(
            way.model,
            way.place,
            f"{name!r} is needed next by a running cycle, and brings {gain:.2f} s for "
            f"{seconds:.2f} s",
            gain_s=round(gain, 3),
            cost_s=round(seconds, 3),
        )
    return True


def _set_doors(draft: Draft) -> None:
    for name, model in list(draft.models.items()):
        closed = draft.doors.get(name, "")
        if model.place is not Place.SERVING:
            closed = ""
        if model.closed != closed:
            draft.change(name, closed=closed)
        if closed:
            draft.waits = True
            continue
        if model.place is Place.SERVING:
            if model.waiting:
                draft.admit(name)
        elif model.waiting and model.place is not Place.LOADING:
            draft.waits = True
            if draft.at < model.retry_at:
                draft.wakes.append(model.retry_at)
