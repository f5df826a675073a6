"""GGUF's first part, read without llama.cpp."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from headrace.engines import gguf_header
from headrace.engines.base import ModelSpec
from headrace.engines.llamacpp import LlamaCppEngine
from headrace.errors import SourceError
from headrace.types import Role


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(*pairs: bytes) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, 0, len(pairs)) + b"".join(pairs)


GOOD = header(
    text("general.architecture") + struct.pack("<I", 8) + text("bert"),
    text("bert.sizes") + struct.pack("<IIQ", 9, 4, 2) + b"\0" * 8,
    text("bert.context_length") + struct.pack("<II", 4, 512),
    text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 10**9),
)


def test_it_reads_up_to_the_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD)
    found = gguf_header.read(path)
    assert found == {"general.architecture": "bert", "bert.context_length": 512}


@pytest.mark.parametrize(
    "content",
    [b"", b"GGUF", b"<html>" * 10, GOOD[:40], header(text("k") + struct.pack("<I", 99))],
)
def test_damaged_files_are_refused_before_llama_sees_them(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    spec = ModelSpec("m", Role.GENERATOR, "llamacpp", f"file:{path}", str(tmp_path))
    with pytest.raises(SourceError, match=r"model\.gguf"):
        LlamaCppEngine().load(spec)


@pytest.mark.parametrize("role", list(Role))
def test_a_file_that_ends_early_is_refused(tmp_path: Path, role: Role) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD)
    spec = ModelSpec("m", role, "llamacpp", f"file:{path}", str(tmp_path))
    with pytest.raises(SourceError, match=r"model\.gguf"):
        LlamaCppEngine().load(spec)


def test_weights_are_found_behind_the_vocabulary(tmp_path: Path) -> None:
    shape = struct.pack("<IQQIQ", 2, 3, 4, 0, 0)
    entries = [
        text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("bc"),
        text("tokenizer.ggml.scores") + struct.pack("<IIQ", 9, 6, 2) + b"\0" * 8,
    ]
    start = struct.pack("<4sIQQ", b"GGUF", 3, 2, len(entries)) + b"".join(entries)
    path = tmp_path / "model.gguf"
    path.write_bytes(start + text("cls.weight") + shape + text("cls.bias") + shape)
    assert gguf_header.tensors(path) == ["cls.weight", "cls.bias"]
    for damage in (text("w") + struct.pack("<I", 10**9), text("w")):
        path.write_bytes(start + damage)
        with pytest.raises(SourceError):
            gguf_header.tensors(path)
    endless = text("k") + struct.pack("<IIQ", 9, 10, 2**64 - 1)
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + endless)
    with pytest.raises(SourceError):
        gguf_header.tensors(path)
