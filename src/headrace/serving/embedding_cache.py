"""`Models` that remember the vectors of queries: a question asked again is not embedded again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence

import numpy as np

from headrace.config.caching import CacheOptions
from headrace.config.fields import size_bytes
from headrace.engines.base import Vectors
from headrace.serving.bounded import Bounded
from headrace.serving.models import Models, WrappedModels
from headrace.telemetry import Metrics
from headrace.types import USER, Call, EmbedKind

NAME = "embeddings"
"""Of this cache, in the metrics."""


class QueryVectors:
    """Vectors with the seconds that each took, by key. Nothing is kept before `configure`."""

    def __init__(self) -> None:
        self.limit = 0
        self._kept: Bounded[bytes, tuple[Vectors, float]] = Bounded()

    def configure(self, options: CacheOptions) -> None:
        """Takes effect at once."""
        size = options.embeddings_size
        self.limit = 0 if size is None else size_bytes(size)
        self._kept.shrink(self.limit)

    def get(self, key: bytes) -> tuple[Vectors, float] | None:
        return self._kept.get(key)

    def keep(self, key: bytes, vector: Vectors, seconds: float) -> None:
        own = np.array(vector)  # a view would keep the whole batch
        self._kept.put(key, (own, seconds), own.nbytes + len(key), self.limit)

    def tell(self, metrics: Metrics) -> None:
        """How much there is now."""
        metrics.cache_bytes.labels(NAME).set(self._kept.bytes)
        metrics.cache_entries.labels(NAME).set(len(self._kept))


class CachedModels(WrappedModels):
    """Vectors of queries are kept by the embedder's fingerprint, so those of a replaced model are
    never given; passages are embedded once and stored in the index, so they are not kept here."""

    def __init__(self, models: Models, metrics: Metrics, vectors: QueryVectors) -> None:
        super().__init__(models)
        self._metrics = metrics
        self._vectors = vectors

    async def embed(
        self,
        model: str,
        texts: Sequence[str],
        kind: EmbedKind,
        *,
        call: Call = USER,
    ) -> Vectors:
        if kind != "query" or not self._vectors.limit or not texts:
            return await super().embed(model, texts, kind, call=call)
        fingerprint = (await self.info(model, call=call)).fingerprint
        keys = [_key(fingerprint, text) for text in texts]
        found = {key: kept for key in keys if (kept := self._vectors.get(key)) is not None}
        self._count(found)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            began = time.perf_counter()
            made = await super().embed(model, list(missing.values()), kind, call=call)
            seconds = (time.perf_counter() - began) / len(missing)
            for key, vector in zip(missing, made, strict=True):
                found[key] = (vector, seconds)
                self._vectors.keep(key, vector, seconds)
            self._metrics.cache_lookups.labels(NAME, "miss").inc(len(missing))
        self._vectors.tell(self._metrics)
        return np.stack([found[key][0] for key in keys])

    def _count(self, hits: Mapping[bytes, tuple[Vectors, float]]) -> None:
        if hits:
            saved = sum(seconds for _, seconds in hits.values())
            self._metrics.cache_lookups.labels(NAME, "hit").inc(len(hits))
            self._metrics.cache_saved_seconds.labels(NAME).inc(saved)


def _key(fingerprint: str, text: str) -> bytes:
    """16 bytes; the kind is always `query`."""
    data = f"{fingerprint}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).digest()
