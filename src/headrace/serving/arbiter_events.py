"""Step 2 of the arbiter: what each event changes in the state, before anything is decided."""

from __future__ import annotations

import msgspec

from headrace.errors import ModelFailed, UnknownModel
from headrace.serving.arbiter_draft import OPEN_CIRCUIT, RESTING, Draft
from headrace.serving.arbiter_types import (
    Arrived,
    Configured,
    Ended,
    Event,
    Measured,
    ModelState,
    Moved,
    MoveFailed,
    Ordered,
    Place,
    Profile,
    Refuse,
    Tick,
    Waiting,
)
from headrace.serving.eviction import demand
from headrace.serving.ledger import larger

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the next load after one failure, and after many: 1, 2, 4, ... 60."""

STABLE_SECONDS = 30.0
"""A worker that crashes sooner after its load counts as one more failure in a row."""

_NEW_TAKES = 0.2  # weight of the newest request in how long they take
_NEW_BATCHES = 64.0  # texts that weigh as much in a learned throughput as all before


def record(draft: Draft, event: Event) -> None:
    match event:
        case Arrived():
            _arrived(draft, event)
        case Ended():
            _ended(draft, event)
        case Moved():
            _moved(draft, event)
        case MoveFailed():
            _failed(draft, event)
        case Measured():
            _measured(draft, event)
        case Ordered():
            _ordered(draft, event)
        case Configured():
            _configured(draft, event)
        case Tick():
            pass


def _arrived(draft: Draft, event: Arrived) -> None:
    model = draft.models.get(event.model)
    if model is None or model.removed:
        reason = UnknownModel(event.model, draft.models).message
        draft.effects.append(Refuse(event.request, event.model, UnknownModel.code, reason))
        return
    after = event.then[0] if event.then else ""
    one = Waiting(event.request, event.lane, event.at, event.size, event.cycle, after)
    draft.change(
        event.model,
        waiting=(*model.waiting, one),
        demand=demand(model, event.at) + 1,
        asked=event.at,
        dismissed=False,
    )
    announce(draft.coming, event)


def announce(coming: dict[str, tuple[float, tuple[str, ...]]], event: Arrived) -> None:
    """Keep what a cycle says that it needs afterwards; its last step needs nothing more."""
    if event.then:
        coming[event.cycle] = (event.at, event.then)
    elif event.cycle:
        coming.pop(event.cycle, None)


def _ended(draft: Draft, event: Ended) -> None:
    model = draft.models.get(event.model)
    if model is None:
        return
    if event.request in model.active:
        draft.models[event.model] = leave(model, event)
    else:
        staying = tuple(one for one in model.waiting if one.request != event.request)
        draft.change(event.model, waiting=staying)


def leave(model: ModelState, event: Ended) -> ModelState:
    """The model without a request that was active; when it falls idle, its speed is learned."""
    active = dict(model.active)
    one = active.pop(event.request)
    done = model.done + one.size
    took = event.at - one.began
    before = model.takes.get(one.next, took)
    takes = {**model.takes, one.next: before + _NEW_TAKES * (took - before)}
    if active:
        return msgspec.structs.replace(model, active=active, done=done, used=event.at, takes=takes)
    profile = model.profile
    seconds = event.at - model.busy_since
    if model.setting.encoder and model.place is Place.SERVING and seconds > 0:
        rate = done / seconds
        old = profile.throughput.get(model.seat, rate)
        share = done / (done + _NEW_BATCHES)
        known = {**profile.throughput, model.seat: old + share * (rate - old)}
        profile = msgspec.structs.replace(profile, throughput=known)
    return msgspec.structs.replace(
        model, active=active, done=0, used=event.at, takes=takes, profile=profile
    )


def _moved(draft: Draft, event: Moved) -> None:
    model = draft.models.get(event.model)
    if model is None:
        return
    held = event.held
    fields: dict[str, object] = {}
    if event.place is Place.SERVING:
        held = larger(held, model.grown.get(model.seat, {}))
        fields = {"failures": 0, "fell": model.failures}
    draft.ledger.book(event.model, held)
    draft.change(
        event.model,
        place=event.place,
        since=event.at,
        profile=event.profile or model.profile,
        order=None if model.order is event.place else model.order,
        closed="",
        **fields,
    )


def _failed(draft: Draft, event: MoveFailed) -> None:
    model = draft.models.get(event.model)
    if model is None:
        return
    if event.profile is not None:
        draft.ledger.book(event.model, {})
        draft.change(event.model, place=Place.GONE, since=event.at, profile=event.profile)
        return
    failures = model.failures + 1
    if model.place is Place.SERVING and event.at - model.since < STABLE_SECONDS:
        failures += model.fell
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
    if model.place is Place.LOADING:
        draft.refuse(event.model, event.code, event.message, failures=failures, retry_in=pause)
    draft.ledger.book(event.model, {})
    draft.change(
        event.model,
        place=Place.GONE,
        since=event.at,
        active={},
        done=0,
        closed="",
        order=None,
        failures=failures,
        fell=0,
        retry_at=event.at + pause,
    )


def circuit(draft: Draft, name: str) -> None:
    """Refuse who waits for a model that failed too often, until its next trial."""
    model = draft.models[name]
    if model.failures >= OPEN_CIRCUIT and draft.at < model.retry_at and model.order is None:
        pause = model.retry_at - draft.at
        reason = (
            f"model {name!r} failed {model.failures} times in a row; it is tried again in "
            f"{pause:.0f} s"
        )
        draft.refuse(
            name, ModelFailed.code, reason, failures=model.failures, retry_in=round(pause, 3)
        )


def _measured(draft: Draft, event: Measured) -> None:
    ledger = draft.ledger
    ledger.other = {**ledger.other, **event.other}
    draft.fixed = {
        **draft.fixed,
        **{d: min(size, draft.fixed.get(d, size)) for d, size in event.other.items()},
    }
    for name in sorted({*draft.models, *ledger.held, *event.held}):
        real = {d: s for d, s in event.held.get(name, {}).items() if d in event.other}
        model = draft.models.get(name)
        booked = ledger.of(name)
        if model is not None and model.place not in RESTING:
            ledger.book(name, larger(booked, real))
            continue
        known = {d: size for d, size in booked.items() if d not in event.other}
        if model is not None and model.place is Place.SERVING:
            at_load = model.grown.get(model.seat) or booked
            grown = larger(at_load, real)
            if grown != at_load:
                draft.change(name, grown={**model.grown, model.seat: grown})
            real = larger(real, grown)
        ledger.book(name, {**real, **known})


def _ordered(draft: Draft, event: Ordered) -> None:
    model = draft.models.get(event.model)
    if model is None:
        return
    draft.change(
        event.model,
        order=None if model.place is event.place else event.place,
        dismissed=event.place is not Place.SERVING,
        retry_at=event.at if event.place is Place.SERVING else model.retry_at,
    )


def _configured(draft: Draft, event: Configured) -> None:
    draft.ledger.limits = event.limits
    for name, setting in event.settings.items():
        if name in draft.models:
            draft.change(name, setting=setting, removed=False)
        else:
            profile = event.profiles.get(name, Profile({}, {}, {}, {}, {}))
            draft.models[name] = ModelState(setting, profile, since=event.at, asked=event.at)
    for name in draft.models:
        if name not in event.settings:
            draft.change(name, removed=True, order=None)
