from __future__ import annotations

from headrace.serving.paces import CERTAIN, COLD_SECONDS, FRESH_SECONDS, KEPT, PROBE_SECONDS, Paces


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_usual_is_what_most_do_not_exceed() -> None:
    paces = Paces()
    assert paces.usual("a") is None
    for value in range(1, 12):
        paces.note("a", float(value))
    assert paces.usual("a") == 10
    assert paces.usual("a", part=0.5) == 7
    assert paces.usual("a", part=CERTAIN) == 11
    assert paces.usual("b") is None


def test_outliers_do_not_count() -> None:
    paces = Paces()
    for value in (1.0, 1.0, 1.0, 99.0, 1.0, 1.0, 1.0):
        paces.note("a", value)
    assert paces.usual("a") == 1


def test_a_cold_start_does_not_count_once_there_are_others() -> None:
    paces = Paces()
    for value in (60.0, 1.0, 1.0, 1.0):
        paces.note("a", value)
    assert paces.usual("a", part=CERTAIN) == 1


def test_a_cold_start_alone_is_soon_forgotten() -> None:
    clock = Clock()
    paces = Paces(clock)
    paces.note("a", 60)
    assert paces.usual("a") == 60
    clock.now = COLD_SECONDS + 1
    assert paces.usual("a") is None


def test_another_size_is_taken_in_proportion() -> None:
    paces = Paces()
    for _ in range(5):
        paces.note("a", 2.0, 1000)
    assert paces.usual("a", 500) == 1
    assert paces.usual("a", 2000) == 4


def test_values_of_that_size_are_preferred() -> None:
    paces = Paces()
    for _ in range(6):
        paces.note("a", 2.0, 1000)
        paces.note("a", 0.1, 500)  # not in proportion: most of it was known already
    assert paces.usual("a", 520) == 0.104
    assert paces.usual("a", 1000) == 2


def test_what_was_given_up_would_have_taken_longer() -> None:
    paces = Paces()
    paces.note_given_up("a", 1)
    assert paces.usual("a") == 2


def test_only_the_last_values_count_and_only_while_they_are_fresh() -> None:
    clock = Clock()
    paces = Paces(clock)
    paces.note("a", 1000)
    for _ in range(KEPT):
        paces.note("a", 1)
    assert paces.usual("a") == 1
    clock.now = FRESH_SECONDS + 1
    assert paces.usual("a") is None
    paces.note("a", 5)
    assert paces.usual("a") == 5


def test_one_tries_again_what_was_too_slow_and_the_others_wait_for_it() -> None:
    clock = Clock()
    paces = Paces(clock)
    assert paces.foreseen("a") is None
    assert paces.foreseen("a") is None  # nothing is known: all try
    paces.note_given_up("a", 4)
    clock.now = FRESH_SECONDS + 1
    assert [paces.foreseen("a") for _ in range(3)] == [None, 8, 8]
    clock.now += PROBE_SECONDS + 1
    assert [paces.foreseen("a") for _ in range(2)] == [None, 8]
    paces.note("a", 1)
    assert paces.foreseen("a") == 1
