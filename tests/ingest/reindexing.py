"""What tests of reindexing share."""

from __future__ import annotations

from typing import Any

import numpy as np
from ingesting import Place, with_ingest

from headrace.config.model_options import ModelOptions
from headrace.config.options import Config
from headrace.ingest.reindex import Places, Reindexed, Wanted, go_back, reindex
from headrace.ingest.stamps import Cut
from headrace.retrieval.base import embedding_text
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.rows import Embedder, chunk_ranges, read_chunks, read_vectors
from headrace.retrieval.search import search
from headrace.types import ALL_ACCESS, Filter, Role, SearchResult

OWNER = Filter(access=ALL_ACCESS)
CONFIGURED = Cut("auto", 400)


def embedder(source: str) -> ModelOptions:
    return ModelOptions(role=Role.EMBEDDER, engine="echo", source=source)


def two_embedders(config: Config, delay: str = "") -> Config:
    """`echo-embedder` of 64 dimensions and `small` of 32; batches of four texts."""
    small = f"delay={delay},dimensions=32" if delay else "dimensions=32"
    models = {**config.models, "small": embedder(small)}
    return with_ingest(config.model_copy(update={"models": models}), batch_texts=4)


def places(here: Place) -> Places:
    return Places(here.collections, here.models, 4)


async def change(here: Place, to: str = "small", cut: Cut = CONFIGURED, **more: Any) -> Reindexed:
    return await reindex(places(here), "default", Wanted(to, cut, CONFIGURED), **more)


async def back(here: Place) -> Reindexed:
    return await go_back(places(here), "default", CONFIGURED)


async def find(here: Place, index: EmbeddedIndex | None = None, text: str = "") -> SearchResult:
    """With the configured embedder, whatever the collection has."""
    return await search(
        index or here.index,
        here.models,
        "echo-embedder",
        text or "wheel 7 turns",
        options=here.config.retrieval,
        where=OWNER,
        k=5,
    )


def stored(index: EmbeddedIndex) -> tuple[Embedder, np.ndarray, list[str]]:
    """The embedder, and every chunk's vector and embedded text, of the index in use."""
    held = index.embedder()
    with index.reading() as db:
        _, vectors = read_vectors(db, 0, 1 << 40, held.dimensions)
        ranges = chunk_ranges(db, OWNER).tolist()
        chunks = [chunk for first, last in ranges for chunk in read_chunks(db, first, last)]
    return held, vectors, [embedding_text(c.path, c.text) for c in chunks]


async def check(here: Place, model: str) -> None:
    """All vectors in use are the model's, and searches find with them."""
    held, vectors, texts = stored(here.index)
    info = await here.models.info(model)
    assert held == Embedder(model, info.fingerprint, info.dimensions)
    fresh = await here.models.embed(model, texts, "passage")
    np.testing.assert_allclose(vectors, fresh, atol=1e-3)
    assert here.collections.verify("default").differences == ()
    assert len((await find(here)).hits) == 5


def count(index: EmbeddedIndex, what: str) -> int:
    with index.reading() as db:
        return int(db.execute(f"SELECT count(*) FROM {what}").fetchone()[0])
