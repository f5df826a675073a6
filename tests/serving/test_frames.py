"""Frames over a real pair of sockets: whole, split, joined, damaged."""

from __future__ import annotations

import asyncio
import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ModelFailed
from headrace.serving import frames, wire
from headrace.types import Delta


class Collector:
    def __init__(self) -> None:
        self.came: list[wire.FromWorker] = []
        self.lost: list[ModelFailed | None] = []
        self.over = asyncio.Event()
        self.frames = frames.Frames(wire.from_worker, self.came.append, self._gone)

    def _gone(self, error: ModelFailed | None) -> None:
        self.lost.append(error)
        self.over.set()


async def sent(data: bytes, size: int) -> Collector:
    """What comes of these bytes, sent in pieces of that size."""
    collector = Collector()
    for start in range(0, len(data), size):
        if collector.lost:
            break
        collector.frames.data_received(data[start : start + size])
    return collector


MESSAGES: list[wire.FromWorker] = [
    wire.Hello("1"),
    wire.Parts(1, (Delta("a"), Delta("榨")), last=True),
    wire.Array.of(2, np.arange(6, dtype=np.float32).reshape(2, 3)),
    wire.Failed(3, "overloaded", "later", 2.5),
]
BYTES = b"".join(bytes(frames.frame(message)) for message in MESSAGES)


@given(st.integers(1, len(BYTES)))
def test_messages_come_whole_however_the_bytes_are_cut(size: int) -> None:
    assert asyncio.run(sent(BYTES, size)).came == MESSAGES


async def test_an_array_keeps_its_shape_and_values() -> None:
    (came,) = (await sent(bytes(frames.frame(MESSAGES[2])), 7)).came
    assert isinstance(came, wire.Array)
    assert np.array_equal(came.values(), np.arange(6).reshape(2, 3))


async def connected() -> tuple[Collector, socket.socket]:
    ours, theirs = socket.socketpair()
    collector = Collector()
    await frames.connect(ours, collector.frames)
    return collector, theirs


@pytest.mark.parametrize("damage", [b"\0\0\0\3abc", b"\xff\xff\xff\xffabcd", b"\0\0\0\x02\x81\xa4"])
async def test_damage_closes_the_socket_and_says_so(damage: bytes) -> None:
    collector, theirs = await connected()
    with theirs:
        theirs.sendall(bytes(frames.frame(MESSAGES[0])) + damage)
        await asyncio.wait_for(collector.over.wait(), 30)
        assert theirs.recv(1) == b""
    assert collector.came == MESSAGES[:1]
    assert isinstance(collector.lost[0], ModelFailed)


async def test_the_end_is_told_once_and_what_is_sent_then_is_dropped() -> None:
    collector, theirs = await connected()
    theirs.close()
    await asyncio.wait_for(collector.over.wait(), 30)
    collector.frames.send(wire.Cancel(1))
    collector.frames.flush()
    collector.frames.close()
    assert collector.lost == [None]


async def test_what_is_sent_in_one_turn_leaves_together_and_in_order() -> None:
    collector, theirs = await connected()
    with theirs:
        for message in MESSAGES:
            collector.frames.send(message)
        theirs.setblocking(True)
        await asyncio.sleep(0)
        assert theirs.recv(1 << 16) == BYTES
        collector.frames.close()
        await asyncio.wait_for(collector.over.wait(), 30)


def test_a_message_that_is_too_large_is_refused_before_it_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME", 10)
    with pytest.raises(ModelFailed, match="over the limit of 10"):
        frames.frame(wire.Hello("x" * 20))
