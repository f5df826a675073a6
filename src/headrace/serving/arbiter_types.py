"""What the arbiter knows, hears and decides. Sizes in bytes, times in seconds of one clock.

The memory of a *device* is what the ledger keeps: `host` (this machine's memory, limited by
`devices.host.limit`) or `cuda:N`. A *seat* is where a model computes: `cpu` or `cuda:N`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, TypeAlias

import msgspec

from headrace.types import Lane

Sizes: TypeAlias = dict[str, int]
"""Bytes by device of the ledger."""

NOBODY = 0
"""The number of no request."""


class Place(StrEnum):
    """Where a model is. Those that end in -ING are on the way, by an effect not yet reported."""

    GONE = "gone"  # no worker
    LOADING = "loading"  # from gone or parked, or from one seat to another
    SERVING = "serving"
    PARKING = "parking"
    PARKED = "parked"  # the worker lives, its weights are off the seat
    EXITING = "exiting"


class Setting(msgspec.Struct, frozen=True):
    """What the configuration says of one model."""

    device: str = "flex"  # or a seat
    give_back: Literal["after_use", "when_needed", "never"] = "when_needed"
    min_batch_for_gpu: int | None = None
    standby: bool = False
    pin: bool = False
    encoder: bool = True  # its work comes in texts, so `min_batch_for_gpu` applies


class Profile(msgspec.Struct, frozen=True):
    """What is known of one model's needs; `measured` is False until its first load.

    `serving` and `peak` (while it loads or moves) are by seat; `parked` is what stays while its
    worker lives without weights on a seat. Seconds are by seat: `load` from gone, `resume` from
    parked. `throughput` is texts (encoder) or tokens (generator) a second, by seat."""

    serving: dict[str, Sizes]
    peak: dict[str, Sizes]
    parked: Sizes
    load: dict[str, float]
    resume: dict[str, float]
    park: float = 0.05
    exit: float = 0.2
    throughput: dict[str, float] = {}
    measured: bool = False


class Waiting(msgspec.Struct, frozen=True):
    """A request that has not ended. `since` is when it arrived, `began` when it passed the door,
    `size` its texts (encoder) or 1, `next` the model that its cycle needs after it."""

    request: int
    lane: Lane
    since: float
    size: int = 1
    cycle: str = ""
    next: str = ""
    began: float = 0.0


class ModelState(msgspec.Struct, frozen=True):
    """One model. Its door is open if it is `SERVING` and not `closed`."""

    setting: Setting
    profile: Profile
    place: Place = Place.GONE
    seat: str = ""  # where it serves, or is being loaded to
    active: dict[int, Waiting] = {}  # passed the door and have not ended, by request
    waiting: tuple[Waiting, ...] = ()  # at the door, in order of arrival
    closed: str = ""  # why its door is closed: the model that gets its room, or an order
    since: float = 0.0  # when it came to its place
    used: float = 0.0  # when its last request ended
    demand: float = 0.0  # requests, decayed with a half-life, as of `asked`
    asked: float = 0.0  # when its last request arrived
    grown: dict[str, Sizes] = {}  # by seat: the most it was ever seen to hold while serving
    failures: int = 0  # loads and crashes in a row
    fell: int = 0  # `failures` before the load that succeeded: counts on if it crashes soon
    retry_at: float = 0.0  # no load before that
    removed: bool = False  # not configured any more
    order: Place | None = None  # what an operator ordered and is not done yet
    dismissed: bool = False  # put out by an operator: nothing but a request brings it back
    busy_since: float = 0.0  # when it last stopped being idle
    done: int = 0  # texts that ended since then
    takes: dict[str, float] = {}  # seconds that a request takes, by its `next`: learned


# Events ------------------------------------------------------------------------------------------


class Arrived(msgspec.Struct, frozen=True, tag=True):
    """A request wants a model. `then` are the models that its cycle needs afterwards."""

    at: float
    request: int
    model: str
    lane: Lane = Lane.INTERACTIVE
    size: int = 1
    cycle: str = ""
    then: tuple[str, ...] = ()


class Ended(msgspec.Struct, frozen=True, tag=True):
    """A request finished, failed or was cancelled, at the door or past it."""

    at: float
    request: int
    model: str


class Moved(msgspec.Struct, frozen=True, tag=True):
    """A Load, Park or Exit effect is done: the memory is as `held` says, measured. `profile`
    replaces the model's if given. What `held` still names after an exit is not back yet, and stays
    booked until a `Measured` says that it is."""

    at: float
    model: str
    place: Place
    held: Sizes
    profile: Profile | None = None


class MoveFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker is gone: a load failed, or it crashed while it served, and its memory is back.
    `code` and `message` of the error, which those who wait for a load get; unless a `profile` says
    that the load was stopped because it took more than was thought. Then they go on waiting for
    the next one."""

    at: float
    model: str
    code: str
    message: str
    profile: Profile | None = None


