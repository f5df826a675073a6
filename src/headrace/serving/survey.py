"""What the whole server tells of itself: the state of its models, and the metrics of all processes.

The host answers, since it alone knows them all; any process may ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec

from headrace.serving.control import LocalControl, Topic
from headrace.serving.host import HostServer
from headrace.serving.status import DeviceStatus, ModelStatus
from headrace.telemetry import (
    Families,
    Family,
    Metrics,
    counter,
    gauge,
    lasting,
    merge,
    of_process,
)

ANSWER_SECONDS = 2.0
"""How long metrics wait for a server process; what it said last stands for it then."""


class Nothing(msgspec.Struct, frozen=True):
    """A question that says all by its topic."""


class Survey(msgspec.Struct, frozen=True):
    """The models and devices now. `failures` says why a model that was to be loaded at the start
    could not be, by its name."""

    models: tuple[ModelStatus, ...]
    devices: tuple[DeviceStatus, ...]
    failures: dict[str, str]

    def problems(self) -> dict[str, str]:
        """Why a model cannot serve, by its name."""
        return self.failures | {m.name: m.problem for m in self.models if m.problem}


class Scrape(msgspec.Struct, frozen=True):
    families: Families


MODELS = Topic("models.states", Nothing, Survey)
METRICS = Topic("metrics", Nothing, Scrape)
"""Of all processes; asked of the host."""
OWN_METRICS = Topic("metrics.own", Nothing, Scrape)
"""Of one server process; the host asks."""


def answer_own_metrics(control: LocalControl, metrics: Metrics) -> None:
    """In a server process that is not the host."""

    async def answer(_: Nothing) -> Scrape:
        return Scrape(metrics.families())

    control.answer(OWN_METRICS, answer)


class Surveyor:
    """Answers `MODELS` and `METRICS` in the host. `failures` is kept by whoever loads models at
    the start; `servers` is set where there are server processes beside the host, `restarts` tells
    how often one was replaced."""

    def __init__(
        self,
        metrics: Metrics,
        models: Callable[[], Sequence[ModelStatus]],
        devices: Callable[[], Sequence[DeviceStatus]],
    ) -> None:
        self.failures: Mapping[str, str] = {}
        self.servers: HostServer | None = None
        self.restarts = 0
        self._metrics = metrics
        self._models = models
        self._devices = devices
        self._last: dict[int, Families] = {}
        self._ended: Families = ()
        self._one_at_a_time = asyncio.Lock()

    def register(self, control: LocalControl) -> None:
        control.answer(MODELS, self.survey)
        control.answer(METRICS, self.scrape)

    async def survey(self, _: Nothing) -> Survey:
        return Survey(tuple(self._models()), tuple(self._devices()), dict(self.failures))

    async def scrape(self, _: Nothing) -> Scrape:
        own = (*self._metrics.families(), *self._of_models(), *self._of_devices())
        if self.servers is None:
            return Scrape(own)
        async with self._one_at_a_time:
            own = (*of_process(own, "host"), *self._of_servers(self.servers))
            return Scrape(merge((own, self._ended, *await self._gather(self.servers))))

    async def _gather(self, servers: HostServer) -> list[Families]:
        """What each server process says, and said before it ended: a sum must not fall."""
        replies = await servers.ask_all(OWN_METRICS, Nothing(), ANSWER_SECONDS)
        names = servers.links()
        for number in self._last.keys() - names.keys():
            self._ended = merge((self._ended, lasting(self._last.pop(number))))
        for number, reply in replies.items():
            if number in names:
                self._last[number] = of_process(reply.families, names[number])
        return list(self._last.values())

    def _of_servers(self, servers: HostServer) -> tuple[Family, ...]:
        return (
            gauge(
                "headrace_server_processes",
                "Server processes that are there now.",
                [({}, len(servers.links()))],
            ),
            counter(
                "headrace_server_process_restarts",
                "Server processes started in place of one that had ended.",
                [({}, self.restarts)],
            ),
            gauge(
                "headrace_host_requests",
                "Model calls and questions of server processes under way in the host.",
                [({}, servers.work)],
            ),
        )

    def _of_models(self) -> tuple[Family, ...]:
        found = [({"model": status.name}, status) for status in self._models()]
        return (
            gauge(
                "headrace_model_place",
                "1 for where the model is: gone, loading, serving, parking, parked, exiting.",
                [(labels | {"place": s.place, "seat": s.seat}, 1) for labels, s in found],
            ),
            gauge(
                "headrace_model_active_requests",
                "Requests that a model works on.",
                [(labels, s.active) for labels, s in found],
            ),
            gauge(
                "headrace_model_waiting_requests",
                "Requests that wait for a model to be where it can work.",
                [(labels, s.waiting) for labels, s in found],
            ),
            gauge(
                "headrace_model_waiting_seconds",
                "How long the first of them has waited.",
                [(labels, s.waiting_seconds) for labels, s in found],
            ),
            gauge(
                "headrace_model_held_bytes",
                "Memory that a model's workers hold, measured.",
                [(labels | {"device": d}, n) for labels, s in found for d, n in s.held.items()],
            ),
            gauge(
                "headrace_model_workers",
                "Live worker processes of a model.",
                [(labels, len(s.workers)) for labels, s in found],
            ),
            counter(
                "headrace_model_worker_restarts",
                "Workers started in place of one that had died.",
                [(labels, s.restarts) for labels, s in found],
            ),
            counter(
                "headrace_model_waited_seconds",
                "Time that calls waited for their turn, by verb, and at the door of a model that "
                "was not where it can work.",
                [(labels | {"verb": v}, n) for labels, s in found for v, n in s.waited.items()],
            ),
            counter(
                "headrace_model_worked_seconds",
                "Time that calls were worked for, by verb.",
                [(labels | {"verb": v}, n) for labels, s in found for v, n in s.worked.items()],
            ),
            gauge(
                "headrace_model_unavailable",
                "1 where a model cannot serve; /readyz says why.",
                [(labels, int(bool(s.problem))) for labels, s in found],
            ),
        )

    def _of_devices(self) -> tuple[Family, ...]:
        found = [({"device": status.name}, status) for status in self._devices()]
        return (
            gauge(
                "headrace_device_limit_bytes",
                "Memory that may be taken on a device.",
                [(labels, s.limit) for labels, s in found if s.limit],
            ),
            gauge(
                "headrace_device_booked_bytes",
                "Memory of a device that the ledger has given out.",
                [(labels, s.booked) for labels, s in found],
            ),
            gauge(
                "headrace_device_measured_bytes",
                "Memory of a device that is really held.",
                [(labels, s.measured) for labels, s in found],
            ),
        )
