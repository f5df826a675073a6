"""Which models there are: the configuration's, those on trial, and those on their way out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from headrace.config.options import Config
from headrace.errors import ConfigError, HeadraceError, ModelFailed, UnknownModel
from headrace.serving.arbiter_types import Configured, Ordered, Place, Setting
from headrace.serving.catalogue import Served, catalogue, limits
from headrace.serving.director import Director
from headrace.serving.profiles import Profiles
from headrace.types import Role

LEAVING_SECONDS = 30.0
"""How long a removed model still serves: runs of the pipeline that began before. Callers that name
it are refused at once, by the configuration."""

TWIN_IDLE_SECONDS = 30.0
TWIN_NICENESS = 19
"""A bulk twin's workers get what people leave of the processor."""


class Entry:
    """One model as it is configured. `twin` is the key of its bulk twin, if it has one; `pending`
    counts its requests."""

    def __init__(self, served: Served, key: str, *, twin: bool) -> None:
        self.served = served
        self.key = key
        self.twin = f"{key}~bulk" if twin else None
        self.pending = 0
        self.leaves_at = 0.0

    @property
    def name(self) -> str:
        return self.served.spec.name

    @property
    def keys(self) -> tuple[str, ...]:
        return (self.key,) if self.twin is None else (self.key, self.twin)


