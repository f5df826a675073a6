"""Messages between the ingesting process and its reader: an 8-byte length, then msgpack."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from headrace.types import Chunking, Parsed

LENGTH = struct.Struct("<Q")


class Settings(msgspec.Struct, frozen=True):
    """Limits of one reader process."""

    file_bytes: int
    text_bytes: int
    seconds: float
    memory_bytes: int


class Request(msgspec.Struct, frozen=True):
    """Read the file at `path` (in the file system's encoding) and chunk it, unless its content
    has the SHA-256 `known_sha256`."""

    path: bytes
    chunker: str
    budget: int
    known_sha256: str = ""


class Same(msgspec.Struct, frozen=True, tag=True):
    """The file has the known content."""


class Read(msgspec.Struct, frozen=True, tag=True):
    """What was read. `unaccounted` characters are in no chunk and in no exclusion."""

    sha256: str
    parsed: Parsed
    chunker: str
    chunking: Chunking
    unaccounted: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The file cannot be read, for this reason. `exhausted`: the process ran out of memory, of
    which the next file may find too little."""

    reason: str
    exhausted: bool = False


Answer: TypeAlias = Same | Read | Failed


def encode(message: Request | Answer) -> bytes:
    payload = msgspec.msgpack.encode(message)
    return LENGTH.pack(len(payload)) + payload


def take(read: Callable[[int], bytes]) -> bytes | None:
    """The next frame's payload; None at the end of the stream, also inside a frame."""
    head = read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (length,) = LENGTH.unpack(head)
    payload = read(length)
    return payload if len(payload) == length else None
