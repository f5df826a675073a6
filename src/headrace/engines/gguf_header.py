"""The first part of a GGUF file: what it says about itself before its vocabulary and weights."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from headrace.errors import SourceError

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_LONGEST = 1 << 20
_MOST_DIMENSIONS = 4
_ALIGNMENT = 32
_BLOCKS = {
    0: (1, 4),  # F32
    1: (1, 2),  # F16
    2: (32, 18),  # Q4_0
    3: (32, 20),  # Q4_1
    6: (32, 22),  # Q5_0
    7: (32, 24),  # Q5_1
    8: (32, 34),  # Q8_0
    10: (256, 84),  # Q2_K
    11: (256, 110),  # Q3_K
    12: (256, 144),  # Q4_K
    13: (256, 176),  # Q5_K
    14: (256, 210),  # Q6_K
    16: (256, 66),  # IQ2_XXS
    17: (256, 74),  # IQ2_XS
    18: (256, 98),  # IQ3_XXS
    19: (256, 50),  # IQ1_S
    20: (32, 18),  # IQ4_NL
    21: (256, 110),  # IQ3_S
    22: (256, 82),  # IQ2_S
    23: (256, 136),  # IQ4_XS
    24: (1, 1),  # I8
    25: (1, 2),  # I16
    26: (1, 4),  # I32
    27: (1, 8),  # I64
    28: (1, 8),  # F64
    29: (256, 56),  # IQ1_M
    30: (1, 2),  # BF16
    34: (256, 54),  # TQ1_0
    35: (256, 66),  # TQ2_0
    39: (32, 17),  # MXFP4
}
"""Values and bytes of one block, by the number of its type."""


def read(path: Path) -> dict[str, Any]:
    """Metadata by key, up to the first key of the tokenizer, arrays left out. Raises
    `SourceError` for a file that is not GGUF."""
    found: dict[str, Any] = {}
    with _opened(path) as (file, _, count):
        for _ in range(count):
            key = _string(file)
            if key.startswith("tokenizer."):
                break
            value = _entry(file)
            if value is not None:
                found[key] = value
    return found


def text(path: Path, key: str) -> str:
    """One text of the metadata, wherever it stands; empty if it is not there. Passes over the
    vocabulary, which takes a quarter of a second where it has 150,000 words. Raises like `read`."""
    with _opened(path) as (file, _, count):
        for _ in range(count):
            found, value = _string(file), _entry(file)
            if found == key:
                return str(value or "")
    return ""


def tensors(path: Path) -> list[str]:
    """The names of all weights. Takes about 0.3 s for a vocabulary of 250,000. Raises
    `SourceError`."""
    names = []
    with _opened(path) as (file, weights, count):
        for _ in range(count):
            _string(file)
            _entry(file)
        for _ in range(weights):
            names.append(_string(file))
            _tensor(file)
    return names


def check(path: Path) -> int:
    """How many weights there are, if all of them are in the file; those of a type that is not
    known here are taken to be. Raises `SourceError`."""
    with _opened(path) as (file, weights, count):
        alignment = _ALIGNMENT
        for _ in range(count):
            key, value = _string(file), _entry(file)
            if key == "general.alignment" and isinstance(value, int) and value > 0:
                alignment = value
        needed = 0
        for _ in range(weights):
            _string(file)
            *shape, kind, place = _tensor(file)
            values, size = _BLOCKS.get(kind, (1, 0))
            needed = max(needed, place + math.prod(shape) // values * size)
        start = -(-file.tell() // alignment) * alignment
        have = path.stat().st_size
        if weights and start + needed > have:
            raise ValueError(f"it has {have} of {start + needed} bytes")
    return weights


def _tensor(file: BinaryIO) -> tuple[Any, ...]:
    """Shape, type and place of a weight."""
    (dimensions,) = _unpack(file, "I")
    if dimensions > _MOST_DIMENSIONS:
        raise ValueError(f"a tensor claims {dimensions} dimensions")
    return _unpack(file, f"{dimensions}QIQ")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int, int]]:
    """The file after its first fields, and how many weights and entries it has."""
    try:
        with path.open("rb") as file:
            magic, version, weights, entries = _unpack(file, "4sIQQ")
            if magic != b"GGUF" or version not in (2, 3):
                raise ValueError(f"it starts with {magic!r}, version {version}")
            yield file, weights, entries
    except (OSError, ValueError, OverflowError, struct.error) as error:
        raise SourceError(
            f"{path} is not a usable GGUF file: {error}; delete it and fetch it again"
        ) from error


def _entry(file: BinaryIO) -> Any:
    """The value of one metadata entry; None for an array, which is passed over."""
    (kind,) = _unpack(file, "I")
    if kind != _ARRAY:
        return _value(file, kind)
    (kind, length) = _unpack(file, "IQ")
    if kind in _SCALARS:
        file.seek(length * struct.calcsize(_SCALARS[kind]), 1)
    else:
        for _ in range(length):
            _value(file, kind)
    return None


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind not in _SCALARS:
        raise ValueError(f"a value has the unknown type {kind}")
    return _unpack(file, _SCALARS[kind])[0]


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    if length > _LONGEST:
        raise ValueError(f"a string claims {length} bytes")
    return file.read(length).decode("utf-8", "replace")


def _unpack(file: BinaryIO, fields: str) -> tuple[Any, ...]:
    layout = struct.Struct("<" + fields)
    return layout.unpack(file.read(layout.size))
