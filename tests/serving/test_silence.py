"""What is a hang and what is not, by a clock of the test."""

from __future__ import annotations

from headrace.serving.silence import Kind, Silence


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def verdicts(
    seconds: float,
    *,
    pulse: bool = True,
    steps: bool = False,
    owed: bool = True,
    count: bool = False,
) -> list[str]:
    """What is said in the course of that time, with a limit of 8 s."""
    clock = Clock()
    silence = Silence(8.0, clock)
    silence.pulsed(1)
    since = {Kind.WORK: clock.now} if owed else {}
    found = []
    for step in range(int(seconds / silence.period)):
        clock.now += silence.period
        if pulse:
            silence.pulsed(step if steps else 1)
        if count:
            silence.heard(Kind.COUNT)
        found.append(silence.verdict(since))
    return found


def test_a_worker_that_owes_and_does_not_move_hangs_after_the_limit_and_not_before() -> None:
    found = verdicts(8)
    assert not any(found[:-1])
    assert "no progress for 8 s" in found[-1]


def test_steps_are_progress_and_counting_is_none() -> None:
    assert not any(verdicts(100, steps=True))
    assert "no progress" in verdicts(8, count=True)[-1]


def test_a_worker_that_owes_nothing_may_be_silent() -> None:
    assert not any(verdicts(100, owed=False))


def test_a_worker_without_a_pulse_hangs_also_if_it_owes_nothing() -> None:
    assert "no life" in verdicts(8, pulse=False, owed=False)[-1]


def test_a_pause_of_ours_is_not_held_against_the_worker() -> None:
    clock = Clock()
    silence = Silence(8.0, clock)
    silence.start()
    owed = {Kind.WORK: clock.now}
    clock.now += 60  # this process was stopped
    assert not silence.verdict(owed)
    for _ in range(7):
        clock.now += 1
        silence.pulsed(0 if clock.now < 166 else 1)
        assert not silence.verdict(owed)
    clock.now += 1
    silence.pulsed(1)
    assert not silence.verdict(owed)
    for _ in range(7):
        clock.now += 1
        silence.pulsed(1)
        said = silence.verdict(owed)
    assert "no progress" in said


def test_a_reply_is_progress_for_its_kind() -> None:
    clock = Clock()
    silence = Silence(8.0, clock)
    owed = {Kind.COUNT: clock.now, Kind.WORK: clock.now}
    for _ in range(7):
        clock.now += 1
        silence.pulsed(0)
        assert not silence.verdict(owed)
    silence.heard(Kind.WORK)
    clock.now += 1
    silence.pulsed(0)
    assert "no progress" in silence.verdict(owed)  # of the count
    assert not silence.verdict({Kind.WORK: 100.0})