class Roster:
    """The entries by name. With `twins`, bulk work of encoders has workers of its own."""

    def __init__(
        self, config: Config, director: Director, profiles: Profiles, *, twins: bool
    ) -> None:
        self.entries: dict[str, Entry] = {}
        self._config = config
        self._director = director
        self._profiles = profiles
        self._twins = twins
        self._leaving: list[Entry] = []
        self._versions = 0
        self._lock = asyncio.Lock()

    def entry(self, model: str) -> Entry:
        """Raises `UnknownModel`."""
        entry = self.entries.get(model)
        if entry is None:
            entry = next((old for old in self._leaving if old.name == model), None)
        if entry is None:
            raise UnknownModel(model, self.entries)
        return entry

    async def begin(self) -> None:
        wanted = catalogue(self._config)
        self.entries = {name: self._new(served) for name, served in wanted.items()}
        await self._tell()

    async def configure(self, config: Config) -> None:
        """Serve what `config` says from now on. Requests in progress end where they began; a model
        that is replaced goes on serving until the new one is loaded, and stays if that fails.
        Raises `ConfigError` then, and nothing has changed."""
        async with self._lock:
            wanted = catalogue(config)
            before, self._config = self._config, config
            entries = {
                name: self._kept(served) or self._new(served) for name, served in wanted.items()
            }
            try:
                await self._try([e for e in entries.values() if self._replaces(e)])
            except BaseException as error:
                self._config = before
                for entry in entries.values():
                    if self.entries.get(entry.name) is not entry:
                        self._drop(entry)
                await self._tell()
                if isinstance(error, HeadraceError):
                    raise ConfigError(f"nothing was changed: {error.message}") from error
                raise
            for old in self.entries.values():
                if entries.get(old.name) is not old:
                    old.leaves_at = time.monotonic() + LEAVING_SECONDS
                    self._leaving.append(old)
            for entry in entries.values():
                entry.served = wanted[entry.name]
            self.entries = entries
            await self._tell()

    def _kept(self, served: Served) -> Entry | None:
        old = self.entries.get(served.spec.name)
        return old if old is not None and old.served.spec == served.spec else None

    def _replaces(self, entry: Entry) -> bool:
        """Does it take the place of one that has a worker?"""
        old = self.entries.get(entry.name)
        if old is None or old is entry:
            return False
        return self._director.state.models[old.key].place is not Place.GONE

    async def _try(self, entries: Sequence[Entry]) -> None:
        await self._tell(entries)
        for entry in entries:
            await self.order(entry.key, Place.SERVING)

    def _new(self, served: Served) -> Entry:
        key = served.spec.name
        if key in self._director.groups:
            self._versions += 1
            key = f"{key}@{self._versions}"
        entry = Entry(served, key, twin=self._twins and _may_have_twin(served, self._config))
        for each in entry.keys:
            nice = TWIN_NICENESS if each == entry.twin else 0
            self._director.add(each, served.spec, nice)
        return entry

    def _drop(self, entry: Entry) -> None:
        for key in entry.keys:
            self._director.retire(key)

    async def _tell(self, more: Sequence[Entry] = ()) -> None:
        """Tell the arbiter of every model there is."""
        settings, profiles = {}, {}
        seats = _seats(self._config) | set(self._director.gpus.names())
        for entry in self._all(more):
            served = entry.served
            for key in entry.keys:
                settings[key] = Setting(device="cpu") if key == entry.twin else served.setting
                if key not in self._director.state.models:
                    profiles[key] = await asyncio.to_thread(
                        self._profiles.get, served.spec, served.size_hint, seats
                    )
        rooms = await asyncio.to_thread(self._director.gpus.rooms)
        sizes = {name: room.total for name, room in rooms.items()} | limits(self._config)
        told = Configured(time.monotonic(), sizes, settings, profiles)
        self._director.tell(told)

    def _all(self, more: Sequence[Entry]) -> Iterator[Entry]:
        staying = {entry.key: entry for entry in (*self.entries.values(), *self._leaving, *more)}
        yield from staying.values()

    async def order(self, key: str, place: Place) -> None:
        """Bring a key to a place, and return when it is there; a request may move it on at once.
        Raises `ConfigError` if it can never fit, `ModelFailed` if it cannot be loaded, is removed,
        or is ordered elsewhere meanwhile."""
        director = self._director
        failures = director.state.models[key].failures
        refused = director.refusals[key]
        director.tell(Ordered(time.monotonic(), key, place))

        def over() -> bool:
            model = director.state.models.get(key)
            return (
                model is None
                or model.place is place
                or model.order is not place
                or model.failures > failures
                or director.refusals[key] > refused
            )

        await director.until(over)
        model = director.state.models.get(key)
        if model is None:
            raise ModelFailed(f"model {key!r} was removed from the configuration meanwhile")
        if model.place is place:
            return
        if director.refusals[key] > refused:
            raise ConfigError(director.reason(key))
        if model.failures > failures:
            raise ModelFailed(director.failure(key))
        if model.order is not None:
            raise ModelFailed(f"model {key!r} was ordered to be {model.order} meanwhile")

    async def keep_house(self) -> None:
        """For ever: removed models go when their time is over, idle twins at once."""
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            over = [old for old in self._leaving if old.leaves_at <= now and not old.pending]
            if over:
                self._leaving = [old for old in self._leaving if old not in over]
                for entry in over:
                    self._drop(entry)
                await self._tell()
            for entry in self.entries.values():
                if entry.twin is not None and self._idle(entry.twin, now):
                    self._director.tell(Ordered(now, entry.twin, Place.GONE))

    def _idle(self, key: str, now: float) -> bool:
        model = self._director.state.models[key]
        busy = model.active or model.waiting or model.place is not Place.SERVING
        return not busy and now - max(model.used, model.since) > TWIN_IDLE_SECONDS


def _may_have_twin(served: Served, config: Config) -> bool:
    """Bulk work of a local encoder on the processor runs in a worker of its own, with the lowest
    priority: the operating system takes the cores from it within a millisecond, where a batch
    under way in the same worker takes a tenth of a second. Not under a memory limit, where a
    second copy would put other models out."""
    return (
        served.spec.role is not Role.GENERATOR
        and served.spec.engine in ("onnx", "llamacpp")
        and served.setting.device in ("cpu", "flex")
        and not config.devices
        and served.spec.options["replicas"] == 1
    )


def _seats(config: Config) -> set[str]:
    named = {model.device for model in config.models.values()}
    named |= {device for model in config.models.values() for device in model.devices}
    named |= set(config.devices)
    gpus = {"cuda:0" if name == "cuda" else name for name in named if name.startswith("cuda")}
    return {"cpu"} | gpus
