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
    """A request at the door. `size` is its texts (encoder) or 1."""

    request: int
    lane: Lane
    since: float
    size: int = 1


class ModelState(msgspec.Struct, frozen=True):
    setting: Setting
    profile: Profile
    place: Place = Place.GONE
    seat: str = ""  # where it serves, or is being loaded to
    active: tuple[int, ...] = ()  # requests that passed the door and have not ended
    waiting: tuple[Waiting, ...] = ()  # in order of arrival
    since: float = 0.0  # when it came to its place
    used: float = 0.0  # when its last request ended
    demand: float = 0.0  # requests, decayed with a half-life
    failures: int = 0  # loads in a row that failed
    retry_at: float = 0.0  # no load before that


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
    replaces the model's if given."""

    at: float
    model: str
    place: Place
    held: Sizes
    profile: Profile | None = None


class MoveFailed(msgspec.Struct, frozen=True, tag=True):
    """The worker is gone, or a load failed; `code` and `message` of the error."""

    at: float
    model: str
    code: str
    message: str


class Measured(msgspec.Struct, frozen=True, tag=True):
    """What is really held now: by model, and by everything else (the server itself, other
    programs on a GPU)."""

    at: float
    held: dict[str, Sizes]
    other: Sizes


class Ordered(msgspec.Struct, frozen=True, tag=True):
    """An operator wants a model loaded, parked or gone."""

    at: float
    model: str
    place: Literal[Place.SERVING, Place.PARKED, Place.GONE]


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
    """The request cannot be served; `code` is one of `headrace.errors`."""

    request: int
    model: str
    code: str
    reason: str
    numbers: dict[str, float] = {}


class Wake(msgspec.Struct, frozen=True, tag=True):
    """Send a `Tick` at that time, unless something else happens before."""

    at: float


Effect: TypeAlias = Admit | Load | Park | Exit | Refuse | Wake


class State(msgspec.Struct, frozen=True):
    """All that the arbiter knows. `held` are the ledger's bookings by model: measured where the
    model rests, reserved while it moves."""

    limits: Sizes = {}  # a device that is not named has no limit
    models: dict[str, ModelState] = {}
    held: dict[str, Sizes] = {}
    other: Sizes = {}
    coming: dict[str, tuple[float, tuple[str, ...]]] = {}  # by cycle: since when, what it needs
