"""Rerankers on onnxruntime against the same networks in numpy."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import tiny_bert
import tiny_encoder
from tiny_encoder import rows

from headrace.config.model_options import default_models
from headrace.engines.base import ModelInfo, ModelSpec, Pair, pairs
from headrace.engines.late_interaction import SAMPLE
from headrace.engines.onnx import OnnxEngine
from headrace.errors import BadRequest, SourceError
from headrace.types import Role

WORDS = tiny_encoder.WORDS[4:]


def load(source: Path, cache: Path, **options: object) -> tuple[OnnxEngine, ModelInfo]:
    engine = OnnxEngine()
    given = {"precision": "float32", "threads": 1} | options
    spec = ModelSpec("tiny", Role.RERANKER, "onnx", f"file:{source}", str(cache), given)
    return engine, engine.load(spec)


def test_a_cross_encoder_scores_as_its_reference(tmp_path: Path) -> None:
    """Whatever the company: lengths, queries and padding are mixed."""
    given = tiny_bert.weights()
    engine, info = load(tiny_bert.write(tmp_path / "model", given), tmp_path)
    assert not info.compresses
    chance = np.random.default_rng(1)
    asked = [
        Pair(
            " ".join(chance.choice(WORDS, chance.integers(1, 6))),
            " ".join(chance.choice(WORDS, chance.integers(1, 40))),
        )
        for _ in range(60)
    ]
    expected = [tiny_bert.score(given, q.split(), str(t).split()) for q, t in asked]
    np.testing.assert_allclose(engine.score(asked), expected, atol=1e-4)
    assert np.ptp(expected) > 0.5
    with pytest.raises(BadRequest, match="compressed"):
        engine.score([Pair("dog", b"codes")])
    with pytest.raises(BadRequest, match="compress"):
        engine.compress(["dog"])


def expected_late(query: str, text: str) -> float:
    """MaxSim of the table's rows, of which every sentence of the sample is unknown words."""
    mean = unit(rows("[UNK]")).mean(axis=0)
    q, t = (unit(unit(rows(*words.split())) - mean) for words in (query, text))
    return float((q @ t.T).max(axis=1).mean())


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def late(tmp_path: Path) -> OnnxEngine:
    model = tiny_encoder.write(tmp_path / "late")
    options = {"scoring": "late_interaction", "query_prefix": "tax ", "passage_prefix": "city "}
    engine, info = load(model, tmp_path, **options)
    assert info.compresses
    assert info.dimensions == 0
    return engine


def test_late_interaction_is_the_mean_of_the_best_cosines(late: OnnxEngine) -> None:
    assert not set("".join(SAMPLE).split()) & set(WORDS)
    asked = [
        *pairs("dog leash", ["dog", "cat water leash", "dog leash dog", "tax city", "water"]),
        *pairs("water", ["dog", "city water"]),
    ]
    expected = [expected_late(query, str(text)) for query, text in asked]
    np.testing.assert_allclose(late.score(asked), expected, atol=1e-5)
    assert late.score([]).shape == (0,)


def test_what_has_no_tokens_scores_nothing(late: OnnxEngine) -> None:
    (empty,) = late.compress([""])
    asked = [Pair("", "dog"), Pair("dog", ""), Pair("dog", empty), Pair("dog", "dog")]
    np.testing.assert_allclose(late.score(asked), [0, 0, 0, 1], atol=1e-5)


def test_compressed_passages_score_nearly_alike(late: OnnxEngine) -> None:
    """Two bits a dimension; the tiny model has only 16 of them to spread an error over."""
    chance = np.random.default_rng(2)
    texts = [" ".join(chance.choice(WORDS, chance.integers(1, 9))) for _ in range(40)]
    codes = late.compress(texts)
    assert [len(one) for one in codes] == [1 + len(text.split()) * 6 for text in texts]
    exact = late.score(pairs("dog leash", texts))
    near = late.score(pairs("dog leash", codes))
    assert np.abs(exact - near).max() < 0.15
    assert np.corrcoef(exact, near)[0, 1] > 0.97
    mixed = late.score([*pairs("dog leash", codes[:5]), *pairs("dog leash", texts[5:])])
    np.testing.assert_allclose(mixed, [*near[:5], *exact[5:]], atol=1e-6)


@pytest.mark.parametrize("codes", [b"\x00", b"\x01123", b"\x02" + b"1" * 6])
def test_codes_of_something_else_are_refused(late: OnnxEngine, codes: bytes) -> None:
    with pytest.raises(BadRequest, match="not of this reranker"):
        late.score([Pair("dog", codes)])


def test_the_same_weights_for_another_use_have_another_fingerprint(tmp_path: Path) -> None:
    model = tiny_encoder.write(tmp_path / "late")
    _, plain = load(model, tmp_path, scoring="late_interaction")
    _, other = load(model, tmp_path, scoring="late_interaction", query_prefix="tax ")
    assert len({plain.fingerprint, other.fingerprint}) == 2


def test_a_model_that_pools_by_itself_has_no_token_vectors(tmp_path: Path) -> None:
    model = tiny_encoder.write(tmp_path / "cross", cross=True)
    with pytest.raises(SourceError, match="vector for each token"):
        load(model, tmp_path, scoring="late_interaction")


@pytest.mark.slow
def test_the_default_reranker(model_cache: Path) -> None:
    options = default_models()["e5-late"].model_dump(mode="json")
    engine = OnnxEngine()
    spec = ModelSpec("e5-late", Role.RERANKER, "onnx", options["source"], str(model_cache), options)
    assert engine.load(spec).compresses
    texts = [
        "承租人应当按照约定的期限支付租金。",
        "水在一百摄氏度沸腾。",
        "The tenant shall pay the rent on the first day of every month.",
        "Water boils at one hundred degrees.",
    ]
    chinese = engine.score(pairs("租金什么时候交？", texts))
    english = engine.score(pairs("When is the rent due?", texts))
    assert chinese.argmax() == 0
    assert english.argmax() == 2
    codes = engine.compress(texts)
    near = engine.score(pairs("When is the rent due?", codes))
    np.testing.assert_allclose(near, english, atol=0.03)
