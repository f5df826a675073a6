"""The choice of victims: the set of least price that is large enough."""

from __future__ import annotations

from itertools import product

import hypothesis.strategies as st
from hypothesis import given, settings

from headrace.serving.arbiter_types import Place
from headrace.serving.eviction import Way, cheapest, price_of


def way(model: str, frees: int, seconds: float, *, soon: int = 0, busy: int = 0) -> Way:
    return Way(model, Place.GONE, {"host": frees}, (soon, busy, seconds))


def names(chosen: list[Way] | None) -> str:
    return "".join(sorted(one.model for one in chosen or ()))


def test_no_more_than_needed() -> None:
    found = cheapest([[way("a", 100, 1)], [way("b", 100, 2)]], {"host": 90})
    assert names(found) == "a"


def test_two_small_ones_if_they_cost_less_than_a_large_one() -> None:
    options = [[way("a", 100, 9)], [way("b", 50, 1)], [way("c", 50, 1)]]
    assert names(cheapest(options, {"host": 100})) == "bc"


def test_what_a_cycle_needs_next_goes_last_then_what_is_busy() -> None:
    options = [[way("a", 9, 0.1, soon=1)], [way("b", 9, 5.0, busy=1)], [way("c", 9, 50.0)]]
    assert names(cheapest(options, {"host": 9})) == "c"
    assert names(cheapest(options[:2], {"host": 9})) == "b"


def test_parking_is_taken_if_it_frees_enough() -> None:
    park, leave = Way("a", Place.PARKED, {"host": 50}, (0, 0, 0.1)), way("a", 80, 2.0)
    assert cheapest([[park, leave]], {"host": 40}) == [park]
    assert cheapest([[park, leave]], {"host": 60}) == [leave]


def test_parking_may_not_fill_another_device() -> None:
    park = Way("a", Place.PARKED, {"cuda:0": 50, "host": -50}, (0, 0, 0.1))
    leave = Way("a", Place.GONE, {"cuda:0": 50, "host": 10}, (0, 0, 2.0))
    assert cheapest([[park, leave]], {"cuda:0": 50, "host": -60}) == [park]
    assert cheapest([[park, leave]], {"cuda:0": 50, "host": -20}) == [leave]


def test_none_if_all_together_are_not_enough() -> None:
    assert cheapest([[way("a", 5, 1)], [way("b", 5, 1)]], {"host": 11}) is None
    assert cheapest([], {"host": 1}) is None


def test_many_candidates_still_make_room_without_waste() -> None:
    options = [[way(f"m{n:02}", 10 + n, 1.0 + n)] for n in range(30)]
    found = cheapest(options, {"host": 100})
    assert found is not None
    freed = sum(one.frees["host"] for one in found)
    assert freed >= 100
    assert all(freed - one.frees["host"] < 100 for one in found)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 1), st.integers(0, 1), st.integers(1, 20)),
        min_size=1,
        max_size=6,
    ),
    lack=st.integers(1, 30),
)
def test_the_search_finds_what_trying_everything_finds(
    sizes: list[tuple[int, int, int, int]], lack: int
) -> None:
    options = [
        [way(str(n), size, float(seconds), soon=soon, busy=busy)]
        for n, (size, soon, busy, seconds) in enumerate(sizes)
    ]
    sets = [
        [one[0] for one, taken in zip(options, mask, strict=True) if taken]
        for mask in product((0, 1), repeat=len(options))
    ]
    enough = [each for each in sets if sum(one.frees["host"] for one in each) >= lack]
    found = cheapest(options, {"host": lack})
    if not enough:
        assert found is None
    else:
        assert found is not None
        assert price_of(found) == min(price_of(each) for each in enough)
