"""In which order hits come: by fusion, or by what was fitted for the collection.

1. What `ranker.json` says replaces the configured weights and depth (`retrieval.ranker: off` does
without). 2. The lists are fused, and hits gain from others of their document. 3. A fitted ranker
orders the first `POOL` anew, together with what answers like questions that it remembers. 4. After
a reranker, the hits that it scored are ordered once more, if the fitted ranker knows this reranker;
else the reranker has the last word.

A query that names a provision or an identifier is ordered by fusion alone, with words above
vectors: who names article 44 wants article 44.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from headrace.config.answering import RetrievalOptions
from headrace.errors import ConfigError
from headrace.retrieval.analyze import references
from headrace.retrieval.base import Ranking, Scored, scored
from headrace.retrieval.embedded import EmbeddedIndex
from headrace.retrieval.features import (
    OWN,
    Candidates,
    Floats,
    feature_rows,
    lexical_scores,
)
from headrace.retrieval.fuse import fuse, with_documents
from headrace.retrieval.ranker import Ranker
from headrace.retrieval.rows import Embedder
from headrace.retrieval.snapshot import CollectionSnapshot
from headrace.types import Filter, Hit

POOL = 200
"""Fused hits that a fitted ranker looks at."""

NAMED_DENSE_WEIGHT = 0.3
"""Most weight of vectors where the query names what it wants: they hardly tell article 44 from
article 45; words do."""


class Order(NamedTuple):
    """How one search orders its hits. `refused` says why a fitted ranker is not used."""

    options: RetrievalOptions
    ranker: Ranker | None = None
    refused: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return "" if self.ranker is None else self.ranker.id


def order_for(index: EmbeddedIndex, options: RetrievalOptions, embedder: Embedder) -> Order:
    """`embedder`: whose vectors the collection has."""
    if options.ranker == "off":
        return Order(options)
    try:
        ranker = index.ranker.read(embedder.fingerprint, embedder.dimensions)
    except ConfigError as error:
        return Order(options, None, (f"rank: {error.message}",))
    return Order(options if ranker is None else ranker.options(options), ranker)


def fused(
    snapshot: CollectionSnapshot,
    near: Sequence[Scored],
    by_words: Sequence[Scored],
    query: str,
    options: RetrievalOptions,
) -> list[Scored]:
    """What `joined` gives, as lists."""
    return joined(snapshot, Ranking.of(near), Ranking.of(by_words), query, options).listed()


def joined(
    snapshot: CollectionSnapshot,
    near: Ranking,
    by_words: Ranking,
    query: str,
    options: RetrievalOptions,
) -> Ranking:
    """Both lists as one."""
    if references(query):
        weight = min(options.dense_weight, NAMED_DENSE_WEIGHT)
        return fuse(near, by_words, options.model_copy(update={"dense_weight": weight}))
    found = fuse(near, by_words, options)
    if not options.document_weight:
        return found
    return with_documents(found, snapshot.documents(found.ids), options.document_weight)


def candidates(
    index: EmbeddedIndex,
    snapshot: CollectionSnapshot,
    found: Sequence[Scored],
    by_words: Sequence[Scored],
    more: Sequence[int] = (),
) -> Candidates:
    """The first `POOL` of the fused list, and `more` by id, with what features are made of; those
    that were deleted meanwhile are left out."""
    pool = list(found[:POOL])
    there = {one.chunk_id for one in pool}
    later = dict(found[POOL:]) if more else {}
    pool += [Scored(i, later.get(i, 0.0)) for i in more if i not in there]
    passages = index.passages([one.chunk_id for one in pool])
    kept = [one for one in pool if one.chunk_id in passages]
    ids = np.fromiter((one.chunk_id for one in kept), np.int64, len(kept))
    return Candidates(
        ids=ids,
        documents=snapshot.documents(ids),
        vectors=snapshot.dense.vectors(ids),
        fused=np.fromiter((one.score for one in kept), np.float32, len(kept)),
        lexical=lexical_scores(ids.tolist(), by_words),
        titles=[passages[one.chunk_id][0] for one in kept],
        texts=[passages[one.chunk_id][1] for one in kept],
    )


class Ranked(NamedTuple):
    """What a fitted ranker made of the candidates, best first, and each one's features."""

    hits: list[Scored]
    rows: dict[int, Floats]


NOT_RANKED = Ranked([], {})


def ranked(
    index: EmbeddedIndex,
    snapshot: CollectionSnapshot,
    ranker: Ranker,
    query: str,
    vector: Floats,
    found: Sequence[Scored],
    by_words: Sequence[Scored],
    where: Filter,
) -> Ranked:
    """The fused list in the ranker's order, with the passages that answer like questions, if it
    remembers any and the filter lets them through; `NOT_RANKED` where fusion decides alone."""
    if not ranker.ranks or not found or references(query):
        return NOT_RANKED
    past = ranker.past(snapshot, index.places)
    if past is None:
        pool = candidates(index, snapshot, found, by_words)
        rows = feature_rows(query, vector, pool)
    else:
        near = past.nearness(vector)
        brought = past.nearest(near)
        allowed = brought[snapshot.allowed(where).by_id[brought]]
        pool = candidates(index, snapshot, found, by_words, allowed.tolist())
        rows = feature_rows(query, vector, pool)
        rows[:, len(OWN) :] = past.rows(near, pool.ids, pool.documents)
    scores = ranker.scores(rows)
    order = np.argsort(-scores, kind="stable")
    ids = pool.ids.tolist()
    hits = scored(pool.ids[order].tolist(), scores[order].tolist())
    return Ranked(hits, dict(zip(ids, rows, strict=True)))


def reordered(
    ranker: Ranker | None, reranker: str | None, hits: list[Hit], rows: Mapping[int, Floats]
) -> list[Hit]:
    """A reranker's hits, those that it scored in the order that the fitted ranker gives them."""
    if ranker is None or not ranker.reranks(reranker):
        return hits
    known = [hit for hit in hits if "rerank" in hit.scores and hit.chunk_id in rows]
    if not known:
        return hits
    values = np.asarray([hit.scores["rerank"] for hit in known], np.float32)
    given = np.stack([rows[hit.chunk_id] for hit in known])
    scores = ranker.reranked(np.concatenate([given, values[:, None]], axis=1)).tolist()
    again = [
        replace(hit, score=score, scores={**hit.scores, "ranked": score})
        for hit, score in zip(known, scores, strict=True)
    ]
    chosen = {hit.chunk_id for hit in known}
    again.sort(key=lambda hit: -hit.score)
    return again + [hit for hit in hits if hit.chunk_id not in chosen]
