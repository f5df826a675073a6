"""Messages between a client and its worker.

Requests and streams are multiplexed by `id`; any of them can be cancelled by it. A stream may be
as many deltas ahead of its reader as it has been granted. Arrays travel as raw little-endian
float32 bytes. Both ends are our own processes on one machine, yet every frame is decoded against
its type, so a damaged one is an error and not an object.

A worker says `Hello` first. It holds one model, which `Load` brings to a seat, also from parked
or from another seat, and `Park` takes off it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import msgspec
import numpy as np

from headrace.engines.base import ModelInfo, ModelSpec, Pair, Passage, Vectors
from headrace.types import Delta, EmbedKind, GenerateParams, Lane, Message

WINDOW = 64
"""Deltas that a stream may be ahead of its reader."""


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Headrace's version in the worker: the same at both ends, or nothing else is understood."""

    version: str


class Load(msgspec.Struct, frozen=True, tag=True):
    spec: ModelSpec
    seat: str


class Park(msgspec.Struct, frozen=True, tag=True):
    """When what is running has ended."""


class Generate(msgspec.Struct, frozen=True, tag=True):
    id: int
    messages: tuple[Message, ...]
    params: GenerateParams
    window: int = WINDOW


class Grant(msgspec.Struct, frozen=True, tag=True):
    """That many more deltas have been read."""

    id: int
    deltas: int


class Embed(msgspec.Struct, frozen=True, tag=True):
    id: int
    texts: tuple[str, ...]
    kind: EmbedKind
    lane: Lane


class Score(msgspec.Struct, frozen=True, tag=True):
    """Pairs, of any number of callers. A query is sent once, however many passages it has:
    `asked` are the places of their queries. A passage is a text, or codes, and then no text."""

    id: int
    queries: tuple[str, ...]
    asked: tuple[int, ...]
    texts: tuple[str, ...]
    codes: tuple[bytes, ...]
    lane: Lane

    @classmethod
    def of(cls, id: int, pairs: Sequence[Pair], lane: Lane) -> Score:
        places = {query: place for place, query in enumerate(dict.fromkeys(p[0] for p in pairs))}
        asked = tuple(places[query] for query, _ in pairs)
        texts, codes = split(passage for _, passage in pairs)
        return cls(id, tuple(places), asked, texts, codes, lane)

    def pairs(self) -> list[Pair]:
        queries = (self.queries[place] for place in self.asked)
        return list(map(Pair, queries, join(self.texts, self.codes)))


class Compress(msgspec.Struct, frozen=True, tag=True):
    id: int
    texts: tuple[str, ...]
    lane: Lane


class Count(msgspec.Struct, frozen=True, tag=True):
    id: int
    texts: tuple[str, ...]


class Cancel(msgspec.Struct, frozen=True, tag=True):
    id: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    info: ModelInfo


class Parked(msgspec.Struct, frozen=True, tag=True):
    """The weights are off the seat and the memory is given back."""


class Parts(msgspec.Struct, frozen=True, tag=True):
    """The next deltas of a stream; `last` ends it."""

    id: int
    deltas: tuple[Delta, ...]
    last: bool = False


class Array(msgspec.Struct, frozen=True, tag=True):
    id: int
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def of(cls, id: int, values: Vectors) -> Array:
        return cls(id, values.shape, np.ascontiguousarray(values, "<f4").tobytes())

    def values(self) -> Vectors:
        return np.frombuffer(self.data, "<f4").reshape(self.shape)


class Codes(msgspec.Struct, frozen=True, tag=True):
    id: int
    values: tuple[bytes, ...]


class Counts(msgspec.Struct, frozen=True, tag=True):
    id: int
    values: tuple[int, ...]


class Failed(msgspec.Struct, frozen=True, tag=True):
    """A request (or, with id 0, a load) failed with the error named `code`."""

    id: int
    code: str
    message: str
    retry_after: float = 0.0


class Pulse(msgspec.Struct, frozen=True, tag=True):
    """The worker lives, and has taken that many steps of work (deltas, batches, requests). Comes
    on a socket of its own, so that it never waits behind an array."""

    steps: int


Call: TypeAlias = Embed | Score | Compress | Count
Answer: TypeAlias = Array | Codes | Counts
Work: TypeAlias = Generate | Call
ToWorker: TypeAlias = Load | Park | Work | Grant | Cancel
FromWorker: TypeAlias = Hello | Loaded | Parked | Parts | Answer | Failed

to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
pulses: msgspec.msgpack.Decoder[Pulse] = msgspec.msgpack.Decoder(Pulse)


def split(passages: Iterable[Passage]) -> tuple[tuple[str, ...], tuple[bytes, ...]]:
    """The texts, and the codes, of passages: each is empty where the other is not. msgspec does not
    tell a string from bytes by itself."""
    found = [(one, b"") if isinstance(one, str) else ("", one) for one in passages]
    return tuple(text for text, _ in found), tuple(codes for _, codes in found)


def join(texts: Sequence[str], codes: Sequence[bytes]) -> list[Passage]:
    """What was `split`."""
    return [code or text for text, code in zip(texts, codes, strict=True)]
