"""Which texts make a batch, how large it may be, and how a text's length is guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.serving.lengths import estimate
from headrace.serving.packing import LEAST_TOKENS, PADDING, STEP_SECONDS, StepSize, pack

lengths = st.lists(st.integers(2, 600), min_size=1, max_size=60)


@given(lengths, st.integers(64, 4096))
def test_a_batch_keeps_its_promises(found: list[int], budget: int) -> None:
    batch = pack(found, budget)
    assert batch == sorted(set(batch))
    assert batch[0] == 0  # the oldest is in it
    rows = [found[index] for index in batch]
    padded = len(rows) * max(rows)
    if len(rows) > 1:
        assert padded <= budget
        assert padded - sum(rows) <= PADDING * padded


@given(lengths, st.integers(64, 4096))
def test_taking_batch_after_batch_ends_with_everybody_served(found: list[int], budget: int) -> None:
    left, batches = list(enumerate(found)), 0
    seen: list[int] = []
    while left:
        batch = set(pack([length for _, length in left], budget))
        seen += [item for index, (item, _) in enumerate(left) if index in batch]
        left = [one for index, one in enumerate(left) if index not in batch]
        batches += 1
    assert sorted(seen) == list(range(len(found)))
    assert batches <= len(found)


def test_texts_of_like_length_go_together_up_to_the_budget() -> None:
    assert pack([10, 200, 11, 9, 10], 4096) == [0, 2, 3, 4]
    assert pack([10] * 10, 40) == [0, 1, 2, 3]
    assert pack([500, 10, 10], 100) == [0]


def test_who_came_first_is_not_passed_over_for_long() -> None:
    """Many texts of one length are behind a longer one: it waits for those before it alone."""
    waiting, batches = [10] * 20 + [40] + [10] * 200, 0
    while 40 in waiting:
        gone = set(pack(waiting, 100))
        waiting = [one for index, one in enumerate(waiting) if index not in gone]
        batches += 1
    assert batches <= 4


@pytest.mark.parametrize("speed", [2_000, 13_000, 100_000])
def test_the_step_settles_at_what_is_computed_in_its_time(speed: int) -> None:
    size = StepSize(1 << 20)
    for _ in range(60):
        size.learn(size.tokens, 0.002 + size.tokens / speed)
    expected = max(LEAST_TOKENS, speed * (STEP_SECONDS - 0.002))
    assert size.tokens == pytest.approx(expected, rel=0.05)


def test_small_batches_teach_nothing_and_the_limit_holds() -> None:
    size = StepSize(4096)
    before = size.tokens
    size.learn(before // 4, 10.0)
    assert size.tokens == before
    for _ in range(60):
        size.learn(size.tokens, 1e-6)
    assert size.tokens == 4096
    assert StepSize(64).tokens == 64


def test_lengths_are_guessed_by_bytes() -> None:
    assert estimate("") == 2
    assert estimate("word" * 100) == 102
    assert estimate("第四十四条") == 3 * 5 // 4 + 2
    assert estimate("\ud800") > 0  # JSON can carry a lone surrogate
