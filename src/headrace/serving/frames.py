"""How messages travel on a worker's socket: a four-byte big-endian length and a msgpack struct.

A protocol rather than streams: a message is handed on in the very turn of the event loop that
reads it, and all messages that are sent in one turn leave in one write.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from headrace.errors import BadRequest, ModelFailed

MAX_FRAME = 256 * 1024 * 1024
_HEAD = 4

_encoder = msgspec.msgpack.Encoder()
In = TypeVar("In")


def frame(message: msgspec.Struct) -> bytearray:
    """Raises `ModelFailed` for a message that the other end would refuse, `BadRequest` for a text
    that is none: a typed error, so that a batch is split and its other texts are computed."""
    made = bytearray(_HEAD)
    try:
        _encoder.encode_into(message, made, _HEAD)
    except UnicodeEncodeError as error:
        raise BadRequest(f"a text holds half a character: {error}") from error
    size = len(made) - _HEAD
    if size > MAX_FRAME:
        raise ModelFailed(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
    made[:_HEAD] = size.to_bytes(_HEAD, "big")
    return made


class Frames(asyncio.Protocol, Generic[In]):
    """One end of a socket. `receive` gets each message; `lost` is called once, when the other end
    is gone (`None`) or sends what is no message (`ModelFailed`)."""

    def __init__(
        self,
        decoder: msgspec.msgpack.Decoder[In],
        receive: Callable[[In], None],
        lost: Callable[[ModelFailed | None], None],
    ) -> None:
        self._decoder = decoder
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._arriving = bytearray()
        self._leaving = bytearray()
        self._damage: ModelFailed | None = None

    def send(self, message: msgspec.Struct) -> None:
        """Never waits. What is sent to an end that is gone is dropped: `lost` tells."""
        self.send_frame(frame(message))

    def send_frame(self, made: bytearray) -> None:
        if not self._leaving:
            self._loop.call_soon(self.flush)
        self._leaving += made

    def flush(self) -> None:
        """Write what has been sent, without waiting for the end of the turn."""
        leaving, self._leaving = self._leaving, bytearray()
        if leaving and self._transport is not None and not self._transport.is_closing():
            self._transport.write(leaving)

    def close(self) -> None:
        """What has been sent still leaves."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        arriving = self._arriving
        arriving += data
        start = 0
        try:
            while len(arriving) - start >= _HEAD:
                size = int.from_bytes(arriving[start : start + _HEAD], "big")
                if size > MAX_FRAME:
                    raise ModelFailed(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
                end = start + _HEAD + size
                if len(arriving) < end:
                    break
                message = self._decode(arriving, start + _HEAD, end)
                start = end
                self._receive(message)
        except ModelFailed as error:
            self._damage = error
            cast("asyncio.Transport", self._transport).abort()
        finally:
            del arriving[:start]

    def _decode(self, arriving: bytearray, start: int, end: int) -> In:
        with memoryview(arriving) as whole, whole[start:end] as part:
            try:
                return self._decoder.decode(part)
            except msgspec.MsgspecError as error:
                raise ModelFailed(
                    f"a damaged message arrived on the worker's socket: {error}"
                ) from error

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost(self._damage)


async def connect(sock: Any, frames: Frames[Any]) -> None:
    """Attach to a connected socket, which belongs to the loop from then on."""
    await asyncio.get_running_loop().create_unix_connection(lambda: frames, sock=sock)
