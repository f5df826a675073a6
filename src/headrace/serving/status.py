"""What the pool tells of itself, to operators and metrics."""

from __future__ import annotations

from typing import Protocol

import msgspec

from headrace.serving.arbiter_types import Place, Sizes
from headrace.types import Role


class ModelStatus(msgspec.Struct, frozen=True):
    """One model now. Sizes in bytes, `waiting_seconds` of the longest waiting request. `problem`
    says why it cannot serve (a circuit that is open, a load that failed); empty if it can.
    `waited` and `worked` are seconds of all its calls so far, by verb, and at the `door`."""

    name: str
    role: Role
    engine: str
    place: Place
    seat: str
    held: Sizes
    active: int
    waiting: int
    waiting_seconds: float
    workers: tuple[int, ...]  # PIDs
    restarts: int
    problem: str = ""
    waited: dict[str, float] = {}
    worked: dict[str, float] = {}


class DeviceStatus(msgspec.Struct, frozen=True):
    """One device of the ledger, in bytes; `limit` 0 means none. `measured` is what the models and
    the rest really hold, `booked` what the ledger says."""

    name: str
    limit: int
    booked: int
    measured: int


class Decision(msgspec.Struct, frozen=True):
    """One decision of the arbiter, and why. `at` is seconds since the epoch."""

    at: float
    model: str
    what: str  # load, park, exit, refuse
    reason: str
    numbers: dict[str, float] = {}


class Operated(Protocol):
    """What an operator may do with a pool of models, beside `Models`."""

    def states(self) -> list[ModelStatus]: ...

    def devices(self) -> list[DeviceStatus]: ...

    def decisions(self) -> list[Decision]:
        """The last 1,000, oldest first."""
        ...

    async def order(self, model: str, place: Place) -> None:
        """Bring a model to `SERVING`, `PARKED` or `GONE`, and return when it is there. Raises
        `UnknownModel`, `ConfigError` if it can never fit, or what its load raises."""
        ...

    async def reset(self, model: str) -> None:
        """Kill the model's workers; its running requests fail with `ModelFailed`, waiting ones
        wait for the new worker. Raises `UnknownModel`."""
        ...
