"""Whose turn it is, under any order of events: nothing lost, nothing twice, nobody starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.lanes import Lanes
from headrace.types import Lane

AGE = 5.0

steps = st.lists(
    st.tuples(
        st.sampled_from(["interactive", "bulk", "take", "remove"]),
        st.floats(0, 3),  # seconds since the step before
        st.integers(0, 50),  # which one to remove
    ),
    max_size=200,
)


@given(steps)
def test_no_item_is_lost_or_comes_twice_and_each_lane_keeps_its_order(
    events: list[tuple[str, float, int]],
) -> None:
    lanes: Lanes[int] = Lanes(AGE)
    model: dict[Lane, list[int]] = {lane: [] for lane in Lane}
    now, number = 0.0, 0
    for what, pause, which in events:
        now += pause
        if what == "take":
            lane = lanes.turn(now)
            assert (lane is None) == (not any(model.values()))
            assert lanes.take(now) == (model[lane].pop(0) if lane else None)
        elif what == "remove":
            waiting = [item for lane in Lane for item in model[lane]]
            item = waiting[which % len(waiting)] if waiting else -1
            assert lanes.remove(item) == bool(waiting)
            assert not lanes.remove(item)
            for left in model.values():
                if item in left:
                    left.remove(item)
        else:
            lanes.put(number, Lane(what), now)
            model[Lane(what)].append(number)
            number += 1
        assert len(lanes) == sum(map(len, model.values()))


@given(st.lists(st.floats(0.01, 2 * AGE), min_size=20, max_size=100))
def test_bulk_never_starves_and_people_wait_for_one_bulk_step_at_most(
    durations: list[float],
) -> None:
    """Both lanes always have work; each step takes as long as it takes."""
    lanes: Lanes[int] = Lanes(AGE)
    for number in range(2 * len(durations)):
        lanes.put(number, Lane.INTERACTIVE if number % 2 else Lane.BULK, 0.0)
    now, bulk_went, before = 0.0, 0.0, None
    for seconds in durations:
        lane = lanes.turn(now)
        lanes.take(now)
        if lane is Lane.BULK:
            assert before is not Lane.BULK
            assert now - bulk_went >= AGE
            bulk_went = now
        else:
            assert now - bulk_went < AGE or before is Lane.BULK
        before, now = lane, now + seconds


def test_a_lane_that_waits_alone_goes_at_once() -> None:
    lanes: Lanes[str] = Lanes(AGE)
    assert lanes.turn(0) is None
    assert lanes.take(0) is None
    for item in "ab":
        lanes.put(item, Lane.BULK, 0)
    assert lanes.take(0) == "a"
    assert lanes.take(0) == "b"


def test_bulk_that_came_late_does_not_inherit_the_age_of_what_went_before() -> None:
    lanes: Lanes[str] = Lanes(AGE)
    lanes.put("old person", Lane.INTERACTIVE, 0)
    lanes.put("person", Lane.INTERACTIVE, 0)
    lanes.put("bulk", Lane.BULK, 100)
    assert lanes.take(100) == "old person"
    assert lanes.turn(100 + AGE - 0.1) is Lane.INTERACTIVE
    assert lanes.turn(100 + AGE) is Lane.BULK


def test_the_place_in_the_queue_is_known() -> None:
    lanes: Lanes[str] = Lanes(AGE)
    lanes.put("bulk", Lane.BULK, 0)
    assert lanes.ahead("bulk") == 0
    lanes.put("person", Lane.INTERACTIVE, 1)
    assert (lanes.ahead("person"), lanes.ahead("bulk")) == (0, 1)
