"""Vectors of queries that are not computed twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from headrace.config.caching import CacheOptions
from headrace.config.options import Config
from headrace.engines.base import ModelInfo, Vectors
from headrace.serving.catalogue import model_specs
from headrace.serving.embedding_cache import CachedModels, QueryVectors
from headrace.serving.local import LocalModels
from headrace.telemetry import Metrics

MODEL = "echo-embedder"


class Counting(LocalModels):
    """Counts the texts that are embedded; `fingerprint` stands for a model that was replaced."""

    fingerprint = ""
    texts: Sequence[str] = ()

    async def info(self, model: str, **more: Any) -> ModelInfo:
        info = await super().info(model, **more)
        return replace(info, fingerprint=self.fingerprint or info.fingerprint)

    async def embed(self, model: str, texts: Sequence[str], kind: Any, **more: Any) -> Vectors:
        self.texts = [*self.texts, *texts]
        return await super().embed(model, texts, kind, **more)


@pytest.fixture
def inner(fast: Config) -> Counting:
    return Counting(model_specs(fast))


def wrapped(inner: Counting, **options: Any) -> tuple[CachedModels, QueryVectors, Metrics]:
    vectors, metrics = QueryVectors(), Metrics()
    vectors.configure(CacheOptions(**options))
    return CachedModels(inner, metrics, vectors), vectors, metrics


def count(metrics: Metrics, result: str) -> float | None:
    labels = {"cache": "embeddings", "result": result}
    return metrics.registry.get_sample_value("headrace_cache_lookups_total", labels)


async def test_only_what_is_new_is_embedded(inner: Counting) -> None:
    models, _, metrics = wrapped(inner)
    first = await models.embed(MODEL, ["a", "b", "a"], "query")
    assert list(inner.texts) == ["a", "b"]
    again = await models.embed(MODEL, ["c", "b", "a"], "query")
    assert list(inner.texts) == ["a", "b", "c"]
    fresh = await LocalModels.embed(inner, MODEL, ["a", "b", "a", "c"], "query")
    np.testing.assert_array_equal(first, fresh[:3])
    np.testing.assert_array_equal(again, fresh[[3, 1, 0]])
    assert (count(metrics, "hit"), count(metrics, "miss")) == (2, 3)
    again[:] = 0  # a caller's own
    np.testing.assert_array_equal(await models.embed(MODEL, ["a"], "query"), fresh[:1])


async def test_passages_and_other_models_are_none_of_its_business(inner: Counting) -> None:
    models, _, _ = wrapped(inner)
    query = await models.embed(MODEL, ["a"], "query")
    for _ in range(2):
        await models.embed(MODEL, ["a"], "passage")
    assert list(inner.texts) == ["a", "a", "a"]
    inner.fingerprint = "another"
    np.testing.assert_array_equal(await models.embed(MODEL, ["a"], "query"), query)
    assert list(inner.texts) == ["a"] * 4
    assert (await models.embed(MODEL, [], "query")).shape[0] == 0


async def test_memory_is_bounded_and_can_be_switched_off(inner: Counting) -> None:
    models, vectors, metrics = wrapped(inner, embeddings_size="16KiB")
    for number in range(200):
        await models.embed(MODEL, [f"question {number}"], "query")
        held = metrics.registry.get_sample_value("headrace_cache_bytes", {"cache": "embeddings"})
        assert held is not None
        assert 0 < held <= 16 << 10
    vectors.configure(CacheOptions(embeddings_size=None))
    inner.texts = ()
    for _ in range(2):
        await models.embed(MODEL, ["question 199"], "query")
    assert len(inner.texts) == 2
