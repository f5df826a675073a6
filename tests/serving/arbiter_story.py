"""Tells the arbiter stories: events in, decisions out."""

from __future__ import annotations

from typing import Any

from headrace.serving.arbiter import decide
from headrace.serving.arbiter_types import (
    NOBODY,
    Arrived,
    Configured,
    Effect,
    Ended,
    Event,
    Moved,
    MoveFailed,
    Place,
    Profile,
    Setting,
    Sizes,
    State,
    Tick,
    Wake,
)
from headrace.types import Lane

MIB = 1 << 20


def profile(size: int, **more: Any) -> Profile:
    """On the processor: `size` MiB, 10 while parked, a second to load, 0.2 to resume."""
    sizes = {"host": size * MIB}
    fields: dict[str, Any] = {
        "serving": {"cpu": sizes},
        "peak": {"cpu": sizes},
        "parked": {"host": 10 * MIB},
        "load": {"cpu": 1.0},
        "resume": {"cpu": 0.2},
    }
    return Profile(**(fields | more))


def on_both(**more: Any) -> Profile:
    """100 MiB on either seat, ten times faster on the GPU, 0.2 s to move there."""
    here, there = {"host": 100 * MIB}, {"cuda:0": 100 * MIB}
    return profile(
        0,
        serving={"cpu": here, "cuda:0": there},
        peak={"cpu": here, "cuda:0": there},
        load={"cpu": 1.0, "cuda:0": 1.0},
        resume={"cpu": 0.2, "cuda:0": 0.2},
        throughput={"cpu": 100.0, "cuda:0": 1000.0},
        **more,
    )


class Story:
    """Tells events, a second apart unless `now` is moved, and ends what was begun on demand."""

    def __init__(self, limits: dict[str, int], **models: tuple[Setting, Profile]) -> None:
        self.now = 100.0
        self.state = State()
        self.effects: tuple[Effect, ...] = ()
        self.requests = NOBODY
        self.limits = {device: size * MIB for device, size in limits.items()}
        self.settings = {name: setting for name, (setting, _) in models.items()}
        self.profiles = {name: known for name, (_, known) in models.items()}
        self.configure()

    def tell(self, event: Event) -> list[Effect]:
        """What follows, without wakes."""
        self.state, self.effects = decide(self.state, event)
        return [effect for effect in self.effects if not isinstance(effect, Wake)]

    def configure(self) -> list[Effect]:
        return self.tell(Configured(self.now, self.limits, self.settings, self.profiles))

    def ask(self, model: str, lane: Lane = Lane.INTERACTIVE, **more: Any) -> list[Effect]:
        self.requests += 1
        return self.tell(Arrived(self.now, self.requests, model, lane, **more))

    def end(self, request: int, model: str) -> list[Effect]:
        return self.tell(Ended(self.now, request, model))

    def tick(self, seconds: float) -> list[Effect]:
        self.now += seconds
        return self.tell(Tick(self.now))

    def arrive_at(self, model: str, held: Sizes | None = None) -> list[Effect]:
        """Its move ends, as it was meant to."""
        it = self.state.models[model]
        if it.place is Place.LOADING:
            place, sizes = Place.SERVING, it.profile.serving[it.seat]
        elif it.place is Place.PARKING:
            place, sizes = Place.PARKED, it.profile.parked
        else:
            assert it.place is Place.EXITING
            place, sizes = Place.GONE, {}
        return self.tell(Moved(self.now, model, place, sizes if held is None else held))

    def fail(self, model: str) -> list[Effect]:
        return self.tell(MoveFailed(self.now, model, "model_failed", "it fell"))

    def serve(self, *models: str) -> Story:
        """Each of them serves, idle."""
        for model in models:
            self.ask(model)
            self.arrive_at(model)
            self.end(self.requests, model)
        return self

    def place(self, model: str) -> Place:
        return self.state.models[model].place

    def wakes(self) -> list[float]:
        return [effect.at for effect in self.effects if isinstance(effect, Wake)]


def on_host(limit: int = 250, **sizes: int) -> Story:
    cpu = Setting(device="cpu")
    return Story({"host": limit}, **{name: (cpu, profile(size)) for name, size in sizes.items()})


def kinds(effects: list[Effect]) -> list[tuple[str, str]]:
    return [(type(effect).__name__, getattr(effect, "model", "")) for effect in effects]
