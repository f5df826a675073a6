"""The default embedder: its file format on a small made-up file, and the real one against
reference vectors."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headrace.config.model_options import default_models
from headrace.engines.base import ModelSpec
from headrace.engines.e5_format import E5File
from headrace.engines.onnx import OnnxEngine
from headrace.errors import SourceError
from headrace.types import Role

HIDDEN, HEADS, INNER, POSITIONS = 32, 2, 64, 16
PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁dog", "▁cat", "▁", "d"]


def small_file() -> bytes:
    """One layer, written field by field as the format says."""
    random = np.random.default_rng(3)
    blob = "".join(PIECES).encode()
    ends = np.cumsum([0, *(len(piece.encode()) for piece in PIECES)]).astype("<u4")
    head = struct.pack("<4sI7if", b"E5S1", 1, HIDDEN, 1, HEADS, INNER, 10, POSITIONS, 2, 1e-12)
    head += struct.pack("<6iQ", 32, len(PIECES), 0, 2, 1, 3, len(blob)) + ends.tobytes()
    head += np.arange(0, -len(PIECES), -1, dtype="<f4").tobytes() + blob
    head += struct.pack("<iI3s", 1, 3, b"abc")
    tensors: dict[str, tuple[int, bytes]] = {}

    def floats(name: str, *shape: int) -> None:
        tensors[name] = (0, random.standard_normal(shape).astype("<f4").tobytes())

    def blocks(name: str, rows: int, columns: int) -> None:
        count = rows * columns // 32
        scale = (random.random((count, 1)) / 8).astype("<f2").view(np.uint8)
        nibbles = random.integers(0, 256, (count, 16), dtype=np.uint8)
        tensors[name] = (1, np.hstack([scale, nibbles]).tobytes())

    blocks("emb.word", 10, HIDDEN)
    floats("emb.pos", POSITIONS, HIDDEN)
    floats("emb.type", 2, HIDDEN)
    for name in ("q", "k", "v", "ao"):
        blocks(f"l0.{name}.w", HIDDEN, HIDDEN)
        floats(f"l0.{name}.b", HIDDEN)
    blocks("l0.fi.w", INNER, HIDDEN)
    floats("l0.fi.b", INNER)
    blocks("l0.fo.w", HIDDEN, INNER)
    floats("l0.fo.b", HIDDEN)
    for name in ("emb.ln", "l0.aln", "l0.oln"):
        floats(f"{name}.w", HIDDEN)
        floats(f"{name}.b", HIDDEN)
    table_size = sum(2 + len(name) + 1 + 4 + 8 + 8 for name in tensors)
    offset = len(head) + 4 + table_size
    table = struct.pack("<i", len(tensors))
    for name, (kind, data) in tensors.items():
        elements = len(data) // 4 if kind == 0 else len(data) // 18 * 32
        table += struct.pack("<H", len(name)) + name.encode()
        table += struct.pack("<BIQQ", kind, elements, offset, len(data))
        offset += len(data)
    return head + table + b"".join(data for _, data in tensors.values())


def spec(source: str, cache: Path, precision: str) -> ModelSpec:
    options = default_models()["e5-small"].model_dump(mode="json") | {
        "precision": precision,
        "threads": 2,
    }
    return ModelSpec(
        name="e5",
        role=Role.EMBEDDER,
        engine="onnx",
        source=source,
        cache_dir=str(cache),
        options=options,
    )


def load(path: Path, cache: Path, precision: str = "float32") -> OnnxEngine:
    engine = OnnxEngine()
    engine.load(spec(f"file:{path}", cache, precision))
    return engine


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "e5.bin"
    path.write_bytes(small_file())
    return path


def encode(file: E5File, ids: list[int]) -> np.ndarray:
    """The encoder in plain numpy: the formulas of BERT, one layer."""

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return x * file.tensor(f"{name}.w", HIDDEN) + file.tensor(f"{name}.b", HIDDEN)

    def dense(x: np.ndarray, name: str, rows: int, columns: int) -> np.ndarray:
        return x @ file.tensor(f"{name}.w", rows, columns).T + file.tensor(f"{name}.b", rows)

    x = file.tensor("emb.word", 10, HIDDEN)[ids]
    x = x + file.tensor("emb.pos", POSITIONS, HIDDEN)[: len(ids)]
    x = norm(x + file.tensor("emb.type", 2, HIDDEN)[0], "emb.ln")
    q, k, v = (dense(x, f"l0.{n}", HIDDEN, HIDDEN).reshape(len(ids), HEADS, -1) for n in "qkv")
    weights = np.exp(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(HIDDEN / HEADS))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(len(ids), HIDDEN)
    x = norm(x + dense(mixed, "l0.ao", HIDDEN, HIDDEN), "l0.aln")
    wide = dense(x, "l0.fi", INNER, HIDDEN)
    erf = np.vectorize(__import__("math").erf)
    wide = wide * 0.5 * (1 + erf(wide / np.sqrt(2)))
    x = norm(x + dense(wide, "l0.fo", HIDDEN, INNER), "l0.oln")
    pooled = x.mean(axis=0)
    return pooled / np.linalg.norm(pooled)


def test_the_graph_computes_what_the_formulas_say(weights: Path, tmp_path: Path) -> None:
    engine = load(weights, tmp_path)
    file = E5File(weights)
    assert [text for text, _ in file.pieces] == PIECES
    for kind, text in (("query", ""), ("passage", "dog cat dog")):
        rows = engine._windows.encode([f"{kind}: {text}"])
        got = engine.embed([text], kind)[0]
        np.testing.assert_allclose(got, encode(file, rows[0][0]), atol=2e-5)


def test_int8_is_near_and_made_beside(weights: Path, tmp_path: Path) -> None:
    exact = load(weights, tmp_path).embed(["dog cat", "dog"], "query")
    near = load(weights, tmp_path, "int8").embed(["dog cat", "dog"], "query")
    assert (exact * near).sum(axis=1).min() > 0.97
    folders = sorted(path.name for path in (tmp_path / "converted").glob("e5-*[0-9a-f]"))
    assert len(folders) == 2


def test_damaged_weight_files_are_refused(weights: Path, tmp_path: Path) -> None:
    whole = weights.read_bytes()
    damaged = [whole[:length] for length in (4, 20, 60, 200, 600, len(whole) // 2, len(whole) - 1)]
    damaged += [whole[:4] + b"\x09" + whole[5:], whole[:8] + b"\xff" * 40 + whole[48:]]
    damaged += [whole.replace(b"l0.fi.w", b"l0.xx.w"), whole.replace(b"\x18emb", b"\x19emb")]
    for number, content in enumerate(damaged):
        if content == whole:
            continue
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        with pytest.raises(SourceError, match=f"{number}.bin"):
            load(path, tmp_path)
    assert not list((tmp_path / "converted").glob("*.partial/model.onnx"))


def test_random_damage_never_crashes(weights: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    whole = bytearray(weights.read_bytes())
    header = len(whole) // 4
    for number in range(200):
        content = whole.copy()
        for place in random.integers(0, header, 3):
            content[place] = int(random.integers(0, 256))
        path = tmp_path / "damaged.bin"
        path.write_bytes(content)
        try:
            file = E5File(path)
            file.tensor("emb.word", file.shape.vocabulary, file.shape.hidden)
        except SourceError:
            continue
        assert number >= 0


def test_two_processes_convert_once(weights: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from headrace.engines import e5_convert;"
        "print(e5_convert.converted(Path(sys.argv[1]), Path(sys.argv[2]), 'int8'))"
    )
    command = [sys.executable, "-c", code, str(weights), str(tmp_path)]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {child.communicate(timeout=60)[0].strip() for child in children}
    assert len(outputs) == 1
    names = {path.name for path in Path(outputs.pop()).iterdir()}
    assert names == {
        "config.json",
        "model.onnx",
        "model.onnx_data",
        "tokenizer.json",
        "unigram.model",
    }


@pytest.mark.models
@pytest.mark.slow
@pytest.mark.parametrize(("precision", "cosine"), [("float32", 0.99), ("int8", 0.97)])
def test_the_real_model_meets_the_reference(
    model_cache: Path, shared: Path, precision: str, cosine: float
) -> None:
    engine = OnnxEngine()
    source = default_models()["e5-small"].source
    assert engine.load(spec(source, model_cache, precision)).dimensions == 384
    lines = (shared / "models" / "e5_small_reference.jsonl").read_text().splitlines()
    references = [json.loads(line) for line in lines]
    for kind in ("query", "passage"):
        wanted = [reference for reference in references if reference["kind"] == kind]
        texts = [reference["text"] for reference in wanted]
        rows = engine._windows.encode([f"{kind}: {text}" for text in texts])
        assert [ids for ids, _ in rows] == [reference["token_ids"] for reference in wanted]
        vectors = np.array([reference["vector"] for reference in wanted])
        assert (engine.embed(texts, kind) * vectors).sum(axis=1).min() >= cosine
