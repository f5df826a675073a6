"""The table of sessions, without a clock: rules one by one, then any sequence of them."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from headrace.errors import InvalidField, Overloaded, UnknownSession
from headrace.serving.session_table import GRACE_SECONDS, Limits, OpenSessions, Session, Table

LIMITS = Limits(ttl=60, max_ttl=100, per_owner=3, total=5)


def table() -> Table:
    numbers = itertools.count(1)
    return Table(lambda: f"s{next(numbers)}")


def order(owner: str = "ann", count: int = 1, **more: object) -> OpenSessions:
    key = str(more.pop("key", "K"))
    return OpenSessions(key, owner, ("laws",), ("public",), count, **more)  # type: ignore[arg-type]


def ids(sessions: tuple[Session, ...]) -> list[str]:
    return [session.id for session in sessions]


def test_several_are_opened_or_none() -> None:
    made = table()
    assert ids(made.open(0, order(count=2), LIMITS)) == ["s1", "s2"]
    with pytest.raises(Overloaded, match="'ann' holds 2 sessions, and 2 more"):
        made.open(0, order(count=2), LIMITS)
    assert len(made) == 2
    made.open(0, order("bob", 3), LIMITS)
    with pytest.raises(Overloaded, match="'bob' holds 3, 'ann' holds 2"):
        made.open(0, order("eve"), LIMITS)
    assert len(made) == 5


def test_the_limit_says_when_a_place_may_be_free() -> None:
    made = table()
    made.open(0, order(count=2, ttl_seconds=10.0), LIMITS)
    made.open(0, order(ttl_seconds=50.0), LIMITS)
    with pytest.raises(Overloaded) as full:
        made.open(4, order(), LIMITS)
    assert full.value.retry_after == 6
    made.open(10, order(count=2), LIMITS)


def test_another_keys_owners_are_not_named() -> None:
    made = table()
    made.open(0, order("secret-agent", 3, key="A"), LIMITS)
    made.open(0, order("ann", 2), LIMITS)
    with pytest.raises(Overloaded) as full:
        made.open(0, order("bob"), LIMITS)
    assert "secret-agent" not in full.value.message
    assert "other keys hold 3" in full.value.message


def test_another_key_sees_nothing() -> None:
    made = table()
    (opened,) = made.open(0, order(key="A"), LIMITS)
    for ask in (made.show, made.use, made.release):
        with pytest.raises(UnknownSession, match="POST /api/sessions/ID/renew"):
            ask(1, "B", opened.id)
    assert made.listed(1, "B", None) == ()
    assert ids(made.listed(1, "A", "ann")) == [opened.id]
    assert made.listed(1, "A", "bob") == ()


@pytest.mark.parametrize("count", [0, 4])
def test_a_count_that_can_never_be_had_is_refused(count: int) -> None:
    with pytest.raises(InvalidField, match="count"):
        table().open(0, order(count=count), LIMITS)


@pytest.mark.parametrize("ttl", [0.0, 100.5, float("nan")])
def test_a_life_out_of_bounds_is_refused(ttl: float) -> None:
    with pytest.raises(InvalidField, match="ttl_seconds"):
        table().open(0, order(ttl_seconds=ttl), LIMITS)


def test_it_ends_with_its_time_and_a_renewal_gives_it_anew() -> None:
    made = table()
    (opened,) = made.open(0, order(), LIMITS)
    made.renew(50, "K", opened.id, None, LIMITS)
    assert made.show(109, "K", opened.id).expires_in_seconds == 1
    made.renew(109, "K", opened.id, 5, LIMITS)
    with pytest.raises(UnknownSession):
        made.show(114, "K", opened.id)
    with pytest.raises(UnknownSession):
        made.renew(114, "K", opened.id, None, LIMITS)


def test_use_counts_and_does_nothing_else() -> None:
    made = table()
    (opened,) = made.open(0, order(), LIMITS)
    made.use(10, "K", opened.id)
    used = made.use(30, "K", opened.id)
    assert (used.requests, used.idle_seconds, used.expires_in_seconds) == (2, 0, 30)


def test_held_it_does_not_end_and_let_go_it_ends_soon() -> None:
    made = table()
    (opened,) = made.open(0, order(), LIMITS)
    for now in range(0, 200, 20):
        assert made.hold(now, "K", opened.id, "c1", 45).held
    made.hold(190, "K", opened.id, "c2", 45)
    made.let_go(200, "K", opened.id, "c1")
    assert made.show(210, "K", opened.id).held  # by the other connection
    made.let_go(211, "K", opened.id, "c2")
    assert not made.show(211 + GRACE_SECONDS - 0.1, "K", opened.id).held
    with pytest.raises(UnknownSession):
        made.show(211 + GRACE_SECONDS, "K", opened.id)


@pytest.mark.parametrize("again", ["hold", "renew"])
def test_an_owner_that_comes_back_in_time_keeps_it(again: str) -> None:
    made = table()
    (opened,) = made.open(0, order(), LIMITS)
    made.hold(0, "K", opened.id, "c1", 45)
    made.let_go(1, "K", opened.id, "c1")
    if again == "hold":
        made.hold(2, "K", opened.id, "c2", 45)
    else:
        made.renew(2, "K", opened.id, None, LIMITS)
    assert made.show(40, "K", opened.id)


def test_a_holder_whose_process_died_silently_loses_its_lease() -> None:
    made = table()
    (opened,) = made.open(0, order(), LIMITS)
    made.hold(0, "K", opened.id, "c1", 20)
    assert made.show(19, "K", opened.id).held
    assert not made.show(21, "K", opened.id).held
    assert made.sweep(20 + GRACE_SECONDS) == [opened.id]


def test_it_ends_with_its_owners_process() -> None:
    made = table()
    one, other = made.open(0, order(pid=7), LIMITS) + made.open(0, order(pid=8), LIMITS)
    assert made.pids() == {7, 8}
    assert made.sweep(1, {7}) == [one.id]
    assert made.show(1, "K", other.id).owner_pid == 8


class AnySequence(RuleBasedStateMachine):
    """Against a model that knows no rule but the limits and the time of each session."""

    @initialize()
    def start(self) -> None:
        self.table = table()
        self.now = 0.0
        self.known: dict[str, tuple[str, float]] = {}  # owner, end

    def live(self) -> dict[str, tuple[str, float]]:
        return {id: kept for id, kept in self.known.items() if self.now < kept[1]}

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(
        owner=st.sampled_from(["ann", "bob", "eve"]),
        count=st.integers(1, 3),
        ttl=st.floats(0.5, 100),
    )
    def open(self, owner: str, count: int, ttl: float) -> None:
        before = self.live()
        mine = sum(kept[0] == owner for kept in before.values())
        fits = mine + count <= LIMITS.per_owner and len(before) + count <= LIMITS.total
        try:
            opened = self.table.open(self.now, order(owner, count, ttl_seconds=ttl), LIMITS)
        except Overloaded:
            assert not fits
            assert len(self.table) == len(before)
            return
        assert fits
        assert len(opened) == count
        self.known.update((session.id, (owner, self.now + ttl)) for session in opened)

    @rule(pick=st.integers(0, 100), ttl=st.floats(0.5, 100))
    def renew(self, pick: int, ttl: float) -> None:
        id = f"s{pick % 12 + 1}"
        if id in self.live():
            self.table.renew(self.now, "K", id, ttl, LIMITS)
            self.known[id] = (self.known[id][0], self.now + ttl)
        else:
            with pytest.raises(UnknownSession):
                self.table.renew(self.now, "K", id, ttl, LIMITS)

    @rule(pick=st.integers(0, 100))
    def release(self, pick: int) -> None:
        id = f"s{pick % 12 + 1}"
        if id in self.live():
            self.table.release(self.now, "K", id)
            del self.known[id]
        else:
            with pytest.raises(UnknownSession):
                self.table.release(self.now, "K", id)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "table"):
            return
        found = self.table.listed(self.now, "K", None)
        assert sorted(ids(found)) == sorted(self.live())
        assert len(found) <= LIMITS.total
        by_owner = Counter(session.owner for session in found)
        assert not by_owner or max(by_owner.values()) <= LIMITS.per_owner


TestAnySequence = AnySequence.TestCase
TestAnySequence.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
