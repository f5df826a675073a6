"""Messages between the server and a worker, and how they are framed.

A frame is a four-byte big-endian length and a msgpack-encoded struct. Arrays travel as raw
little-endian float32 bytes. Requests and streams are multiplexed by `id`; any of them can be
cancelled by it. Both ends are our own processes on one machine, yet every frame is decoded
against its type, so a damaged one is an error and not an object.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import msgspec
import numpy as np

from headrace.engines.base import ModelInfo, ModelSpec, Vectors
from headrace.errors import ModelFailed
from headrace.types import Delta, EmbedKind, GenerateParams, Lane, Message

MAX_FRAME = 256 * 1024 * 1024


class Load(msgspec.Struct, frozen=True, tag=True):
    spec: ModelSpec
    device: str = "cpu"


class Generate(msgspec.Struct, frozen=True, tag=True):
    id: int
    messages: tuple[Message, ...]
    params: GenerateParams


class Embed(msgspec.Struct, frozen=True, tag=True):
    id: int
    texts: tuple[str, ...]
    kind: EmbedKind
    lane: Lane


class Score(msgspec.Struct, frozen=True, tag=True):
    id: int
    query: str
    texts: tuple[str, ...]
    lane: Lane


class Count(msgspec.Struct, frozen=True, tag=True):
    id: int
    texts: tuple[str, ...]
    lane: Lane = Lane.INTERACTIVE


class Cancel(msgspec.Struct, frozen=True, tag=True):
    id: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    info: ModelInfo


class Part(msgspec.Struct, frozen=True, tag=True):
    """One delta of a stream."""

    id: int
    delta: Delta


class End(msgspec.Struct, frozen=True, tag=True):
    """The end of a stream."""

    id: int


class Array(msgspec.Struct, frozen=True, tag=True):
    id: int
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, id: int, values: Vectors) -> Array:
        return cls(id, values.shape, np.ascontiguousarray(values, "<f4").tobytes())

    def values(self) -> Vectors:
        return np.frombuffer(self.data, "<f4").reshape(self.shape)


class Counts(msgspec.Struct, frozen=True, tag=True):
    id: int
    values: tuple[int, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A request (or, with id 0, the load) failed with the error named `code`."""

    id: int
    code: str
    message: str
    retry_after: float = 0.0


Work: TypeAlias = Generate | Embed | Score | Count
ToWorker: TypeAlias = Load | Work | Cancel
FromWorker: TypeAlias = Loaded | Part | End | Array | Counts | Failed

_encoder = msgspec.msgpack.Encoder()
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


async def _frame(reader: asyncio.StreamReader) -> bytes | None:
    try:
        size = int.from_bytes(await reader.readexactly(4), "big")
        if size > MAX_FRAME:
            raise ModelFailed(f"a message of {size} bytes is over the limit of {MAX_FRAME}")
        return await reader.readexactly(size)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


def _decode(decoder: msgspec.msgpack.Decoder[Any], frame: bytes) -> Any:
    try:
        return decoder.decode(frame)
    except msgspec.MsgspecError as error:
        raise ModelFailed(f"a damaged message arrived on the worker's socket: {error}") from error


async def read_request(reader: asyncio.StreamReader) -> ToWorker | None:
    """The next message to a worker; `None` when the other end is gone."""
    frame = await _frame(reader)
    message: ToWorker | None = None if frame is None else _decode(_to_worker, frame)
    return message


async def read_reply(reader: asyncio.StreamReader) -> FromWorker | None:
    """The next message from a worker; `None` when the worker is gone."""
    frame = await _frame(reader)
    message: FromWorker | None = None if frame is None else _decode(_from_worker, frame)
    return message


def write(writer: asyncio.StreamWriter, message: ToWorker | FromWorker) -> None:
    """Queue a message; the caller drains where it may wait."""
    body = _encoder.encode(message)
    if len(body) > MAX_FRAME:
        raise ModelFailed(f"a message of {len(body)} bytes is over the limit of {MAX_FRAME}")
    writer.write(len(body).to_bytes(4, "big") + body)
