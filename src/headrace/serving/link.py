"""A socket between two of our processes that carries messages both ways.

A frame is a four-byte big-endian length and a msgpack array of messages: all that were sent in one
turn of the event loop travel in one frame and one write, so the tokens of many streams that are
ready together cost one system call. Every frame is decoded against its type.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from headrace.errors import BadRequest

log = logging.getLogger(__name__)

MAX_MESSAGE = 256 * 1024 * 1024
_FLUSH_BYTES = 256 * 1024
_HEAD = 9  # length of the frame, and head of an array of 32-bit length
_ARRAY32 = b"\xdd"

Out = TypeVar("Out", bound=msgspec.Struct)
In = TypeVar("In", bound=msgspec.Struct)


class Link(asyncio.Protocol, Generic[In, Out]):
    """One end. `received` is called with each message, in order; `lost` once, when the link has
    ended for whatever reason. Nothing is ever read late: what a message sets going must be bounded
    by whoever sends it."""

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[list[In]],
        received: Callable[[In], None],
        lost: Callable[[], None],
    ) -> None:
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._encoder = msgspec.msgpack.Encoder()
        self._rest = bytearray()
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._ended = asyncio.Event()
        self.open = False

    async def attach(self, end: socket.socket) -> None:
        """Carry messages over a connected socket, which then belongs to the link."""
        await self._loop.create_unix_connection(lambda: self, sock=end)

    def send(self, message: Out) -> None:
        """Queue a message; nobody waits. Dropped where the link has ended, as `lost` tells.
        Raises `BadRequest` if it has more than `MAX_MESSAGE` bytes, or a text that is none."""
        if not self.open:
            return
        try:
            body = self._encoder.encode(message)
        except UnicodeEncodeError as error:
            raise BadRequest(f"a text holds half a character: {error}") from error
        if len(body) > MAX_MESSAGE:
            raise BadRequest(
                f"a message of {len(body)} bytes is over the limit of {MAX_MESSAGE}; send less "
                "text at once"
            )
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(body)
        self._out_bytes += len(body)
        if self._out_bytes > _FLUSH_BYTES:
            self._flush()

    async def close(self) -> None:
        """End the link without waiting for the other end to read; returns after `lost`."""
        if self._transport is not None:
            self.open = False
            self._transport.abort()
            await self._ended.wait()

    def _flush(self) -> None:
        if not self._out or self._transport is None:
            return
        size = (self._out_bytes + 5).to_bytes(4, "big")
        count = len(self._out).to_bytes(4, "big")
        self._transport.write(b"".join((size, _ARRAY32, count, *self._out)))
        self._out.clear()
        self._out_bytes = 0

    # As asyncio calls it ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        self._out.clear()
        self._ended.set()
        self._lost()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            used = self._take(self._rest)
            del self._rest[:used]
        else:
            self._rest += memoryview(data)[self._take(data) :]

    def _take(self, data: bytes | bytearray) -> int:
        """Hand out the messages of all complete frames; how many bytes they had."""
        start = 0
        with memoryview(data) as view:
            while len(data) - start >= 4:
                end = start + 4 + int.from_bytes(view[start : start + 4], "big")
                if end > len(data):
                    break
                try:
                    messages = self._decoder.decode(view[start + 4 : end])
                except msgspec.MsgspecError as error:
                    self._damaged(error)
                    return len(data)
                for message in messages:
                    self._received(message)
                start = end
        return start

    def _damaged(self, error: Exception) -> None:
        log.error("a damaged message arrived from another process, whose link is ended: %s", error)
        self.open = False
        assert self._transport is not None
        self._transport.abort()
