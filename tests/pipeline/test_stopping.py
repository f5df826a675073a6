"""The stop rule against value iteration, and the structure that its derivation claims."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.pipeline.stopping import Economics, advantage, thresholds

economics = st.builds(
    Economics,
    retrieval=st.floats(1e-4, 0.3),
    reasoning=st.floats(0, 0.5),
    gain=st.floats(0.1, 1),
    success=st.floats(0.1, 1),
)


def value_iteration(e: Economics, points: int = 2001) -> np.ndarray:
    """Whether retrieving is best, at `points` places of x in [0, 1]: the fixed point of the
    Bellman equation, between the places by a straight line."""
    x = np.linspace(0, 1, points)
    stop = np.maximum(0, x - e.reasoning)
    value = stop.copy()
    chance = e.success * x
    while True:
        after = np.interp(x + e.gain * (1 - x), x, value)
        retrieve = -e.retrieval + chance * after + (1 - chance) * value
        new = np.maximum(stop, retrieve)
        if np.abs(new - value).max() < 1e-10:
            return np.asarray(retrieve > stop + 1e-9)
        value = new


@pytest.mark.parametrize(
    "e",
    [
        Economics(0.01, 0.02, 0.5, 0.9),
        Economics(0.05, 0.2, 0.5, 0.8),
        Economics(0.02, 0.0, 0.9, 0.5),
        Economics(0.1, 0.4, 0.7, 1.0),
        Economics(0.3, 0.1, 0.2, 0.3),
    ],
)
def test_it_is_what_value_iteration_finds(e: Economics) -> None:
    best = value_iteration(e)
    x = np.linspace(0, 1, len(best))
    low, high = thresholds(e)
    clear = (np.abs(x - low) > 0.005) & (np.abs(x - high) > 0.005)
    assert (best[clear] == ((x > low) & (x < high))[clear]).all()


@settings(max_examples=40)
@given(economics)
def test_two_thresholds_in_order_and_retrieval_only_between_them(e: Economics) -> None:
    rule = thresholds(e)
    assert 0 <= rule.low <= rule.high <= 1
    for x in np.linspace(0.003, 0.997, 60):
        if min(abs(x - rule.low), abs(x - rule.high)) > 0.004:
            assert rule.go_on(float(x)) == (advantage(e, float(x)) > 0)


def width(e: Economics) -> tuple[float, float]:
    rule = thresholds(e)
    return rule if rule.low < rule.high else (1.0, 0.0)


@settings(max_examples=40)
@given(economics, st.floats(1.05, 3))
def test_a_dearer_retrieval_narrows_the_range_and_a_larger_gain_raises_its_end(
    e: Economics, factor: float
) -> None:
    low, high = width(e)
    dearer_low, dearer_high = width(e._replace(retrieval=e.retrieval * factor))
    assert dearer_low >= low - 0.004
    assert dearer_high <= high + 0.004
    surer_low, surer_high = width(e._replace(success=min(1.0, e.success * factor)))
    assert surer_low <= low + 0.004
    assert surer_high >= high - 0.004
    _, larger_high = width(e._replace(gain=min(1.0, e.gain * factor)))
    assert larger_high >= high - 0.004


def test_the_upper_threshold_has_a_closed_form() -> None:
    e = Economics(0.05, 0.2, 0.5, 0.8)
    ratio = e.retrieval / (e.success * e.gain)
    assert thresholds(e).high == pytest.approx((1 + (1 - 4 * ratio) ** 0.5) / 2, abs=1e-4)


def test_a_retrieval_that_costs_more_than_it_brings_is_never_made() -> None:
    low, high = thresholds(Economics(0.5, 0.1, 0.3, 0.3))
    assert low == high


@pytest.mark.parametrize(
    "e", [Economics(0, 0, 0.5, 0.5), Economics(0.1, 0, 0, 0.5), Economics(0.1, 0, 0.5, 1.5)]
)
def test_what_is_no_chance_or_cost_is_refused(e: Economics) -> None:
    with pytest.raises(ValueError, match="costs above 0"):
        thresholds(e)
