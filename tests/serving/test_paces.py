from __future__ import annotations

from headrace.serving.paces import FRESH_SECONDS, KEPT, Paces


def test_the_usual_is_what_most_do_not_exceed() -> None:
    paces = Paces()
    assert paces.usual("a") is None
    for value in range(1, 11):
        paces.note("a", float(value))
    assert paces.usual("a") == 9
    assert paces.usual("b") is None


def test_what_was_given_up_would_have_taken_longer() -> None:
    paces = Paces()
    paces.note_given_up("a", 1)
    assert paces.usual("a") == 2


def test_only_the_last_values_count_and_only_while_they_are_fresh() -> None:
    now = 0.0
    paces = Paces(lambda: now)
    paces.note("a", 1000)
    for _ in range(KEPT):
        paces.note("a", 1)
    assert paces.usual("a") == 1
    now = FRESH_SECONDS + 1
    assert paces.usual("a") is None
    paces.note("a", 5)
    assert paces.usual("a") == 5
