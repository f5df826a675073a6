"""Encoders on onnxruntime, with a tiny model whose results are computed by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_encoder
from tiny_encoder import rows

from headrace.engines.base import ModelInfo, ModelSpec, pairs
from headrace.engines.onnx import OnnxEngine, _batches
from headrace.errors import ConfigError, SourceError
from headrace.types import Role


def load(
    source: Path, cache: Path, role: Role = Role.EMBEDDER, **options: object
) -> tuple[OnnxEngine, ModelInfo]:
    engine = OnnxEngine()
    given = {"precision": "float32", "threads": 1, "max_tokens": 512} | options
    spec = ModelSpec(
        name="tiny",
        role=role,
        engine="onnx",
        source=f"file:{source}",
        cache_dir=str(cache),
        options=given,
    )
    return engine, engine.load(spec)


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_encoder.write(tmp_path / "model")


def test_mean_pooling_leaves_padding_out(model: Path, tmp_path: Path) -> None:
    engine, info = load(model, tmp_path)
    assert (info.dimensions, info.context) == (16, 12)
    texts = ["dog cat", "tax", "dog cat tax leash city water dog", ""]
    vectors = engine.embed(texts, "passage")
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        expected = unit(rows("[CLS]", *text.split(), "[SEP]").mean(axis=0))
        np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert engine.embed([], "query").shape == (0, 16)


def test_every_batch_is_a_step(model: Path, tmp_path: Path) -> None:
    engine, _ = load(model, tmp_path)
    before = engine.steps
    engine.embed(["dog"] * 64, "query")
    assert engine.steps - before == 4


def test_a_device_that_onnxruntime_cannot_use(model: Path, tmp_path: Path) -> None:
    spec = ModelSpec("tiny", Role.EMBEDDER, "onnx", f"file:{model}", str(tmp_path))
    with pytest.raises(ConfigError, match=r"cuda:0; install onnxruntime-gpu"):
        OnnxEngine().load(spec, "cuda:0")


def test_cls_pooling_and_prefixes(model: Path, tmp_path: Path) -> None:
    engine, cls = load(model, tmp_path, pooling="cls")
    np.testing.assert_allclose(engine.embed(["dog"], "query")[0], unit(rows("[CLS]")[0]), atol=1e-6)
    engine, prefixed = load(model, tmp_path, query_prefix="tax ")
    expected = unit(rows("[CLS]", "tax", "dog", "[SEP]").mean(axis=0))
    np.testing.assert_allclose(engine.embed(["dog"], "query")[0], expected, atol=1e-6)
    np.testing.assert_allclose(engine.embed(["tax dog"], "passage")[0], expected, atol=1e-6)
    _, plain = load(model, tmp_path)
    assert len({cls.fingerprint, prefixed.fingerprint, plain.fingerprint}) == 3
    assert load(model, tmp_path)[1].fingerprint == plain.fingerprint


def test_long_texts_lose_their_end_but_not_the_closing_token(model: Path, tmp_path: Path) -> None:
    engine, _ = load(model, tmp_path)
    expected = unit(rows("[CLS]", *["dog"] * 10, "[SEP]").mean(axis=0))
    for text in ("dog " * 11, "dog " * 100_000):
        np.testing.assert_allclose(engine.embed([text], "passage")[0], expected, atol=1e-6)
    assert engine.count(["dog " * 11, "", "dog cat"]) == [11, 0, 2]


@pytest.mark.parametrize("hostile", ["\ud800", "\0", "[SEP]" * 50, " " * 100_000, "👩‍👩‍👧" * 5000])
def test_any_text_has_a_vector(model: Path, tmp_path: Path, hostile: str) -> None:
    engine, _ = load(model, tmp_path)
    vector = engine.embed([hostile], "query")[0]
    assert np.linalg.norm(vector) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
def test_cross_encoder_scores(tmp_path: Path, classes: int) -> None:
    folder = tiny_encoder.write(tmp_path / "model", cross=True, classes=classes)
    engine, info = load(folder, tmp_path, Role.RERANKER)
    assert info.dimensions == 0
    texts = ["dog leash", "tax", "water water water"]
    scores = engine.score(pairs("dog", texts))
    for text, score in zip(texts, scores, strict=True):
        mean = rows("[CLS]", "dog", "[SEP]", *text.split(), "[SEP]").mean(axis=0)
        margin = 4 * (mean[0] if classes == 1 else mean[1] - mean[0])
        assert score == pytest.approx(1 / (1 + np.exp(-margin)), abs=1e-5)
    assert engine.score(pairs("dog", [])).shape == (0,)


def test_int8_is_made_once_and_is_near(model: Path, tmp_path: Path) -> None:
    engine, exact = load(model, tmp_path)
    small, info = load(model, tmp_path, precision="int8")
    assert info.fingerprint != exact.fingerprint
    made = list((tmp_path / "converted").glob("int8-*/model.onnx"))
    assert len(made) == 1
    before = made[0].stat().st_mtime_ns
    load(model, tmp_path, precision="int8")
    assert made[0].stat().st_mtime_ns == before
    texts = ["dog cat", "tax city water"]
    cosines = (small.embed(texts, "query") * engine.embed(texts, "query")).sum(axis=1)
    assert cosines.min() > 0.99


def test_a_named_file_with_its_tokenizer_one_folder_up(model: Path, tmp_path: Path) -> None:
    (model / "onnx").mkdir()
    (model / "model.onnx").rename(model / "onnx" / "model_x.onnx")
    engine, _ = load(model / "onnx" / "model_x.onnx", tmp_path, precision="int8")
    assert engine.embed(["dog"], "query").shape == (1, 16)
    assert not (tmp_path / "converted").exists()
    with pytest.raises(SourceError, match=r"no model\.onnx"):
        load(model, tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("model.onnx", b"no graph"),
        ("model.onnx", b""),
        ("config.json", b"[1]"),
        ("config.json", b"{"),
    ],
)
def test_damaged_files_are_named(model: Path, tmp_path: Path, file: str, content: bytes) -> None:
    (model / file).write_bytes(content)
    with pytest.raises(SourceError, match=file):
        load(model, tmp_path)


def test_a_missing_tokenizer_and_a_file_of_another_kind(model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    with pytest.raises(SourceError, match=r"tokenizer\.json"):
        load(model, tmp_path)
    other = tmp_path / "weights.gguf"
    other.write_bytes(b"GGUF")
    with pytest.raises(SourceError, match="neither"):
        load(other, tmp_path)


def test_batches_hold_every_text_once_with_little_padding() -> None:
    lengths = [3, 500, 4, 512, 90, 100, 7, 1] + [50] * 40
    batches = list(_batches(lengths))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        sizes = [lengths[index] for index in batch]
        assert max(sizes) * 7 <= min(sizes) * 8
        assert len(batch) == 1 or max(sizes) * len(sizes) <= 1024


def test_the_configuration_may_be_absent(model: Path, tmp_path: Path) -> None:
    assert json.loads((model / "config.json").read_text())["max_position_embeddings"] == 12
    (model / "config.json").unlink()
    assert load(model, tmp_path, max_tokens=20)[1].context == 20
