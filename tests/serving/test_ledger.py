"""Bookings: what is free, what is missing, what is too much."""

from __future__ import annotations

from headrace.serving.ledger import Ledger, growth, larger


def ledger() -> Ledger:
    return Ledger({"host": 700, "cuda:0": 100}, {"host": 190}, {"a": {"host": 300, "disk": 5}})


def test_free_is_the_limit_less_bookings_and_all_else() -> None:
    assert ledger().free() == {"host": 210, "cuda:0": 100}


def test_a_device_without_a_limit_lacks_nothing() -> None:
    assert ledger().lack({"disk": 10**9}) == {}


def test_lack_counts_what_is_promised_to_others() -> None:
    assert ledger().lack({"host": 210}) == {}
    assert ledger().lack({"host": 210}, {"host": 40}) == {"host": 40}
    assert ledger().lack({"host": 0}, {"host": 400}) == {}


def test_over_names_the_limits_that_are_passed() -> None:
    books = ledger()
    assert books.over() == {}
    books.book("b", {"cuda:0": 130, "host": 10})
    assert books.over() == {"cuda:0": 30}
    assert books.lack({"cuda:0": 1}) == {"cuda:0": 31}


def test_booking_replaces_and_forgets_what_holds_nothing() -> None:
    books = ledger()
    books.book("a", {"host": 100})
    assert books.of("a") == {"host": 100}
    books.book("a", {"host": 0})
    assert "a" not in books.held


def test_a_ledger_leaves_its_source_alone() -> None:
    held = {"a": {"host": 1}}
    Ledger({}, {}, held).book("b", {"host": 2})
    assert held == {"a": {"host": 1}}


def test_larger_and_growth_go_by_device() -> None:
    assert larger({"x": 1, "y": 5}, {"x": 3, "z": 2}) == {"x": 3, "y": 5, "z": 2}
    assert growth({"x": 1, "y": 5}, {"x": 3}) == {"x": 2, "y": -5}
