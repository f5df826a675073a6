"""What is sent to a worker comes back as it was."""

from __future__ import annotations

import msgspec

from headrace.engines.base import Pair
from headrace.serving import wire
from headrace.types import Lane


def test_pairs_keep_their_order_and_a_query_is_sent_once() -> None:
    asked = [
        Pair("who", "a text"),
        Pair("what", b"codes"),
        Pair("who", ""),
        Pair("", "of no query"),
        Pair("who", b"\0"),
    ]
    sent = msgspec.msgpack.encode(wire.Score.of(7, asked, Lane.BULK))
    found = wire.to_worker.decode(sent)
    assert isinstance(found, wire.Score)
    assert found.pairs() == asked
    assert (found.id, found.lane, found.queries) == (7, Lane.BULK, ("who", "what", ""))
    many = wire.Score.of(1, [Pair("q" * 10_000, "t")] * 100, Lane.INTERACTIVE)
    assert len(msgspec.msgpack.encode(many)) < 11_000
