"""The arbiter against a world that does anything at any time: what must always hold."""

from __future__ import annotations

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headrace.serving.arbiter import decide
from headrace.serving.arbiter_types import (
    NOBODY,
    Admit,
    Arrived,
    Configured,
    Effect,
    Ended,
    Event,
    Exit,
    Load,
    Measured,
    Moved,
    MoveFailed,
    Ordered,
    Park,
    Place,
    Profile,
    Refuse,
    Setting,
    Sizes,
    State,
    Tick,
    Wake,
)
from headrace.serving.ledger import larger
from headrace.types import Lane

LIMITS: Sizes = {"host": 1000, "cuda:0": 800}
OTHER: Sizes = {"host": 100, "cuda:0": 0}
NAMES = ("a", "b", "c", "d")
MODELS = st.sampled_from(NAMES)


@st.composite
def profiles(draw: st.DrawFn, seats: list[str]) -> Profile:
    serving: dict[str, Sizes] = {}
    peak: dict[str, Sizes] = {}
    for seat in seats:
        size = draw(st.integers(50, 950))
        device = "host" if seat == "cpu" else seat
        serving[seat] = {device: size, "host": size if seat == "cpu" else 40}
        more = draw(st.integers(0, 100))
        peak[seat] = larger(serving[seat], {device: size + more, "host": 40 + more})
    parked = {"host": draw(st.integers(10, 200))} | draw(st.sampled_from([{}, {"cuda:0": 30}]))
    return Profile(
        serving=serving,
        peak=peak,
        parked=parked,
        load=dict.fromkeys(seats, draw(st.sampled_from([0.5, 3.0]))),
        resume=dict.fromkeys(seats, draw(st.sampled_from([0.1, 0.5, 4.0]))),
    )


@st.composite
def configurations(draw: st.DrawFn) -> Configured:
    chosen, known = {}, {}
    for name in NAMES:
        device = draw(st.sampled_from(["cpu", "cuda:0", "flex"]))
        chosen[name] = Setting(
            device=device,
            give_back=draw(st.sampled_from(["when_needed", "when_needed", "after_use"])),
            standby=draw(st.booleans()),
            encoder=draw(st.booleans()),
        )
        known[name] = draw(profiles(["cpu", "cuda:0"] if device == "flex" else [device]))
    return Configured(0.0, LIMITS, chosen, known)


