"""Steps 1 to 7 of `decide`, each by a short story. Sizes are small numbers; nothing waits."""

from __future__ import annotations

from typing import Any

import pytest
from tests.serving.arbiter_story import MIB, Story, kinds, on_both, on_host, profile

from headrace.serving.arbiter import COMING_SECONDS
from headrace.serving.arbiter_types import (
    NOBODY,
    Admit,
    Load,
    Measured,
    Ordered,
    Park,
    Place,
    Refuse,
    Setting,
)

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
