"""GGUF encoders: what llama.cpp computes against the same network in numpy.

llama.cpp's attention works in half precision: over 144 pairs whose logits span 8, the largest
difference seen is 0.011, the mean one 0.003; vectors agree to 0.001.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny_gguf as tiny

from headrace.engines import llamacpp
from headrace.engines.base import ModelInfo, ModelSpec, pairs
from headrace.engines.llamacpp import LlamaCppEngine
from headrace.errors import ConfigError, HeadraceError, SourceError
from headrace.types import Role

CLOSE = 0.015
TENSORS = {**tiny.weights(), **tiny.head()}
REFERENCE = tiny.Reference(TENSORS)
QUERY = "dog on the leash"
TEXTS = ["the dog of the city", "tax due in the city", "water", "rent unknown", "dog leash"]
BABBLE = " ".join(np.random.default_rng(3).choice(tiny.WORDS, 400).tolist())


def load(path: Path, role: Role, **options: object) -> tuple[LlamaCppEngine, ModelInfo]:
    given = {"threads": 1, "slots": 2, "max_tokens": tiny.POSITIONS} | options
    engine = LlamaCppEngine()
    spec = ModelSpec("tiny", role, "llamacpp", f"file:{path}", str(path.parent), given)
    return engine, engine.load(spec)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCppEngine]:
    path = tmp_path_factory.mktemp("gguf") / "rank.gguf"
    tiny.write(path, TENSORS, gguf.PoolingType.RANK)
    engine, info = load(path, Role.RERANKER)
    assert (info.context, info.dimensions) == (tiny.POSITIONS, 0)
    yield engine
    engine.unload()


def test_scores_are_the_cross_encoders(reranker: LlamaCppEngine) -> None:
    scores = reranker.score(pairs(QUERY, TEXTS))
    expected = [REFERENCE.score(tiny.pair(QUERY, text)) for text in TEXTS]
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, atol=CLOSE)
    assert np.argsort(scores).tolist() == np.argsort(expected).tolist()
    assert np.ptp(expected) > 1


def test_many_texts_keep_their_places(reranker: LlamaCppEngine) -> None:
    texts = [f"{a} {b}" for a in tiny.WORDS for b in tiny.WORDS[:4]]
    expected = [REFERENCE.score(tiny.pair(QUERY, text)) for text in texts]
    np.testing.assert_allclose(reranker.score(pairs(QUERY, texts)), expected, atol=CLOSE)


def test_no_texts_empty_texts_and_no_query(reranker: LlamaCppEngine) -> None:
    assert reranker.score(pairs(QUERY, [])).shape == (0,)
    for query, text in ((QUERY, ""), ("", "dog"), ("", "")):
        expected = REFERENCE.score(tiny.pair(query, text))
        assert reranker.score(pairs(query, [text]))[0] == pytest.approx(expected, abs=CLOSE)


def test_a_long_text_is_scored_by_its_beginning(reranker: LlamaCppEngine) -> None:
    beginning = reranker._shorten(BABBLE, 50)
    assert BABBLE.startswith(beginning)
    assert 40 < len(tiny.tokens(beginning)) <= 50
    room = tiny.POSITIONS - len(tiny.pair(QUERY, "")) - llamacpp._SLACK
    expected = REFERENCE.score(tiny.pair(QUERY, reranker._shorten(BABBLE, room)))
    assert reranker.score(pairs(QUERY, [BABBLE]))[0] == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize(
    "text", ["unknown " * 300, "x" * 1_000_000, "\u6cd5" * 5000, "dog \ud800 " * 300, "\0" * 100]
)
def test_whatever_it_is_given_gets_a_score(reranker: LlamaCppEngine, text: str) -> None:
    """Unknown words are tokens whose own text is several tokens."""
    scores = [*reranker.score(pairs(text, ["dog", text])), *reranker.score(pairs("dog", [text]))]
    assert np.isfinite(scores).all()


def test_a_prompt_of_the_models_own(tmp_path: Path) -> None:
    """Prompted rerankers bring a template; it takes room from the text."""
    around = "the city of water in rent due on tax"
    template = f"[CLS] {{query}} {around} {{document}} [SEP]"
    path = tmp_path / "prompted.gguf"
    tiny.write(path, TENSORS, gguf.PoolingType.RANK, rerank_template=template)
    engine, _ = load(path, Role.RERANKER)
    try:
        middle = tiny.tokens(around)
        ids = [tiny.CLS, *tiny.tokens(QUERY), *middle, *tiny.tokens("cat"), tiny.SEP]
        expected = REFERENCE.score(ids)
        assert engine.score(pairs(QUERY, ["cat"]))[0] == pytest.approx(expected, abs=CLOSE)
        assert np.isfinite(engine.score(pairs(BABBLE, [BABBLE]))).all()
    finally:
        engine.unload()


def test_a_window_too_small_for_the_prompt_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompted.gguf"
    template = "[CLS] {query} " + "water " * 20 + "{document} [SEP]"
    tiny.write(path, TENSORS, gguf.PoolingType.RANK, rerank_template=template)
    with pytest.raises(ConfigError, match="max_tokens"):
        load(path, Role.RERANKER, max_tokens=32)
    with pytest.raises(HeadraceError):
        load(path, Role.RERANKER, max_tokens=8)


def test_a_model_without_a_head_is_no_reranker(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "plain.gguf", tiny.weights(), gguf.PoolingType.MEAN)
    with pytest.raises(SourceError, match=r"plain\.gguf has no classification head"):
        load(path, Role.RERANKER)


@pytest.mark.parametrize(
    ("pooling", "stated"), [("mean", True), ("cls", True), ("mean", False), ("cls", False)]
)
def test_vectors_are_the_encoders(tmp_path: Path, pooling: str, stated: bool) -> None:
    """The file's own pooling, or the configured one where it states none."""
    kind = gguf.PoolingType[pooling.upper()] if stated else None
    path = tiny.write(tmp_path / "embed.gguf", tiny.weights(), kind)
    options = {} if stated else {"pooling": pooling}
    engine, info = load(path, Role.EMBEDDER, query_prefix="water of ", **options)
    try:
        assert (info.dimensions, info.context) == (tiny.WIDTH, tiny.POSITIONS)
        vectors = engine.embed([*TEXTS, "", BABBLE], "passage")
        room = tiny.POSITIONS - 2
        expected = [
            REFERENCE.embed(tiny.tokens(text)[:room], pooling) for text in [*TEXTS, "", BABBLE]
        ]
        np.testing.assert_allclose(vectors, expected, atol=0.003)
        query = engine.embed(["dog"], "query")[0]
        asked = REFERENCE.embed(tiny.tokens("water of dog"), pooling)
        np.testing.assert_allclose(query, asked, atol=0.003)
        assert np.isfinite(engine.embed(["\ud800", "x" * 10**6], "passage")).all()
    finally:
        engine.unload()
