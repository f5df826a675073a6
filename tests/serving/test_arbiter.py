"""Each numbered step of `decide`, by a short story. Sizes are small numbers; nothing waits."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.serving.arbiter import COMING_SECONDS, decide
from headrace.serving.arbiter_needs import BULK_PATIENCE, NO_ROOM_SECONDS, PATIENCE, RESIDENCY
from headrace.serving.arbiter_types import (
    NOBODY,
    Admit,
    Arrived,
    Configured,
    Effect,
    Ended,
    Event,
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


# 1: the fast path --------------------------------------------------------------------------------


def test_1_a_serving_model_lets_in_at_once() -> None:
    story = on_host(a=100).serve("a")
    assert story.ask("a") == [Admit(2, "a", "cpu")]
    assert story.state.models["a"].active.keys() == {2}


def test_1_an_unknown_model_is_refused_by_name() -> None:
    (refused,) = on_host(a=100).ask("b")
    assert isinstance(refused, Refuse)
    assert (refused.code, refused.request) == ("model_not_found", 1)
    assert "known: a" in refused.reason


def test_1_the_end_of_one_of_several_changes_nothing_else() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.ask("a")
    story.ask("a")
    story.ask("b")
    assert story.end(2, "a") == []
    assert kinds(story.end(3, "a")) == [("Park", "a")]


# 2: what is recorded -----------------------------------------------------------------------------


def test_2_who_waits_for_a_failed_load_gets_its_error_and_the_next_waits_for_the_pause() -> None:
    story = on_host(a=100)
    story.ask("a")
    (refused,) = story.fail("a")
    assert isinstance(refused, Refuse)
    assert (refused.code, refused.reason) == ("model_failed", "it fell")
    assert story.ask("a") == []
    assert story.wakes() == [story.now + 1]
    assert kinds(story.tick(1)) == [("Load", "a")]


def test_2_pauses_double_up_to_a_minute_and_success_ends_them() -> None:
    story = on_host(a=100)
    pauses = []
    for _ in range(9):
        story.ask("a")
        story.fail("a")
        pauses.append(story.state.models["a"].retry_at - story.now)
        story.now = story.state.models["a"].retry_at
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    story.serve("a")
    assert story.state.models["a"].failures == 0


def test_2_a_worker_that_crashes_soon_after_its_load_counts_on() -> None:
    story = on_host(a=100)
    for failures in (1, 2, 3):
        story.now += 60
        story.serve("a")
        story.fail("a")
        assert story.state.models["a"].failures == failures
    story.now += 60
    story.serve("a")
    story.now += 60
    story.fail("a")
    assert story.state.models["a"].failures == 1


def test_2_a_crash_ends_the_active_and_keeps_the_waiting() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.ask("a")
    story.fail("a")
    assert story.state.models["a"].active == {}
    assert story.state.held == {}
    assert story.end(2, "a") == []


def test_2_speed_is_learned_when_an_encoder_falls_idle() -> None:
    story = on_host(a=100).serve("a")
    story.ask("a", size=64)
    story.now += 2
    story.end(2, "a")
    assert story.state.models["a"].profile.throughput["cpu"] == pytest.approx(32)


def test_2_how_long_requests_take_is_learned_by_what_their_cycle_needs_next() -> None:
    story = on_host(limit=1000, a=100, b=100).serve("b")
    story.ask("a", cycle="x", then=("b",))
    story.arrive_at("a")
    story.ask("a")
    story.now += 1
    story.end(2, "a")
    story.now += 4
    story.end(3, "a")
    assert story.state.models["a"].takes == {"b": 1.0, "": 5.0}


def test_2_what_was_not_measured_stays_booked() -> None:
    gpu = profile(
        0,
        serving={"cuda:0": {"cuda:0": 50 * MIB, "host": 5 * MIB}},
        peak={"cuda:0": {"cuda:0": 50 * MIB, "host": 5 * MIB}},
        load={"cuda:0": 1.0},
        resume={"cuda:0": 0.1},
    )
    story = Story({"cuda:0": 60}, a=(Setting(device="cuda:0"), gpu)).serve("a")
    story.tell(Measured(story.now, {"a": {"host": 7 * MIB}}, {"host": 0}))
    assert story.state.held["a"] == {"cuda:0": 50 * MIB, "host": 7 * MIB}


def test_2_a_grown_model_is_booked_and_next_time_reserved_with_its_larger_size() -> None:
    story = on_host(a=100).serve("a")
    story.tell(Measured(story.now, {"a": {"host": 130 * MIB}}, {"host": 0}))
    story.tell(Measured(story.now, {"a": {"host": 90 * MIB}}, {"host": 0}))
    assert story.state.held["a"] == {"host": 130 * MIB}
    story.fail("a")
    story.now += 60
    (load,) = story.ask("a")
    assert isinstance(load, Load)
    assert load.reserve == {"host": 130 * MIB}


# 3, 4: forget and refuse -------------------------------------------------------------------------


def test_3_an_announcement_is_forgotten_when_its_cycle_is_silent() -> None:
    story = on_host(a=100, b=100).serve("a", "b")
    story.ask("a", cycle="c", then=("b",))
    story.tick(COMING_SECONDS * 3)
    assert "c" in story.state.coming, "its request is still here"
    story.end(3, "a")
    story.tick(COMING_SECONDS - 1)
    assert "c" in story.state.coming
    story.tick(1)
    assert story.state.coming == {}


def test_3_the_last_step_of_a_cycle_ends_its_announcement() -> None:
    story = on_host(a=100, b=100).serve("a", "b")
    story.ask("a", cycle="c", then=("b",))
    story.ask("b", cycle="c")
    assert story.state.coming == {}


def test_4_1_who_waits_for_a_removed_model_is_refused() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.ask("a")
    story.ask("b")
    del story.settings["b"]
    (refused,) = story.configure()
    assert isinstance(refused, Refuse)
    assert (refused.model, refused.code) == ("b", "model_not_found")
    assert "b" not in story.state.models


def test_4_2_after_five_failures_the_circuit_refuses_until_one_trial() -> None:
    story = on_host(a=100)
    for _ in range(5):
        story.ask("a")
        story.fail("a")
        story.now = story.state.models["a"].retry_at
    story.now -= 10
    (refused,) = story.ask("a")
    assert isinstance(refused, Refuse)
    assert refused.reason == "model 'a' failed 5 times in a row; it is tried again in 10 s"
    story.now += 10
    assert kinds(story.ask("a")) == [("Load", "a")]
    assert story.ask("a") == [], "while the trial runs, others wait for it"


def test_4_3_what_can_never_fit_is_refused_with_the_arithmetic() -> None:
    story = on_host(limit=700, a=812)
    story.tell(Measured(story.now, {}, {"host": 190 * MIB}))
    (refused,) = story.ask("a")
    assert isinstance(refused, Refuse)
    assert refused.code == "config_error"
    assert refused.reason == (
        "model 'a' needs 812 MiB to load; devices.host.limit is 700 MiB minus 190 MiB held by the "
        "server itself"
    )


def test_4_3_an_order_that_can_never_be_done_is_refused_to_nobody() -> None:
    story = on_host(limit=50, a=100)
    (refused,) = story.tell(Ordered(story.now, "a", Place.SERVING))
    assert isinstance(refused, Refuse)
    assert refused.request == NOBODY


def test_4_3_a_pinned_model_takes_its_room_for_good() -> None:
    pinned = Setting(device="cpu", pin=True)
    story = Story(
        {"host": 250}, a=(pinned, profile(200)), b=(Setting(device="cpu"), profile(100))
    ).serve("a")
    (refused,) = story.ask("b")
    assert isinstance(refused, Refuse)
    assert "200 MiB held by pinned models" in refused.reason


# 5, 6, 7: let in, leave, over the limit ----------------------------------------------------------


def test_5_a_loaded_model_lets_in_all_who_wait_before_it_can_be_a_victim() -> None:
    story = on_host(a=200, b=200)
    story.ask("a")
    story.ask("a")
    story.ask("b")
    assert story.arrive_at("a") == [Admit(1, "a", "cpu"), Admit(2, "a", "cpu")]


def test_6_1_a_removed_model_leaves_when_its_work_is_done() -> None:
    story = on_host(a=100).serve("a")
    story.ask("a")
    story.settings.clear()
    assert story.configure() == []
    assert kinds(story.end(2, "a")) == [("Exit", "a")]
    story.arrive_at("a")
    assert story.state.models == {}


@pytest.mark.parametrize(("place", "kind"), [(Place.PARKED, "Park"), (Place.GONE, "Exit")])
def test_6_2_an_operator_puts_a_model_out_when_it_is_idle(place: Any, kind: str) -> None:
    story = on_host(a=100).serve("a")
    story.ask("a")
    assert story.tell(Ordered(story.now, "a", place)) == []
    assert story.ask("a") == [], "its door is closed"
    assert kinds(story.end(2, "a")) == [(kind, "a")]
    assert kinds(story.arrive_at("a")) == [("Load", "a")], "for the one who waits"


def test_6_2_an_order_to_park_what_is_gone_loads_it_first() -> None:
    story = on_host(a=100)
    assert kinds(story.tell(Ordered(story.now, "a", Place.PARKED))) == [("Load", "a")]
    assert kinds(story.arrive_at("a")) == [("Park", "a")]
    story.arrive_at("a")
    assert story.state.models["a"].order is None


def test_6_3_a_model_on_a_seat_that_is_forbidden_now_leaves_it() -> None:
    story = Story({}, a=(Setting(), on_both())).serve("a")
    assert story.state.models["a"].seat == "cpu"
    story.settings["a"] = Setting(device="cuda:0")
    assert kinds(story.configure()) == [("Exit", "a")]
    story.arrive_at("a")
    (load,) = story.ask("a")
    assert isinstance(load, Load)
    assert load.seat == "cuda:0"


def test_6_4_after_use_a_model_gives_back_unless_a_cycle_announced_it() -> None:
    after_use = Setting(device="cpu", give_back="after_use")
    cpu = Setting(device="cpu")
    story = Story({}, a=(after_use, profile(100)), b=(cpu, profile(100)))
    story.ask("a")
    story.arrive_at("a")
    story.ask("b", cycle="c", then=("a",))
    story.arrive_at("b")
    assert story.end(1, "a") == []
    story.ask("a", cycle="c")
    assert kinds(story.end(3, "a")) == [("Park", "a")]


def test_7_a_limit_that_is_lowered_puts_the_cheapest_idle_model_out() -> None:
    story = on_host(a=120, b=120).serve("a", "b")
    story.ask("b")
    story.limits = {"host": 200 * MIB}
    (park,) = story.configure()
    assert isinstance(park, Park)
    assert park.model == "a"
    assert park.reason == "host is 40 MiB over its limit of 200 MiB"


def test_7_if_all_are_busy_one_door_closes_until_it_is_idle() -> None:
    story = on_host(a=200).serve("a")
    story.ask("a")
    story.tell(Measured(story.now, {"a": {"host": 300 * MIB}}, {"host": 0}))
    assert story.state.models["a"].closed
    assert kinds(story.end(2, "a")) == [("Park", "a")]


# 8: needs ----------------------------------------------------------------------------------------


def test_8_people_go_before_bulk_which_ages() -> None:
    story = on_host(limit=1000, a=100, b=100, c=100)
    story.ask("a")
    story.ask("b", Lane.BULK)
    story.ask("c")
    assert kinds(story.arrive_at("a")) == [("Admit", "a"), ("Load", "c")]
    story = on_host(limit=1000, a=100, b=100, c=100)
    story.ask("a")
    story.ask("b", Lane.BULK)
    story.now += 31
    story.ask("c")
    assert kinds(story.arrive_at("a")) == [("Admit", "a"), ("Load", "b")]


def test_8_3_a_load_reserves_its_peak_and_says_why() -> None:
    story = on_host(a=100)
    (load,) = story.ask("a")
    assert isinstance(load, Load)
    assert load.reserve == story.state.held["a"] == {"host": 100 * MIB}
    assert load.reason == (
        "1 waiting, the longest for 0.00 s; takes 100 MiB of host (250 free) and about 1.00 s"
    )
    assert load.numbers["needs_mib"] == 100


def test_8_3_one_load_at_a_time() -> None:
    story = on_host(a=100, b=100)
    assert kinds(story.ask("a")) == [("Load", "a")]
    assert story.ask("b") == []
    assert kinds(story.arrive_at("a")) == [("Admit", "a"), ("Load", "b")]


def test_8_4_the_room_of_an_eviction_goes_to_whom_it_was_made_for() -> None:
    story = on_host(a=200, b=200).serve("a")
    assert kinds(story.ask("b")) == [("Park", "a")]
    assert story.ask("a") == []
    assert kinds(story.arrive_at("a")) == [("Load", "b")]


def test_8_4_a_load_waits_until_the_memory_is_measured_to_be_back() -> None:
    story = on_host(limit=205, a=200, b=200).serve("a")
    assert kinds(story.ask("b")) == [("Exit", "a")]
    assert story.arrive_at("a", {"host": 100 * MIB}) == []
    measured = Measured(story.now, {"a": {"host": 0}}, {"host": 0})
    assert kinds(story.tell(measured)) == [("Load", "b")]


def test_8_5_a_busy_model_closes_when_one_more_request_would_cost_more_than_its_wait() -> None:
    """n = 1, E = 10 s, T = 0.05 (park) + 1 (load) + 0.05 + 0.2 (and back): from R = 4.35 s on."""
    story = on_host(a=200, b=200)
    story.ask("a")
    story.arrive_at("a")
    story.now += 10
    story.end(1, "a")
    story.ask("a")
    assert story.ask("b") == []
    assert story.wakes() == [pytest.approx(story.now + 10 - (10 - 1.3) / 2)]
    story.tick(5.6)
    assert kinds(story.ask("a")) == [("Admit", "a")], "its work is ten seconds again"
    story.tick(5.7)
    assert story.state.models["a"].closed == "b"
    assert story.ask("a") == []
    story.end(2, "a")
    assert kinds(story.end(4, "a")) == [("Park", "a")]


def test_8_5_nobody_waits_longer_than_patience_for_a_door_to_close() -> None:
    story = on_host(a=200, b=200)
    story.ask("a")
    story.arrive_at("a")
    story.now += 1000
    story.end(1, "a")
    story.ask("a")
    story.ask("b")
    story.tick(PATIENCE - 0.1)
    assert not story.state.models["a"].closed
    story.tick(0.2)
    assert story.state.models["a"].closed == "b"


def test_8_5_alternating_requests_become_batches() -> None:
    story = on_host(a=200, b=200)
    story.ask("a")
    story.ask("b")
    story.ask("a")
    story.ask("b")
    assert kinds(story.arrive_at("a")) == [("Admit", "a"), ("Admit", "a")]
    story.end(1, "a")
    assert kinds(story.end(3, "a")) == [("Park", "a")]
    story.ask("a")
    story.arrive_at("a")
    assert kinds(story.arrive_at("b")) == [("Admit", "b"), ("Admit", "b")]
    assert story.place("a") is Place.PARKED


def test_8_5_a_fresh_model_serves_for_a_while_before_its_door_closes() -> None:
    story = on_host(a=200, b=200)
    story.ask("b")
    story.now -= 100  # it seems to have waited for ever
    story.ask("a")
    story.now += 100
    story.arrive_at("b")
    assert story.wakes() == [pytest.approx(story.now + RESIDENCY * (1.0 + 0.2))]


def test_8_5_people_do_not_wait_for_bulk_work_but_bulk_waits_for_people() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.now += 100
    story.ask("a", Lane.BULK)
    story.ask("b")
    assert story.state.models["a"].closed == "b"
    story = on_host(a=200, b=200).serve("a")
    story.now += 100
    story.ask("a")
    story.ask("b", Lane.BULK)
    assert story.wakes()[0] >= story.now + BULK_PATIENCE


def test_8_5_what_a_running_cycle_needs_next_is_spared_if_anything_else_can_go() -> None:
    story = on_host(limit=320, a=100, b=100, c=100, d=100).serve("a", "b", "c")
    story.ask("c", cycle="x", then=("a",))
    story.now += 1000
    story.state = decide(story.state, Tick(story.now))[0]
    assert kinds(story.ask("d")) == [("Park", "b")]


def test_8_5_models_of_one_cycle_that_do_not_fit_together_take_turns() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.ask("a", cycle="x", then=("b", "a"))
    story.end(2, "a")
    assert kinds(story.ask("b", cycle="x", then=("a",))) == [("Park", "a")]
    story.arrive_at("a")
    story.arrive_at("b")
    story.end(3, "b")
    assert kinds(story.ask("a", cycle="x")) == [("Park", "b")]
    story.arrive_at("b")
    assert kinds(story.arrive_at("a")) == [("Admit", "a")]


def test_8_5_parking_that_does_not_make_room_is_an_exit() -> None:
    story = on_host(limit=205, a=200, b=200).serve("a")
    assert kinds(story.ask("b")) == [("Exit", "a")]


def test_8_5_a_pinned_model_and_one_that_never_gives_back_are_no_victims() -> None:
    cpu = Setting(device="cpu")
    story = Story(
        {"host": 320},
        a=(Setting(device="cpu", pin=True), profile(100)),
        b=(Setting(device="cpu", give_back="never"), profile(100)),
        c=(cpu, profile(100)),
        d=(cpu, profile(100)),
    ).serve("a", "b", "c")
    for _ in range(50):
        story.ask("c")
        story.end(story.requests, "c")
    assert kinds(story.ask("d")) == [("Park", "c")]


def test_8_6_room_that_others_hold_is_waited_for_but_not_for_ever() -> None:
    story = on_host(a=200)
    story.tell(Measured(story.now, {}, {"host": 0}))
    story.tell(Measured(story.now, {}, {"host": 100 * MIB}))
    assert story.ask("a") == []
    assert story.wakes() == [story.now + NO_ROOM_SECONDS]
    (refused,) = story.tick(NO_ROOM_SECONDS)
    assert isinstance(refused, Refuse)
    assert "lacks 50 MiB of host" in refused.reason
    story.ask("a")
    assert kinds(story.tell(Measured(story.now, {}, {"host": 0}))) == [("Load", "a")]


# 8.2: seats --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "seat"), [(1, "cpu"), (22, "cpu"), (23, "cuda:0")])
def test_8_2_the_smallest_batch_that_is_sooner_done_on_the_gpu_goes_there(
    size: int, seat: str
) -> None:
    """0.2 s + n / 1000 < n / 100 from n = 23 on."""
    (load,) = Story({}, a=(Setting(), on_both())).ask("a", size=size)
    assert isinstance(load, Load)
    assert load.seat == seat


@pytest.mark.parametrize(("size", "seat"), [(7, "cpu"), (8, "cuda:0")])
def test_8_2_a_given_threshold_is_kept(size: int, seat: str) -> None:
    (load,) = Story({}, a=(Setting(min_batch_for_gpu=8), on_both())).ask("a", size=size)
    assert isinstance(load, Load)
    assert load.seat == seat


def test_8_2_a_large_batch_moves_an_encoder_to_the_gpu_when_it_is_idle() -> None:
    story = Story({}, a=(Setting(), on_both())).serve("a")
    story.ask("a")
    assert story.ask("a", size=500) == []
    (load,) = story.end(2, "a")
    assert isinstance(load, Load)
    assert load.seat == "cuda:0"
    assert kinds(story.arrive_at("a")) == [("Admit", "a")]


def test_8_2_a_large_batch_is_served_where_it_is_if_the_gpu_is_busy() -> None:
    gpu = profile(
        0,
        serving={"cuda:0": {"cuda:0": 100 * MIB}},
        peak={"cuda:0": {"cuda:0": 100 * MIB}},
        load={"cuda:0": 1.0},
        resume={"cuda:0": 0.2},
    )
    story = Story(
        {"cuda:0": 150}, a=(Setting(), on_both()), llm=(Setting(device="cuda:0"), gpu)
    ).serve("a", "llm")
    story.ask("llm")
    assert kinds(story.ask("a", size=500)) == [("Admit", "a")]


# 9: foresight ------------------------------------------------------------------------------------


def test_9_1_what_a_running_cycle_needs_next_is_loaded_beside() -> None:
    story = on_host(a=100, b=100).serve("a")
    admit, load = story.ask("a", cycle="x", then=("b",))
    assert isinstance(load, Load)
    assert (kinds([admit]), load.model) == ([("Admit", "a")], "b")
    assert load.reason.startswith("a running cycle needs it next")


def test_9_1_it_takes_the_room_of_a_model_that_is_wanted_less() -> None:
    story = on_host(a=100, b=100, c=100).serve("a", "b")
    story.now += 1000
    assert kinds(story.ask("a", cycle="x", then=("c",))) == [("Admit", "a"), ("Park", "b")]
    assert kinds(story.arrive_at("b")) == [("Load", "c")]


def test_9_1_but_not_of_one_that_is_wanted_more() -> None:
    story = on_host(a=100, b=100, c=100).serve("a", "b")
    for _ in range(50):
        story.ask("b")
        story.end(story.requests, "b")
    assert kinds(story.ask("a", cycle="x", then=("c",))) == [("Admit", "a")]


def test_9_2_standby_models_are_loaded_where_there_is_room_and_come_back() -> None:
    cpu = Setting(device="cpu")
    story = Story(
        {"host": 250}, a=(Setting(device="cpu", standby=True), profile(200)), b=(cpu, profile(200))
    )
    assert story.place("a") is Place.LOADING
    story.arrive_at("a")
    assert kinds(story.ask("b")) == [("Park", "a")]
    story.arrive_at("a")
    story.arrive_at("b")
    story.end(1, "b")
    assert story.place("a") is Place.PARKED, "nobody leaves for it"
    story.tell(Ordered(story.now, "b", Place.GONE))
    assert kinds(story.arrive_at("b")) == [("Load", "a")]


def test_9_2_what_an_operator_put_out_stays_out_until_it_is_asked_for() -> None:
    story = Story({}, a=(Setting(device="cpu", standby=True), profile(200)))
    story.arrive_at("a")
    story.tell(Ordered(story.now, "a", Place.GONE))
    assert story.arrive_at("a") == []
    assert kinds(story.ask("a")) == [("Load", "a")]


# 10: doors ---------------------------------------------------------------------------------------


def test_10_a_door_opens_again_when_nobody_wants_its_room_any_more() -> None:
    story = on_host(a=200, b=200).serve("a")
    story.ask("a", Lane.BULK)
    story.ask("b")
    assert story.ask("a") == []
    assert story.end(3, "b") == [Admit(4, "a", "cpu")]
