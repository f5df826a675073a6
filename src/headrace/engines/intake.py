"""Looks at the files that somebody sent as a model, and runs none of them.

Only kinds of files are let in that hold numbers or text. Weights as pickles (`.bin`, `.pt`, ...)
and code are refused: loading the one and importing the other runs what is in them.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from headrace.engines import gguf_header
from headrace.errors import InvalidField, SourceError

MAX_TEXT = 256 << 20
"""Bytes of a file of JSON or text."""
_MAX_TENSOR_LIST = 100 << 20
"""Of a .safetensors file; the format's own limit."""


def check(folder: Path) -> dict[str, str]:
    """What each file of `folder` was found to be, by its name. Blocks. Raises `InvalidField` for
    the first one that is not what it says, or of a kind that is not let in."""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    found = {path.relative_to(folder).as_posix(): path for path in files}
    if not any(path.suffix in WEIGHTS for path in files):
        raise InvalidField(f"there are no weights: {', '.join(WEIGHTS)}", field="files")
    return {name: _checked(name, path, folder) for name, path in found.items()}


def _checked(name: str, path: Path, folder: Path) -> str:
    kind = next((kind for ending, kind in _KINDS.items() if path.name.endswith(ending)), None)
    try:
        if path.is_symlink() or not path.is_file():
            raise ValueError("it is not a plain file")
        if kind is None:
            raise ValueError(
                _PICKLES if path.suffix in _PICKLED else _CODE if path.suffix in _CODED else _OTHER
            )
        with path.open("rb") as file:
            _refuse_hidden(file)
            file.seek(0)
            return kind(_File(file, path, folder, path.stat().st_size))
    except SourceError as error:
        raise InvalidField(f"{name}: {error.__cause__ or error}", field="files") from error
    except (ValueError, struct.error, OSError, RecursionError) as error:
        raise InvalidField(f"{name}: {error}; nothing was kept", field="files") from error


def _refuse_hidden(file: BinaryIO) -> None:
    """What a file is does not depend on its name. A pickle of version 2 and above begins with its
    version and ends with a full stop; those of PyTorch are in a zip."""
    start = file.read(4)
    if start == b"PK\x03\x04" or start == b"\x7fELF":
        raise ValueError(
            f"it is no such file but {'an archive' if start[0] == 80 else 'a program'}"
        )
    if len(start) == 4 and start[0] == 0x80 and 2 <= start[1] <= 5:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b".":
            raise ValueError(_PICKLES)


class _File(NamedTuple):
    file: BinaryIO
    path: Path
    folder: Path
    size: int


def _gguf(it: _File) -> str:
    tensors = gguf_header.check(it.path)
    if not tensors:
        raise ValueError("it holds no tensors")
    return f"GGUF, {tensors} tensors, all there"


def _safetensors(it: _File) -> str:
    (length,) = struct.unpack("<Q", it.file.read(8))
    if length > min(_MAX_TENSOR_LIST, it.size - 8):
        raise ValueError("its list of tensors is longer than the file")
    listed: Any = json.loads(it.file.read(length))
    if not isinstance(listed, dict):
        raise ValueError("its list of tensors is not one")
    listed.pop("__metadata__", None)
    try:
        end = max((int(tensor["data_offsets"][1]) for tensor in listed.values()), default=0)
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError("its list of tensors is not one") from error
    if 8 + length + end != it.size:
        raise ValueError(f"it has {it.size} bytes and its tensors end at {8 + length + end}")
    return f"safetensors, {len(listed)} tensors, all there"


def _onnx(it: _File) -> str:
    graph, nodes = False, 0
    for number, model in _fields(it.file, it.size):
        if number != _GRAPH or model is None:
            continue
        graph = True
        for part, inner in _fields(it.file, model):
            nodes += part == _NODE
            if part == _INITIALIZER and inner is not None:
                _external(it, inner)
    if not graph or not nodes:
        raise ValueError("it holds no ONNX graph")
    return f"ONNX, {nodes} nodes"


_GRAPH, _NODE, _INITIALIZER, _EXTERNAL = 7, 1, 5, 13  # numbers of fields in onnx.proto


def _external(it: _File, end: int) -> None:
    """Weights in a file beside must be in that file."""
    entries = {}
    for number, inner in _fields(it.file, end):
        if number == _EXTERNAL and inner is not None:
            pair = {n: it.file.read(stop - it.file.tell()) for n, stop in _texts(it.file, inner)}
            entries[pair.get(1, b"")] = pair.get(2, b"").decode("utf-8", "replace")
    location = entries.get(b"location")
    if location is None:
        return
    path = it.path.parent / location
    if ".." in Path(location).parts or Path(location).is_absolute() or not path.is_file():
        raise ValueError(f"its weights are in {location!r}, which was not sent with it")
    needed = int(entries.get(b"offset", "0")) + int(entries.get(b"length", "0"))
    if path.stat().st_size < needed:
        raise ValueError(f"{location} has {path.stat().st_size} bytes of the {needed} it needs")


def _texts(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    return ((number, stop) for number, stop in _fields(file, end) if stop is not None)


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int | None]]:
    """The fields of the protobuf message from here to `end`: number, and for those that have a
    length, where they end; the file stands at the field's content meanwhile."""
    while (place := file.tell()) < end:
        key = _varint(file)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _varint(file)
            length = 0
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        elif kind == 2:
            length = _varint(file)
        else:
            raise ValueError(f"it is not ONNX at byte {place}")
        stop = file.tell() + length
        if stop > end:
            raise ValueError(f"it ends before the field at byte {place} does")
        yield number, stop if kind == 2 else None
        file.seek(stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in the middle of a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("it holds a number that is too long")


def _json(it: _File) -> str:
    _bounded(it)
    try:
        msgspec.json.decode(it.file.read(), type=msgspec.Raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"it is not JSON: {error}") from error
    return "JSON"


def _text(it: _File) -> str:
    _bounded(it)
    it.file.read().decode("utf-8")
    return "text"


def _bounded(it: _File) -> None:
    if it.size > MAX_TEXT:
        raise ValueError(f"it has more than {MAX_TEXT} bytes")


def _data(it: _File) -> str:
    return "data"


WEIGHTS = (".gguf", ".safetensors", ".onnx")
_KINDS: dict[str, Callable[[_File], str]] = {
    ".gguf": _gguf,
    ".safetensors": _safetensors,
    ".onnx": _onnx,
    ".onnx_data": _data,  # weights beside an .onnx file
    ".onnx.data": _data,
    ".json": _json,
    ".txt": _text,
    ".md": _text,
    ".jinja": _text,
    "LICENSE": _text,
    ".model": _data,  # a vocabulary of SentencePiece
}
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5")
_CODED = (".py", ".pyc", ".so", ".dll", ".dylib", ".sh", ".exe", ".js", ".ipynb")
_PICKLES = (
    "it may be a pickle, which runs code when it is loaded; send .safetensors, .onnx or .gguf"
)
_CODE = "it is code, and no code of a model is run here; leave it out"
_OTHER = "it is not of a kind that a model needs here; leave it out"
