"""Steps 8 to 10 of `decide`: who gets room, who leaves for it, what is foreseen."""

from __future__ import annotations

import pytest
from tests.serving.arbiter_story import MIB, Story, kinds, on_both, on_host, profile

from headrace.serving.arbiter import decide
from headrace.serving.arbiter_needs import BULK_PATIENCE, NO_ROOM_SECONDS, PATIENCE, RESIDENCY
from headrace.serving.arbiter_types import (
    Admit,
    Load,
    Measured,
    Ordered,
    Park,
    Place,
    Profile,
    Refuse,
    Setting,
    Tick,
)
from headrace.types import Lane

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


def test_8_4_room_that_was_made_for_bulk_work_is_not_taken_by_who_comes_later() -> None:
    story = on_host(a=200, b=200).serve("a")
    assert kinds(story.ask("b", Lane.BULK)) == [("Park", "a")]
    assert story.ask("a") == []
    assert kinds(story.arrive_at("a")) == [("Load", "b")]


def on_gpu(host_when_parked: int) -> Profile:
    """100 MiB of the GPU and 5 of the host; a load takes long."""
    sizes = {"cuda:0": 100 * MIB, "host": 5 * MIB}
    return profile(
        0,
        serving={"cuda:0": sizes},
        peak={"cuda:0": sizes},
        parked={"host": host_when_parked * MIB},
        load={"cuda:0": 100.0},
        resume={"cuda:0": 0.1},
    )


def test_8_5_parking_is_booked_where_the_weights_go_while_they_are_still_where_they_were() -> None:
    gpu = Setting(device="cuda:0")
    story = Story({"cuda:0": 150, "host": 200}, a=(gpu, on_gpu(80)), b=(gpu, on_gpu(80)))
    story.serve("a")
    assert kinds(story.ask("b")) == [("Park", "a")]
    assert story.state.held["a"] == {"cuda:0": 100 * MIB, "host": 80 * MIB}


def test_8_5_parking_waits_for_the_room_that_the_weights_need() -> None:
    gpu, cpu = Setting(device="cuda:0"), Setting(device="cpu")
    story = Story(
        {"cuda:0": 150, "host": 100},
        a=(gpu, on_gpu(80)),
        b=(gpu, on_gpu(80)),
        c=(cpu, profile(60, parked={"host": 60 * MIB})),
    ).serve("a", "c")
    assert kinds(story.ask("b")) == [("Exit", "c")]
    assert kinds(story.arrive_at("c")) == [("Park", "a")]
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


def test_the_worked_example_of_the_documentation() -> None:
    """The table of docs/scheduler.md, line by line."""

    def model(serving: int, peak: int) -> Profile:
        return profile(
            serving,
            peak={"cpu": {"host": peak * MIB}},
            parked={"host": 100 * MIB},
            load={"cpu": 1.3},
            resume={"cpu": 0.5},
        )

    def books() -> tuple[int, int]:
        booked = sum(sizes["host"] for sizes in story.state.held.values()) // MIB
        return booked, 700 - 190 - booked

    cpu = Setting(device="cpu")
    story = Story({"host": 700}, embedder=(cpu, model(270, 290)), generator=(cpu, model(290, 310)))
    story.tell(Measured(story.now, {}, {"host": 190 * MIB}))
    start = story.now
    assert kinds(story.ask("embedder")) == [("Load", "embedder")]
    assert books() == (290, 220)
    story.now = start + 1.3
    assert kinds(story.arrive_at("embedder")) == [("Admit", "embedder")]
    story.end(1, "embedder")
    assert books() == (270, 240)
    story.now = start + 1.4
    (park,) = story.ask("generator")
    assert isinstance(park, Park)
    assert "70 MiB more of host" in park.reason
    assert park.numbers["cost_s"] == pytest.approx(0.55, abs=0.01)
    story.now = start + 1.45
    assert kinds(story.arrive_at("embedder")) == [("Load", "generator")]
    assert books() == (410, 100)
    story.now = start + 2.0
    assert story.ask("embedder") == []
    story.now = start + 2.75
    assert kinds(story.arrive_at("generator")) == [("Admit", "generator")]
    assert books() == (390, 120)
    assert story.wakes()
    story.now = start + 4.0
    assert kinds(story.end(2, "generator")) == [("Park", "generator")]
    story.now = start + 4.05
    assert kinds(story.arrive_at("generator")) == [("Load", "embedder")]
    assert books() == (390, 120)
    story.now = start + 4.55
    assert kinds(story.arrive_at("embedder")) == [("Admit", "embedder")]
    assert books() == (370, 140)