class Anything(RuleBasedStateMachine):
    """`moves` are effects not yet reported; `held` is what is really held; a load may fail."""

    @initialize(configured=configurations())
    def begin(self, configured: Configured) -> None:
        self.now = 0.0
        self.state = State()
        self.moves: dict[str, Effect] = {}
        self.held: dict[str, Sizes] = {}
        self.waiting: dict[int, str] = {}
        self.active: dict[int, str] = {}
        self.requests = NOBODY
        self.wake = 0.0
        self.tell(Measured(0.0, {}, OTHER))
        self.tell(configured)

    def tell(self, event: Event) -> None:
        before, again = self.state, decide(self.state, event)
        frozen = msgspec.json.encode(before)
        self.state, effects = decide(before, event)
        assert (self.state, effects) == again, "the same state and event, another decision"
        assert msgspec.json.encode(before) == frozen, "the old state was changed"
        for effect in effects:
            self.perform(effect)

    def perform(self, effect: Effect) -> None:
        match effect:
            case Admit(request, model, seat):
                assert self.waiting.pop(request) == model, "admitted twice, or nobody asked"
                assert model not in self.moves
                assert self.state.models[model].seat == seat
                self.active[request] = model
            case Refuse(request, model):
                assert request == NOBODY or self.waiting.pop(request) == model
                assert effect.reason
            case Load(model, seat, reserve):
                assert not any(isinstance(move, Load) for move in self.moves.values())
                self.move(effect)
                self.held[model] = larger(
                    self.held.get(model, {}), self.state.models[model].profile.peak[seat]
                )
                assert reserve == self.held[model]
            case Park(model):
                self.move(effect)
                parked = self.state.models[model].profile.parked
                self.held[model] = larger(self.held[model], parked)
            case Exit():
                self.move(effect)
            case Wake(at):
                self.wake = at

    def move(self, effect: Load | Park | Exit) -> None:
        assert effect.model not in self.moves, "two moves of one model at once"
        assert effect.model not in self.active.values(), "a busy model was moved"
        assert effect.reason
        self.moves[effect.model] = effect

    def finish(self, model: str) -> None:
        effect, profile = self.moves.pop(model), self.state.models[model].profile
        if isinstance(effect, Load):
            place, self.held[model] = Place.SERVING, profile.serving[effect.seat]
        elif isinstance(effect, Park):
            place, self.held[model] = Place.PARKED, profile.parked
        else:
            place, self.held[model] = Place.GONE, {}
        self.tell(Moved(self.now, model, place, self.held[model]))

    @rule(seconds=st.floats(0.001, 20))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.tell(Tick(self.now))

    @rule(
        model=MODELS,
        lane=st.sampled_from(list(Lane)),
        size=st.sampled_from([1, 1, 40]),
        cycle=st.sampled_from(["", "x", "y"]),
        then=st.lists(MODELS, max_size=2).map(tuple),
    )
    def arrives(self, model: str, lane: Lane, size: int, cycle: str, then: tuple[str, ...]) -> None:
        self.requests += 1
        self.waiting[self.requests] = model
        then = then if cycle else ()
        self.tell(Arrived(self.now, self.requests, model, lane, size, cycle, then))

    @precondition(lambda self: self.active)
    @rule(data=st.data())
    def ends(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.active)))
        self.tell(Ended(self.now, request, self.active.pop(request)))

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.waiting)))
        self.tell(Ended(self.now, request, self.waiting.pop(request)))

    @precondition(lambda self: self.moves)
    @rule(data=st.data(), well=st.sampled_from([True, True, True, False]))
    def move_ends(self, data: st.DataObject, well: bool) -> None:
        model = data.draw(st.sampled_from(sorted(self.moves)))
        if well:
            self.finish(model)
        else:
            del self.moves[model]
            self.held[model] = {}
            self.tell(MoveFailed(self.now, model, "model_failed", "it fell"))

    @rule(model=MODELS)
    def crashes(self, model: str) -> None:
        if self.state.models[model].place is Place.SERVING and model not in self.moves:
            self.held[model] = {}
            lost = [request for request, name in self.active.items() if name == model]
            for request in lost:
                del self.active[request]
            self.tell(MoveFailed(self.now, model, "model_failed", "it fell"))
            for request in lost:
                self.tell(Ended(self.now, request, model))

    @rule(model=MODELS, place=st.sampled_from([Place.SERVING, Place.PARKED, Place.GONE]))
    def operator(self, model: str, place: Place) -> None:
        self.tell(Ordered(self.now, model, place))  # type: ignore[arg-type]

    @rule()
    def measured(self) -> None:
        self.tell(Measured(self.now, dict(self.held), OTHER))

    @invariant()
    def within_the_limits(self) -> None:
        for device, limit in LIMITS.items():
            real = sum(held.get(device, 0) for held in self.held.values())
            booked = sum(held.get(device, 0) for held in self.state.held.values())
            assert real <= booked, "more is held than is booked"
            assert booked + OTHER[device] <= limit, "the ledger passed a limit"

    @invariant()
    def the_state_is_true(self) -> None:
        models = self.state.models
        waiting = {one.request: n for n, m in models.items() for one in m.waiting}
        active = {request: n for n, m in models.items() for request in m.active}
        assert waiting == self.waiting, "a request was lost at a door"
        assert active == self.active

    def teardown(self) -> None:
        """When everything that was begun ends, everybody gets in or gets an answer."""
        for _ in range(400):
            if not self.waiting or not hasattr(self, "state"):
                return
            if self.moves:
                self.now += 0.1
                self.finish(min(self.moves))
            elif self.active:
                self.now += 0.1
                request = min(self.active)
                self.tell(Ended(self.now, request, self.active.pop(request)))
            else:
                assert self.wake > self.now, f"nobody wakes up for {self.waiting}"
                self.now = self.wake
                self.tell(Tick(self.now))
            self.within_the_limits()
            self.the_state_is_true()
        raise AssertionError(f"still waiting after all this time: {self.waiting}")


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


def test_an_order_that_has_no_room_to_park_is_refused_and_keeps_nobody_waiting() -> None:
    """Found by the machine above: weights may take more room in the host's memory than a GPU."""

    def profile(size: int, parked: int) -> Profile:
        sizes: dict[str, Sizes] = {"cpu": {"host": size}}
        return Profile(sizes, sizes, {"host": parked}, {"cpu": 0.5}, {"cpu": 0.1})

    state, now = State(), 0.0
    settings = {name: Setting(device="cpu") for name in "ab"}
    events: list[Event] = [
        Measured(now, {}, {"host": 0}),
        Configured(now, {"host": 1000}, settings, {"a": profile(50, 300), "b": profile(900, 10)}),
        Arrived(now, 1, "a"),
        Moved(now, "a", Place.SERVING, {"host": 50}),
        Ended(now, 1, "a"),
        Arrived(now, 2, "b"),
        Moved(now, "b", Place.SERVING, {"host": 900}),
    ]
    for event in events:
        state, _ = decide(state, event)
    state, effects = decide(state, Ordered(now, "a", Place.PARKED))
    assert [(one.request, one.model) for one in effects if isinstance(one, Refuse)] == [
        (NOBODY, "a")
    ]
    _, effects = decide(state, Arrived(now, 3, "a"))
    assert effects == (Admit(3, "a", "cpu"),)
