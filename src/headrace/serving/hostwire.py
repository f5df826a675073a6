"""Messages between a server process and the host.

Both ends may ask `Ask`; all other requests go from a server process to the host. A request is
answered under its `id` by one of the replies, a stream by any number of `Text` and `Part` and one
`End`, and all of them by `Failed` at any time. `Cancel` ends a request without a reply. The host
sends at most `WINDOW` deltas of a stream more than `Credit` has acknowledged.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec
import numpy as np

from headrace.engines.base import ModelInfo, Vectors
from headrace.errors import Busy, HeadraceError, Overloaded, by_code
from headrace.types import Call, Delta, EmbedKind, GenerateParams, Message

WINDOW = 128
"""Deltas of one stream that may be under way: what a slow reader costs in memory."""


class Info(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    call: Call


class Generate(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    messages: tuple[Message, ...]
    params: GenerateParams
    call: Call


class Embed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    texts: tuple[str, ...]
    kind: EmbedKind
    call: Call


class Score(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    query: str
    texts: tuple[str, ...]
    codes: tuple[bytes, ...]
    call: Call


class Compress(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    texts: tuple[str, ...]
    call: Call


class Count(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    model: str
    texts: tuple[str, ...]
    call: Call


class Ask(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A question of `headrace.serving.control`, encoded."""

    id: int
    topic: str
    question: bytes


class Cancel(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int


class Credit(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """So many deltas of a stream have been taken by their reader."""

    id: int
    deltas: int


class Names(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The models that there are: the first message of a link, and again when they have changed."""

    names: tuple[str, ...]


class Known(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    info: ModelInfo


class Text(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A delta that has nothing but text."""

    id: int
    text: str


class Part(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Any other delta."""

    id: int
    delta: Delta


class End(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int


class Array(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """float32, little-endian, as raw bytes."""

    id: int
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, id: int, values: Vectors) -> Array:
        return cls(id, values.shape, np.ascontiguousarray(values, "<f4").tobytes())

    def values(self) -> Vectors:
        return np.frombuffer(self.data, "<f4").reshape(self.shape)


class Codes(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    values: tuple[bytes, ...]


class Counts(msgspec.Struct, frozen=True, tag=True, array_like=True):
    id: int
    values: tuple[int, ...]


class Told(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The reply to an `Ask`, encoded."""

    id: int
    reply: bytes


class Failed(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A request failed: an error of `headrace.errors` with all that it says."""

    id: int
    code: str
    message: str
    field: str | None = None
    retry_after: float | None = None
    pid: int | None = None

    @classmethod
    def of(cls, id: int, error: HeadraceError) -> Failed:
        retry_after = error.retry_after if isinstance(error, Overloaded) else None
        pid = error.pid if isinstance(error, Busy) else None
        return cls(id, error.code, error.message, error.field, retry_after, pid)

    def error(self) -> HeadraceError:
        made = by_code(self.code, self.message)
        made.field = self.field
        if isinstance(made, Overloaded) and self.retry_after is not None:
            made.retry_after = self.retry_after
        if isinstance(made, Busy):
            made.pid = self.pid
        return made


Request: TypeAlias = Info | Generate | Embed | Score | Compress | Count | Ask
Reply: TypeAlias = Known | Text | Part | End | Array | Codes | Counts | Told | Failed
ToHost: TypeAlias = Request | Cancel | Credit | Told | Failed
ToServer: TypeAlias = Reply | Ask | Cancel | Names

to_host: msgspec.msgpack.Decoder[list[ToHost]] = msgspec.msgpack.Decoder(list[ToHost])
to_server: msgspec.msgpack.Decoder[list[ToServer]] = msgspec.msgpack.Decoder(list[ToServer])