class Measured(msgspec.Struct, frozen=True, tag=True):
    """What is really held now: by model, and by everything else (the server itself, other
    programs on a GPU). Only the devices that `other` names were measured; the bookings of the rest
    stay as they are."""

    at: float
    held: dict[str, Sizes]
    other: Sizes


class Ordered(msgspec.Struct, frozen=True, tag=True):
    """An operator wants a model loaded, parked or gone. If it can never fit, a `Refuse` of request
    `NOBODY` says so."""

    at: float
    model: str
    place: Place  # SERVING, PARKED or GONE


class Configured(msgspec.Struct, frozen=True, tag=True):
    """The whole of what the configuration says. Models that are not named leave when idle."""

    at: float
    limits: Sizes
    settings: dict[str, Setting]
    profiles: dict[str, Profile]  # for models not known yet


class Tick(msgspec.Struct, frozen=True, tag=True):
    """Time has passed, as asked for by `Wake`."""

    at: float


Event: TypeAlias = Arrived | Ended | Moved | MoveFailed | Measured | Ordered | Configured | Tick


# Effects -----------------------------------------------------------------------------------------


class Admit(msgspec.Struct, frozen=True, tag=True):
    """The request may use the model where it is now."""

    request: int
    model: str
    seat: str


class Load(msgspec.Struct, frozen=True, tag=True):
    """Bring a model to a seat, from wherever it is. `reserve` is what the ledger set aside."""

    model: str
    seat: str
    reserve: Sizes
    reason: str
    numbers: dict[str, float] = {}


class Park(msgspec.Struct, frozen=True, tag=True):
    model: str
    reason: str
    numbers: dict[str, float] = {}


class Exit(msgspec.Struct, frozen=True, tag=True):
    model: str
    reason: str
    numbers: dict[str, float] = {}


class Refuse(msgspec.Struct, frozen=True, tag=True):
    """The request cannot be served; `code` is one of `headrace.errors`. Request `NOBODY` is an
    operator's order."""

    request: int
    model: str
    code: str
    reason: str
    numbers: dict[str, float] = {}


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Send a `Tick` at that time. It replaces the wake that was asked for before."""

    at: float


Effect: TypeAlias = Admit | Load | Park | Exit | Refuse | Wake


class State(msgspec.Struct, frozen=True):
    """All that the arbiter knows. `held` are the ledger's bookings by model: measured where the
    model rests, reserved while it moves."""

    limits: Sizes = {}  # a device that is not named has no limit
    models: dict[str, ModelState] = {}
    held: dict[str, Sizes] = {}
    other: Sizes = {}
    fixed: Sizes = {}  # the least that `other` ever was: what no waiting brings back
    coming: dict[str, tuple[float, tuple[str, ...]]] = {}  # by cycle: last heard, what it needs
    turn: tuple[str, ...] = ()  # for whom room is being made: they go before who comes later
    unsettled: bool = False  # something waits for room or for time: an idle model is news
