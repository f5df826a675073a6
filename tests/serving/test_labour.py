"""The threads of a worker: order, cancellation, and that finishing means that all is done."""

from __future__ import annotations

import threading

from headrace.serving.labour import Labour
from headrace.serving.wire import Call, Count, Embed
from headrace.types import Lane


def test_people_go_before_bulk_and_what_is_cancelled_does_not_go() -> None:
    entered, go, done = threading.Event(), threading.Event(), list[int]()

    def work(message: Call) -> None:
        entered.set()
        go.wait(30)
        done.append(message.id)

    labour = Labour(work, 1, "test")
    labour.put(Embed(1, ("first",), "query", Lane.BULK))
    assert entered.wait(30)
    labour.put(Embed(2, ("bulk",), "passage", Lane.BULK))
    labour.put(Embed(3, ("person",), "query", Lane.INTERACTIVE))
    labour.put(Embed(4, ("gone",), "query", Lane.INTERACTIVE))
    labour.put(Count(5, ("counted",)))
    labour.cancel(4)
    labour.cancel(1)  # too late
    go.set()
    labour.finish()
    assert done == [1, 3, 5, 2]


def test_as_many_compute_at_once_as_there_are_threads() -> None:
    together = threading.Barrier(3)
    labour = Labour(lambda message: together.wait(30) and None, 3, "test")
    for id in range(1, 4):
        labour.put(Count(id, ("text",)))
    labour.finish()
    assert not together.broken
